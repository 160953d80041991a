"""What is new in one series, alarms that do not repeat themselves, and the benchmark's score of them."""

import random

import pytest

from models.residual import score_rows
from training.nab import probation, standard_score, windows_of

np = pytest.importorskip("numpy")
from models.novelty import alarms, novelty  # noqa: E402  # needs numpy


def daily(rows=1200, seed=1):
    source = random.Random(seed)
    return np.array([10.0 + 5.0 * np.sin(row / 20.0) + source.gauss(0, 0.2) for row in range(rows)])


def test_value_never_seen_is_new_and_the_usual_wave_is_not():
    series = daily()
    series[900] = 40.0
    scores = novelty(series)
    assert scores[900] > 5.0 * np.quantile(scores[300:], 0.99)


def test_value_inside_the_range_is_new_where_the_wave_never_had_it_in_one_step():
    series = daily()
    series[950:953] = [15.0, 5.0, 15.0]
    scores = novelty(series)
    assert scores[950:954].max() == scores[300:].max()


def test_scores_do_not_look_ahead():
    series = daily()
    changed = series.copy()
    changed[800:] += 100.0
    assert novelty(series)[:800].tolist() == novelty(changed)[:800].tolist()


def test_values_that_are_no_numbers_repeat_the_last_one_and_scale_does_not_matter():
    series = daily(400)
    broken = series.copy()
    broken[200:205] = np.nan
    assert np.isfinite(novelty(broken)).all()
    assert novelty(series * 1e6) == pytest.approx(novelty(series))
    assert novelty([]).tolist() == []
    assert novelty([3.0]).tolist() == [0.0]
    assert not novelty([2.0] * 50).any()


def test_one_event_gives_one_alarm_and_a_worse_one_another():
    scores = np.zeros(300)
    scores[10:30] = 1.0
    scores[25] = 2.0
    scores[200] = 1.0
    assert np.flatnonzero(alarms(scores)).tolist() == [10, 25, 200]


def test_a_few_series_are_scored_against_their_own_past():
    series = daily()
    series[1000:1020] = 30.0
    scores = score_rows(series[:600], series[600:])
    assert len(scores) == 600
    assert scores[400:430].min() > scores[:390].max()


def test_benchmark_gives_nothing_for_silence_all_for_early_hits_and_takes_away_for_false_alarms():
    labels = [0] * 400 + [1] * 40 + [0] * 360
    silent = standard_score({"one": ([0.0] * 800, labels)})
    early = [0.0] * 800
    early[400] = 1.0
    late = [0.0] * 800
    late[438] = 1.0
    noisy = list(early)
    for row in range(150, 400, 25):
        noisy[row] = 1.0
    best = standard_score({"one": (early, labels)})
    assert silent == 0.0  # every row at one threshold costs more than the window is worth
    assert best == pytest.approx(99.3, abs=0.1)
    assert 50.0 < standard_score({"one": (late, labels)}) < 60.0
    assert standard_score({"one": (noisy, labels)}) == pytest.approx(best - 100 * 10 * 0.11 / 2)


def test_benchmark_counts_a_window_once_and_one_threshold_serves_all_series():
    labels = [0] * 400 + [1] * 40 + [0] * 360
    twice = [0.0] * 800
    twice[400] = twice[410] = 1.0
    small = [0.1] * 800
    small[400] = 0.3
    assert standard_score({"one": (twice, labels)}) == pytest.approx(99.3, abs=0.1)
    assert standard_score({"a": (twice, labels), "b": (small, labels)}) == pytest.approx(99.3, abs=0.1)
    with pytest.raises(ValueError, match="no series"):
        standard_score({"one": ([0.0] * 10, [0] * 10)})


def test_windows_and_probation_follow_the_benchmark():
    assert windows_of([1, 1, 0, 0, 1, 0, 1]) == [(0, 1), (4, 4), (6, 6)]
    assert probation(1000) == 150
    assert probation(100_000) == 750
