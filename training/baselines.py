"""What a model has to beat: the residual of principal components, and n-grams under a regression.

Used by evaluation only, never by the daemon; each is the plain form of its method, untuned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
KEPT_VARIANCE = 0.9
_STILL = 1e-6  # a metric that deviated less than this never moved


def residual_scores(train: Array, test: Array) -> Array:
    """Squared residual of each row after the components with 90 % of `train`'s variance: (rows,) float64.

    A single metric leaves no residual; its score is the squared distance from its past mean.
    """
    train, test = np.nan_to_num(train), np.nan_to_num(test)
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    scale = np.where(deviation < _STILL, 1.0, deviation)
    usual, rows = (train - mean) / scale, (test - mean) / scale
    if usual.shape[1] == 1:
        return np.square(rows[:, 0])  # type: ignore[no-any-return]
    values, vectors = np.linalg.eigh(np.cov(usual.T))
    carried = np.cumsum(values[::-1]) / max(float(values.sum()), 1e-12)
    axes = vectors[:, ::-1][:, : int(np.searchsorted(carried, KEPT_VARIANCE)) + 1]  # (metrics, components)
    return np.square(rows - rows @ axes @ axes.T).sum(axis=1)  # type: ignore[no-any-return]


def ngram_probabilities(
    texts: Sequence[str], labels: Sequence[int] | Array, asked: Sequence[str], *, seed: int = 0
) -> Array:
    """Class probabilities of `asked` by word (1-2) and character (2-5) TF-IDF under logistic regression.

    Returns (asked, classes) float64 in the order of the sorted labels. Needs scikit-learn.
    """
    from scipy.sparse import hstack  # noqa: PLC0415 - heavy, and only some evaluations ask
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True)
    known = hstack([words.fit_transform(texts), letters.fit_transform(texts)]).tocsr()
    wanted = hstack([words.transform(asked), letters.transform(asked)]).tocsr()
    model = LogisticRegression(C=3.0, class_weight="balanced", max_iter=200, random_state=seed)
    model.fit(known, np.asarray(labels))
    found: Array = model.predict_proba(wanted)
    return found
