"""A grader of log lines: how much a text speaks for an alert, learnt from few judged lines.

Its grades are soft labels for lines that nobody judged, so that a larger model learns to read them all alike
instead of learning a few services by heart. Word and letter n-grams under a logistic regression, averaged
with what the words alone say (`models.alertness`). Knows nothing about where the lines came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from models.alertness import word_weight

STRENGTH = 3.0  # inverse of the regularisation
WORD_GAIN = 4.0  # a word weight of 0.5, as "failed" has, is worth a logit of 1 above one of 0.25
WORD_MIDDLE = 0.3


class Grader:
    """Grades texts after it saw judged ones."""

    def __init__(self, texts: Sequence[str], alerts: Sequence[float], weights: Sequence[float]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415  # heavy
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
        from sklearn.pipeline import make_union  # noqa: PLC0415

        self._features: Any = make_union(
            TfidfVectorizer(token_pattern=r"<\w+>|[a-z]+", ngram_range=(1, 2), sublinear_tf=True),  # noqa: S106
            TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), min_df=2, sublinear_tf=True),
        )
        self._model: Any = LogisticRegression(C=STRENGTH, max_iter=300)
        self._model.fit(self._features.fit_transform(texts), alerts, sample_weight=weights)

    def grade(self, texts: Sequence[str]) -> list[float]:
        """The probability that each text deserves an alert."""
        import numpy as np  # noqa: PLC0415

        grades: list[float] = []
        for start, end in pairwise([*range(0, len(texts), 4096), len(texts)]):
            part = texts[start:end]
            by_model = self._model.decision_function(self._features.transform(part))
            by_words = WORD_GAIN * (np.array([word_weight(text) for text in part]) - WORD_MIDDLE)
            grades += (1.0 / (1.0 + np.exp(-0.5 * (by_model + by_words)))).tolist()
        return grades
