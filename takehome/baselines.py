"""What simpler ways than a transformer make of the same texts: words counted, with scikit-learn's linear models.

The words and pairs of words of a text are counted, rare ones count more (TF-IDF), and a linear model weighs them. For a
pair of texts there are three such vectors: of the first, of the second, and of what both have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset
    from scipy.sparse import csr_matrix

COUNTER = "words counted (TF-IDF, linear)"
MAX_ROWS, MAX_CHARACTERS = 10_000, 5_000  # that are looked at: it takes seconds, whatever the data
MAX_WEIGHTS = 1_000_000  # of all outputs together


def count_words(train: Dataset, others: list[Dataset], outputs: int) -> list[csr_matrix]:
    """The counted words of train, and of other rows by the vocabulary of train.

    Args:
        train: rows with "text", and "pair" if there are two.
        others: rows to describe in the same way.
        outputs: how many linear models will weigh them.
    """
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    names = [name for name in ("text", "pair") if name in train.column_names]
    most = max(2_000, min(50_000, MAX_WEIGHTS // max(1, outputs * len(names))))
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=most, token_pattern=r"(?u)\b\w+\b")
    try:
        vectorizer.fit(text for name in names for text in _texts(train, name))
    except ValueError:  # no word in any text
        vectorizer.set_params(analyzer="char").fit(text for name in names for text in _texts(train, name))
    found = []
    for part in (train, *others):
        vectors = [vectorizer.transform(_texts(part, name)) for name in names]
        if len(vectors) > 1:
            vectors.append(vectors[0].multiply(vectors[1]))
        found.append(hstack(vectors).tocsr())
    return found


def _texts(part: Dataset, name: str) -> Iterator[str]:
    for batch in part.select_columns(name).iter(1000):
        yield from (text[:MAX_CHARACTERS] for text in batch[name])


def fit_classes(train: csr_matrix, labels: np.ndarray, test: csr_matrix, classes: int) -> np.ndarray:
    """Log-probabilities of the classes of test rows [rows, classes]."""
    from sklearn.linear_model import LogisticRegression

    there = np.unique(labels)
    logs = np.full((test.shape[0], classes), -30.0)
    logs[:, there] = LogisticRegression(C=10, max_iter=200).fit(train, labels).predict_log_proba(test)
    return np.maximum(logs, -30)


def fit_labels(train: csr_matrix, labels: np.ndarray, others: list[csr_matrix]) -> list[np.ndarray]:
    """Log-odds of each label [rows, labels], for other rows."""
    from sklearn.linear_model import LogisticRegression

    found = [np.full((part.shape[0], labels.shape[1]), -30.0) for part in others]
    for n in range(labels.shape[1]):
        if 0 < labels[:, n].sum() < len(labels):
            model = LogisticRegression(C=10, max_iter=200).fit(train, labels[:, n])
            for own, part in zip(found, others, strict=True):
                own[:, n] = model.decision_function(part)
    return found


def fit_score(train: csr_matrix, scores: np.ndarray, test: csr_matrix) -> np.ndarray:
    """Predicted scores of test rows [rows]."""
    from sklearn.linear_model import Ridge

    return Ridge(alpha=1.0).fit(train, scores).predict(test)
