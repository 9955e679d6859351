"""The architectures that people fine-tune: the closed form against the trace, or the trace in its place."""

import functools
import random
import statistics

import pytest
from memory_cases import ARCHITECTURE_SETTINGS, ARCHITECTURES, BERT
from memory_truth import quiet, real_peak

from helpers import memory
from helpers.memory import estimate, read_config, trace
from helpers.memory.families import FAMILIES

SHAPE = {"per_device_train_batch_size": 4, "sequence_length": 96}
KNOWN = [name for name, config in ARCHITECTURES.items() if config["model_type"] in FAMILIES]
TRACED = [name for name in ARCHITECTURES if name not in KNOWN]


@pytest.fixture(autouse=True, scope="module")
def without_chatter():
    quiet()


def shallow(name, layers=2):
    """The architecture with fewer layers, to be quicker."""
    config = ARCHITECTURES[name]
    return config | {key: layers for key in ("num_hidden_layers", "num_layers", "n_layer") if key in config}


@pytest.mark.parametrize("name", KNOWN)
def test_parameters_agree_with_transformers(name):
    import torch

    architecture = read_config(ARCHITECTURES[name])
    tasks = {
        "decoder": ("causal-lm", "sequence-classification", "token-classification", "question-answering"),
        "encoder": ("masked-lm", "sequence-classification", "token-classification", "question-answering"),
        "encoder-decoder": ("seq2seq-lm",),
    }[architecture.family.role]
    for task in tasks:
        try:
            with torch.device("meta"):
                model = memory.build_model(ARCHITECTURES[name], task=task)
        except ValueError as reason:
            assert "transformers has no model" in str(reason)
            continue
        assert architecture.parameters(task) == sum(p.numel() for p in model.parameters()), task


@functools.cache
def error(name):
    """Relative error of the closed form, with settings that a seed chose; the table `architectures` has all of them."""
    draw = random.Random(name)
    said = draw.choice([said for said in ARCHITECTURE_SETTINGS if said != "8-bit optimizer"])
    settings = ARCHITECTURE_SETTINGS[said] | {"device": draw.choice(["cpu", "cuda"])}
    predicted, traced = estimate(shallow(name), **SHAPE, **settings), trace(shallow(name), **SHAPE, **settings)
    assert predicted.source == "closed form" and predicted.parameters == traced.parameters
    return abs(predicted.peak_bytes / traced.peak_bytes - 1)


@pytest.mark.parametrize("name", KNOWN)
def test_the_closed_form_agrees_with_the_trace(name):
    assert error(name) < 0.07


def test_half_of_the_closed_forms_are_within_one_percent():
    assert statistics.median(map(error, KNOWN)) < 0.01


def test_modernbert_computes_the_loss_of_masked_tokens_in_fp32():
    """BERT's computes it in the precision of the logits. Few tokens and a small width: the logits decide the peak."""
    shape = {"per_device_train_batch_size": 8, "sequence_length": 8, "device": "cpu", "task": "masked-lm"}
    small = {"num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 64}
    for config in (ARCHITECTURES["ModernBERT"] | small, BERT | small):
        predicted, traced = (way(config, precision="pure-bf16", **shape) for way in (estimate, trace))
        assert predicted.peak_bytes == pytest.approx(traced.peak_bytes, rel=0.03), config["model_type"]


@pytest.mark.slow
@pytest.mark.parametrize("said", ARCHITECTURE_SETTINGS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_all_closed_forms_agree_with_the_trace(said, device):
    errors = {}
    for name in KNOWN:
        settings = ARCHITECTURE_SETTINGS[said] | {"device": device}
        traced = trace(ARCHITECTURES[name], **SHAPE, **settings).peak_bytes
        errors[name] = abs(estimate(ARCHITECTURES[name], **SHAPE, **settings).peak_bytes / traced - 1)
    assert statistics.median(errors.values()) < 0.01, errors
    assert max(errors.values()) < 0.07, errors


@pytest.mark.parametrize("name", ["DeBERTa", "BLOOM", "Mixtral", "BART"])
def test_what_has_no_closed_form_is_traced(name):
    """Without sdpa, with experts, with encoder and decoder."""
    config, shape = shallow(name), {"per_device_train_batch_size": 2, "sequence_length": 16, "device": "cpu"}
    predicted = estimate(config, **shape)
    assert predicted.source == "trace"
    assert f"no closed form for model_type '{config['model_type']}'" in str(predicted)
    assert ("has no sdpa" in str(predicted)) == (name in ("DeBERTa", "BLOOM"))
    assert predicted.peak_bytes == pytest.approx(real_peak(config, 2, 16), rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACED)
def test_the_trace_agrees_with_the_real_allocator(name):
    traced = trace(ARCHITECTURES[name], per_device_train_batch_size=2, sequence_length=32, device="cpu")
    assert traced.peak_bytes == pytest.approx(real_peak(ARCHITECTURES[name], 2, 32), rel=0.01)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("Longformer", {}, "depends on the numbers in a batch"),
        ("Mamba", {"task": "token-classification"}, "transformers has no model of type 'mamba'"),
        ("Mixtral", {"method": "qlora", "precision": "bf16"}, "cannot follow 4-bit weights"),
        ("Granite", {"num_gpus": 2}, "cannot follow several GPUs"),
    ],
)
def test_what_cannot_be_traced_says_so_in_one_line(name, settings, message):
    with pytest.raises(ValueError, match=message) as refused:
        estimate(shallow(name), **(SHAPE | settings))
    assert "\n" not in str(refused.value)


def test_a_checkpoint_in_half_precision_says_what_is_counted():
    stored = ARCHITECTURES["Qwen3"] | {"dtype": "bfloat16"}
    predicted = estimate(stored, **SHAPE)
    assert "stored in bfloat16; counted: weights in fp32" in str(predicted)
    assert predicted.weights == 4 * predicted.parameters
    assert "stored in" not in str(estimate(stored, **SHAPE, precision="pure-bf16"))
    assert "stored in" not in str(estimate(ARCHITECTURES["Qwen3"], **SHAPE))


@pytest.mark.parametrize(("name", "settings"), [("BART", {}), ("T5", {"method": "lora", "padded": True})])
def test_a_classifier_with_a_decoder_is_traced(name, settings):
    """It reads the token at which a text ends, which a batch must have and a fake tensor cannot tell."""
    told = {"task": "sequence-classification", **settings}
    predicted = estimate(shallow(name), per_device_train_batch_size=2, sequence_length=16, device="cpu", **told)
    assert predicted.source == "trace" and "no closed form for" in str(predicted)
    assert predicted.peak_bytes == pytest.approx(real_peak(shallow(name), 2, 16, **told), rel=0.01)


def test_other_masks_on_fake_tensors_are_left_alone():
    """What a classifier of encoder and decoder picks is known beforehand; what any other mask picks is not."""
    import torch
    from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

    from helpers.memory.end_of_text import one_end_of_text

    both = memory.build_model(shallow("T5"), task="sequence-classification")
    generates = memory.build_model(shallow("T5"))
    with FakeTensorMode(allow_non_fake_inputs=True):
        states, mask = torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
        with one_end_of_text(both):
            assert states[mask, :].shape == (2, 4) and states[:, -1].shape == (2, 4)
            with pytest.raises(DynamicOutputShapeException):
                states[mask]
        with one_end_of_text(generates), pytest.raises(DynamicOutputShapeException):
            states[mask, :]
