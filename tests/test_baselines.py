"""Robust streaming baselines and windows."""

import random
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.baselines import SLOW_S, Baseline
from models.windows import POINTS, Trend


def feed(baseline, values, t=0.0):
    return [baseline.learn(value, t + n, 1.0) for n, value in enumerate(values, 1)]


def test_level_and_scale_approach_those_of_the_noise():
    source = random.Random(1)
    baseline = Baseline(0.001)
    feed(baseline, [source.gauss(0.4, 0.05) for _ in range(1500)])
    assert baseline.level == pytest.approx(0.4, abs=0.01)
    assert baseline.scale == pytest.approx(0.05, rel=0.2)
    assert baseline.z(0.9) > 7


def test_bursts_hardly_move_the_usual_level():
    source = random.Random(2)
    plain, burst = Baseline(0.01), Baseline(0.01)
    noise = [source.gauss(0.1, 0.02) for _ in range(1200)]
    feed(plain, noise)
    feed(burst, [1.0 if n % 40 == 0 else value for n, value in enumerate(noise)])
    assert burst.level - plain.level < 0.015  # a mean would have moved by 0.0225


def test_lasting_change_is_a_shift_within_ten_values_and_usual_after_a_while():
    baseline = Baseline(0.01)
    source = random.Random(3)
    assert not any(feed(baseline, [source.gauss(0.1, 0.01) for _ in range(600)]))
    shifts = feed(baseline, [0.6] * 7200, t=600.0)
    assert shifts.index(True) < 10
    assert not shifts[-1]
    assert baseline.level == pytest.approx(0.6, abs=0.05)


def test_single_spike_is_no_shift():
    baseline = Baseline(0.01)
    feed(baseline, [0.1] * 300)
    assert not any(feed(baseline, [0.5] + [0.1] * 30, t=300.0))


def test_left_out_values_count_as_if_they_had_been_fed():
    fed, spared = Baseline(0.01), Baseline(0.01)
    feed(fed, [0.2] * 400)
    spared.learn(0.2, 1.0, 1.0)
    assert spared.settled
    assert spared.readings(400.0) == 400
    for baseline in (fed, spared):
        baseline.learn(0.5, 401.0, 1.0)
    assert spared.level == pytest.approx(fed.level, abs=1e-3)
    assert spared.seen == fed.seen


def test_metric_that_its_reader_leaves_out_while_idle_comes_back_to_rest():
    baseline = Baseline(2.0)
    feed(baseline, [0.0] * 300)
    assert any(feed(baseline, [500.0] * 20, t=300.0))
    assert not [baseline.learn(0.0, 320.0 + 10 * n, 1.0) for n in range(1, 12)][-1]


def test_saved_state_is_taken_up():
    baseline, again = Baseline(0.01), Baseline(0.01)
    feed(baseline, [0.3, 0.4] * 200)
    again.resume(baseline.state())
    assert again.z(0.9) == baseline.z(0.9)
    assert not again.learn(0.35, 5_000.0, 1.0)


def test_a_value_costs_less_than_two_microseconds():
    source = random.Random(4)
    values = [source.random() for _ in range(20_000)]
    best = 1.0
    for _ in range(3):
        baseline = Baseline(0.01)
        begin = time.process_time()
        for n, value in enumerate(values):
            baseline.learn(value, float(n), 1.0)
        best = min(best, (time.process_time() - begin) / len(values))
    assert best < 2e-6


def test_horizon_forgets_what_was_hours_ago():
    baseline = Baseline(0.01)
    feed(baseline, [5.0] * 100 + [1.0] * int(10 * SLOW_S))
    assert baseline.level == pytest.approx(1.0, abs=0.1)


@given(st.lists(st.floats(-1e12, 1e12), max_size=60), st.floats(0.05, 60))
def test_any_finite_values_keep_the_baseline_finite_and_inside_their_range(values, step_s):
    baseline = Baseline(0.01)
    for n, value in enumerate(values):
        baseline.learn(value, n * step_s, step_s)
    if values:
        assert min(values) - 1e-3 <= baseline.level <= max(values) + 1e-3
        assert baseline.scale >= 0.01


def test_trend_forecasts_a_ramp_in_spite_of_outliers():
    trend = Trend(20.0)
    for n in range(20):
        trend.add(float(n), 0.5 + 0.01 * n + (0.3 if n in {5, 11} else 0.0))
    assert trend.slope() == pytest.approx(0.01, rel=0.1)
    assert trend.reaches(1.0) == pytest.approx(31, rel=0.15)
    assert trend.reaches(0.0) is None


def test_trend_is_bounded_forgets_and_tells_rises():
    trend = Trend(30.0)
    for n in range(1000):
        trend.add(n * 0.1, float(n))
    assert len(trend._points) <= POINTS
    assert trend._points[0][0] >= 99.9 - 30.0 - 1.0
    assert trend.rise(10.0) == pytest.approx(100, rel=0.2)
    assert trend.before(10.0) == pytest.approx(899, rel=0.05)
    assert Trend().slope() == 0.0
    assert Trend().reaches(1.0) is None


def test_the_resident_path_imports_no_numpy():
    code = "import sys, daemon.tiers.windows, daemon.tiers.events; print('numpy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
