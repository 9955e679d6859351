"""The offline glue metric agrees with scikit-learn and with figures worked out by hand."""

import os
from pathlib import Path

import pytest

METRIC = str(Path(__file__).resolve().parents[1] / "data" / "metrics" / "glue")
PREDICTIONS = [1, 1, 1, 0, 0, 1]
REFERENCES = [1, 1, 0, 0, 1, 1]  # three true positives, one false positive, one false negative


@pytest.fixture(scope="module")
def load():
    """`evaluate.load`, imported with its network use switched off (the flag is read at import)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "HF_EVALUATE_OFFLINE", "1")
        import evaluate

        yield evaluate.load


def test_mrpc_gives_accuracy_and_f1_of_the_positive_class(load):
    result = load(METRIC, "mrpc").compute(predictions=PREDICTIONS, references=REFERENCES)
    assert result == {"accuracy": pytest.approx(4 / 6), "f1": pytest.approx(2 * 3 / (2 * 3 + 1 + 1))}
    assert all(type(value) is float for value in result.values())


@pytest.mark.parametrize("config", ["sst2", "qnli", "rte", "wnli", "mnli"])
def test_the_other_tasks_give_accuracy_alone(load, config):
    result = load(METRIC, config).compute(predictions=PREDICTIONS, references=REFERENCES)
    assert result == {"accuracy": pytest.approx(4 / 6)}


def test_batches_add_up_to_the_whole(load):
    import torch

    metric = load(METRIC, "mrpc")
    for rows in (slice(0, 4), slice(4, 6)):
        metric.add_batch(predictions=torch.tensor(PREDICTIONS)[rows], references=torch.tensor(REFERENCES)[rows])
    whole = load(METRIC, "mrpc").compute(predictions=PREDICTIONS, references=REFERENCES)
    assert metric.compute() == whole


@pytest.mark.parametrize("config", ["mrcp", "cola", None])
def test_an_unknown_configuration_lists_what_exists(load, config):
    with pytest.raises(ValueError, match="choose one of mrpc, qqp, sst2"):
        load(METRIC, config)


@pytest.mark.parametrize("predictions", [[1], [[0.2, 0.8]] * 6])
def test_predictions_of_the_wrong_shape_are_refused(load, predictions):
    with pytest.raises(ValueError, match=r"number of predictions|expected format"):
        load(METRIC, "mrpc").compute(predictions=predictions, references=REFERENCES)


def test_no_positive_at_all_is_an_f1_of_zero_without_a_warning(load, recwarn):
    result = load(METRIC, "mrpc").compute(predictions=[0, 0], references=[0, 0])
    assert result == {"accuracy": 1.0, "f1": 0.0}
    assert not [warning for warning in recwarn if "ill-defined" in str(warning.message)]
