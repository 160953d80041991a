"""The causal graph: sound as a graph, and right about a few well-known stories."""

from __future__ import annotations

from graphlib import TopologicalSorter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.causes import EXPLAINS, PLACES, Reach, correct, effect, far, kin, places, rootless
from models.taxonomy import Category, FaultClass, SubjectKind

F = FaultClass


def test_the_graph_has_no_cycle():
    tuple(TopologicalSorter({cause: set(effects) for cause, effects in EXPLAINS.items()}).static_order())


def test_no_benign_class_takes_part_and_weights_are_shares():
    for cause, effects in EXPLAINS.items():
        assert not cause.benign
        for caused, edge in effects.items():
            assert not caused.benign
            assert 0.0 < edge.weight <= 1.0


@pytest.mark.parametrize(
    ("cause", "caused"),
    [
        (F.PROCESS_STORM, F.CPU_SATURATION),
        (F.PROCESS_STORM, F.MEMORY_EXHAUSTION),
        (F.PROCESS_STORM, F.FD_EXHAUSTION),
        (F.MEMORY_EXHAUSTION, F.IO_SATURATION),
        (F.MEMORY_EXHAUSTION, F.SERVICE_CRASH),
        (F.DISK_FAILING, F.FILESYSTEM_CORRUPT),
        (F.DISK_FULL, F.SERVICE_CRASH),
        (F.LINK_DOWN, F.NAME_RESOLUTION),
        (F.CRASH_LOOP, F.SERVICE_CRASH),
        (F.AUTH_BRUTEFORCE, F.CONNECTION_FLOOD),
        (F.CLOCK_JUMP, F.CERTIFICATE_EXPIRED),
        (F.KERNEL_BUG, F.SERVICE_HUNG),
        (F.CONFIG_ERROR, F.UNKNOWN),
    ],
)
def test_a_present_cause_outweighs_its_stronger_effect(cause, caused):
    assert effect(cause, caused) is not None
    assert effect(caused, cause) is None
    scores = correct({cause: 0.8, caused: 0.95})
    assert scores[cause] == 0.8
    assert scores[cause] > scores[caused]


def test_a_cause_that_is_hardly_present_explains_nothing():
    assert correct({F.PROCESS_STORM: 0.2, F.CPU_SATURATION: 0.9})[F.CPU_SATURATION] == 0.9


def test_unrelated_classes_keep_their_scores():
    scores = {F.DISK_FULL: 0.9, F.AUTH_BRUTEFORCE: 0.8}
    assert correct(scores) == scores


@given(st.dictionaries(st.sampled_from(FaultClass), st.floats(0, 1)))
def test_correction_only_lowers_and_always_leaves_a_cause(scores):
    corrected = correct(scores)
    assert corrected.keys() == scores.keys()
    assert all(0.0 <= corrected[fault] <= scores[fault] for fault in scores)
    if any(score >= 0.3 for score in scores.values()):
        assert max(corrected.values()) >= 0.3


def test_distance_and_kinship_are_symmetric():
    for one in FaultClass:
        for other in FaultClass:
            assert (other in far(one)) == (one in far(other))
            assert kin(one, other) == kin(other, one)
            assert places(one, other) == places(other, one)


def test_crashes_reach_only_as_far_as_their_subjects():
    assert F.SERVICE_CRASH not in far(F.SERVICE_CRASH)
    assert F.SERVICE_CRASH not in far(F.DISK_FULL)
    edge = effect(F.DISK_FULL, F.SERVICE_CRASH)
    assert edge is not None
    assert edge.reach is Reach.SHARED


def test_places_are_never_the_whole_host():
    assert all(SubjectKind.HOST not in kinds for kinds in PLACES.values())


def test_a_break_in_is_never_folded_into_the_guessing_before_it():
    assert not kin(F.AUTH_BRUTEFORCE, F.PRIVILEGE_MISUSE)
    assert effect(F.AUTH_BRUTEFORCE, F.PRIVILEGE_MISUSE) is None
    assert all(not kin(one, one) for one in FaultClass if one.category is Category.SECURITY)


def test_only_classes_without_a_cause_are_rootless():
    caused = {one for effects in EXPLAINS.values() for one in effects}
    assert rootless(F.PROCESS_STORM)
    assert not rootless(F.CPU_SATURATION)
    assert not rootless(F.UNKNOWN)
    assert not any(rootless(one) for one in caused)
