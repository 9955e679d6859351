"""What differs from task to task: strata of the rows, tokens, head, loss, metrics, baselines, thresholds, card.

    from takehome.tasks import make_task
    task = make_task("multi-label", labels=["late", "rude"])

The flow of a run is scripts/fine_tune.py's, the same for all; `Task` says what it asks for.
"""

from takehome.reading import Reading
from takehome.tasks.classes import Classes
from takehome.tasks.entities import Entities
from takehome.tasks.labels import Labels
from takehome.tasks.questions import Questions
from takehome.tasks.scores import Scale, Scores
from takehome.tasks.task import Task

__all__ = ["TASKS", "Scale", "Task", "make_task"]

TASKS = {kind.name: kind for kind in (Classes, Labels, Scores, Entities, Questions)}


def task_of_model(config, noted: str | None) -> str:
    """The task of a saved model.

    Args:
        config: its transformers config.
        noted: what fine_tune.py noted, if it was that.
    """
    if noted in TASKS:
        return noted
    if any(name.endswith("ForTokenClassification") for name in config.architectures or ()):
        return "tokens"
    if any(name.endswith("ForQuestionAnswering") for name in config.architectures or ()):
        return "questions"
    kinds = {"multi_label_classification": "multi-label", "regression": "regression"}
    return kinds.get(config.problem_type, "regression" if config.num_labels == 1 else "classification")


def make_task(
    name: str,
    labels: list[str],
    scale: Scale | None = None,
    thresholds: list[float] | None = None,
    reading: Reading | None = None,
) -> Task:
    """The task of this name.

    Args:
        name: one of TASKS.
        labels: names of the classes, labels or tags, by id; empty for a score, and for questions.
        scale: of the scores of the training rows, for a score.
        thresholds: of each label, for several labels a text; of no answer, for questions.
        reading: how texts are read that are asked about.
    """
    return TASKS[name](labels, scale=scale, thresholds=thresholds, reading=reading)
