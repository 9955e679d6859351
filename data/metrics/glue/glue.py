"""GLUE's accuracy and F1 for `evaluate.load("<this directory>", "mrpc")`, computed by scikit-learn, without a network.

The results have the keys and values of the Hub's `glue` metric for the configurations listed in METRICS.
"""

from functools import partial

import datasets
import evaluate
from sklearn.metrics import accuracy_score, f1_score

ACCURACY = {"accuracy": accuracy_score}
ACCURACY_F1 = {"accuracy": accuracy_score, "f1": partial(f1_score, zero_division=0.0)}  # 0 without the warning
METRICS = {
    "mrpc": ACCURACY_F1,
    "qqp": ACCURACY_F1,
    "sst2": ACCURACY,
    "qnli": ACCURACY,
    "rte": ACCURACY,
    "wnli": ACCURACY,
    "mnli": ACCURACY,
}


class Glue(evaluate.Metric):
    """Accuracy, and F1 of class 1 where the benchmark asks for it (mrpc, qqp)."""

    def _info(self):
        if self.config_name not in METRICS:
            raise ValueError(
                f"glue has no configuration {self.config_name!r} here; "
                f'choose one of {", ".join(METRICS)}, as in evaluate.load(path, "mrpc")'
            )
        return evaluate.MetricInfo(
            description="Accuracy and F1 on the tasks of the GLUE benchmark.",
            citation="Wang et al. 2019, GLUE: A Multi-Task Benchmark and Analysis Platform, arXiv:1804.07461",
            inputs_description="predictions and references: class numbers, one an example, as lists or arrays",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
            reference_urls=["https://gluebenchmark.com"],
        )

    def _compute(self, predictions, references):
        return {name: float(metric(references, predictions)) for name, metric in METRICS[self.config_name].items()}
