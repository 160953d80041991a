"""The multivariate residual, streaming and offline."""

import random
import time

import pytest

from models.residual import CovarianceScorer, score_rows


def correlated(source, *, broken=False):
    """Four metrics of which two pairs move together."""
    a, b = source.gauss(0, 1), source.gauss(0, 1)
    row = [a, a + source.gauss(0, 0.1), b, b + source.gauss(0, 0.1)]
    if broken:
        row[1] = -2.0 * a if abs(a) > 1 else 2.5
    return row


def trained(rows=1500, width=4):
    source = random.Random(1)
    scorer = CovarianceScorer(width)
    for _ in range(rows):
        row = correlated(source)
        scorer.learn(row, scorer.score(row))
    return scorer, source


def test_broken_correlation_scores_higher_though_each_metric_is_in_its_range():
    scorer, source = trained()
    usual = sorted(scorer.score(correlated(source)) for _ in range(200))
    broken = scorer.score([1.5, -1.5, 0.0, 0.0])
    together = scorer.score([1.5, 1.5, 0.0, 0.0])
    assert broken > 2.0 * together
    assert broken > usual[189]  # the ninety-fifth percentile


def test_score_is_the_regularised_distance_and_shares_add_up_to_it():
    np = pytest.importorskip("numpy")
    scorer, _ = trained(240)
    covariance = np.zeros((4, 4))
    for i, lower in enumerate(scorer._lower):
        covariance[i, : i + 1] = covariance[: i + 1, i] = lower
    row = np.array([1.0, -2.0, 0.5, 3.0])
    assert scorer.score(row.tolist()) == pytest.approx(row @ np.linalg.inv(covariance + np.eye(4)) @ row)


def test_shares_add_up_and_name_what_is_strange():
    scorer, _ = trained()
    row = [0.1, 0.1, 6.0, 0.0]
    shares = scorer.shares(row)
    assert sum(shares) == pytest.approx(scorer.score(row))
    assert max(range(4), key=shares.__getitem__) == 2


def test_strange_rows_hardly_teach():
    scorer, _ = trained()
    before = scorer.score([8.0, -8.0, 8.0, -8.0])
    for _ in range(120):
        row = [8.0, -8.0, 8.0, -8.0]
        scorer.learn(row, scorer.score(row))
    assert scorer.score([8.0, -8.0, 8.0, -8.0]) > 0.3 * before


def test_state_is_taken_up_and_foreign_state_refused():
    scorer, _ = trained(240)
    again = CovarianceScorer(4)
    assert again.resume(scorer.state())
    assert again.score([1, 2, 3, 4]) == pytest.approx(scorer.score([1, 2, 3, 4]))
    assert not CovarianceScorer(5).resume(scorer.state())
    for bad in ({}, {"width": 4}, {"width": 4, "lower": [[1.0]] * 4}, {"width": 4, "lower": 7}):
        assert not CovarianceScorer(4).resume(bad)


def test_row_of_forty_costs_less_than_four_tenths_of_a_millisecond():
    source = random.Random(2)
    rows = [[source.gauss(0, 1) for _ in range(40)] for _ in range(300)]
    scorer = CovarianceScorer(40)
    begin = time.process_time()
    for row in rows:
        scorer.learn(row, scorer.score(row))
    assert (time.process_time() - begin) / len(rows) < 4e-4


def test_offline_scores_rank_an_anomalous_stretch_first():
    np = pytest.importorskip("numpy")
    source = np.random.default_rng(1)
    train = source.random((2000, 1)) * source.random(6) + 0.02 * source.standard_normal((2000, 6))
    test = source.random((800, 1)) * source.random(6) + 0.02 * source.standard_normal((800, 6))
    test[400:430, 2] += 1.0
    scores = score_rows(train, test)
    assert scores.shape == (800,)
    top = np.argsort(scores)[-25:]
    assert ((top >= 400) & (top < 445)).mean() > 0.9


def test_offline_scores_are_causal():
    np = pytest.importorskip("numpy")
    source = np.random.default_rng(2)
    train, test = source.random((500, 5)), source.random((300, 5))
    changed = test.copy()
    changed[200:] = 9.0
    assert np.allclose(score_rows(train, test)[:200], score_rows(train, changed)[:200])


def test_single_series_is_scored_by_its_own_past():
    np = pytest.importorskip("numpy")
    source = np.random.default_rng(3)
    series = np.sin(np.arange(1500) / 20.0) + 0.05 * source.standard_normal(1500)
    series[1200:1210] += 2.0
    scores = score_rows(series[:700], series[700:])
    assert 500 <= int(np.argmax(scores)) < 530
