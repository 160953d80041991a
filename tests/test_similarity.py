"""How alike answers are: what fools difflib must not fool the composite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import claims
from training.similarity import composite, near_duplicates, says, sequence_ratio, token_overlap

ROWS = [json.loads(line) for line in (Path(__file__).parent / "fixtures" / "answers.jsonl").open()]


def ranked(side, score):
    """How many rows of a side have the right answer in other words above the copy with one swapped word."""
    rows = [row for row in ROWS if row["side"] == side]
    return sum(score(row["right"], row["target"]) > score(row["wrong"], row["target"]) for row in rows)


def scored(answer, target):
    return composite(answer, target).score


def test_composite_ranks_right_above_wrong_where_difflib_never_does():
    # 39 open rows, with which the lists were made, and 24 that were held back; 22 of them at the first look.
    assert (ranked("open", scored), ranked("held", scored)) >= (39, 22)
    assert (ranked("open", sequence_ratio), ranked("held", sequence_ratio)) == (0, 0)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["target"][:40])
def test_target_itself_scores_one(row):
    assert composite(row["target"], row["target"]).score == 1.0


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        ("Turn the fan on.", "Turn the fan off."),
        ("The value must be set.", "The value must not be set."),
        ("It isn't safe to unplug the disk.", "It is safe to unplug the disk."),
        ("Retry after 30 s", "Retry after 30 min"),
        ("Der Host ist erreichbar.", "Der Host ist unerreichbar."),
        ("Schalte den Lüfter ein.", "Schalte den Lüfter aus."),
        ("Der Druck beträgt 1,5 bar", "Der Druck beträgt 15 bar"),
        ("The disk has 5 bad sectors.", "The disk has no bad sectors."),
        ("The service runs with root rights.", "The service runs without root rights."),
        ("Mehr als 5 Fehler", "Weniger als 5 Fehler"),
        ("-5 °C", "5 °C"),
        ("Warn at 80 %, call at 90 %", "Warn at 90 %, call at 80 %"),
        ("Port 80 is open, port 443 closed", "Port 80 is closed, port 443 open"),
        ("Le service ne fonctionne pas.", "Le service fonctionne."),
    ],
)
def test_contradiction_is_found_and_named(target, wrong):
    for answer, beside in ((wrong, target), (target, wrong)):
        found = composite(answer, beside)
        assert found.contradictions
        assert found.score < 0.11


@pytest.mark.parametrize(
    ("target", "same"),
    [
        ("Use 1.5 GB.", "Use 1536 MB."),
        ("Wait 90 s.", "Wait 1.5 minutes."),
        ("1,000 files", "1000 files"),
        ("1.000 Dateien", "1000 Dateien"),
        ("The service is not disabled.", "The service is enabled."),
        ("It failed.", "It did not succeed."),
        ("Der Dienst ist nicht erreichbar.", "Der Dienst ist unerreichbar."),
        ("You must update the kernel.", "An update of the kernel is required."),
    ],
)
def test_same_claim_in_other_words_is_no_contradiction(target, same):
    assert composite(same, target).contradictions == composite(target, same).contradictions == ()


def test_required_facts_count_unless_denied_and_forbidden_ones_only_when_said():
    target = "Restart nginx, the port is taken."
    assert composite(target, target, required=["restart nginx"], forbidden=["reboot"]).score == 1.0
    denied = composite("Do not restart nginx.", target, required=["restart nginx"])
    assert denied.facts == 0.0
    assert says("Reboot, or start nginx again", "restart nginx|start nginx again")
    assert composite("Reboot the host.", target, forbidden=["reboot"]).forbidden == ("reboot",)
    assert not composite("It is no disk failure.", target, forbidden=["disk failure"]).forbidden
    assert composite("nginx", "", required=["nginx", "apache"]).score == 0.75


def test_token_overlap_ignores_order_and_case_but_not_counts():
    assert token_overlap("Full disk", "disk full") == 1.0
    assert token_overlap("disk disk", "disk full") == 0.5
    assert token_overlap("", "") == 1.0


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_texts_get_a_score_between_nothing_and_one(answer, target):
    assert 0.0 <= composite(answer, target, required=[target], forbidden=[answer[:5]]).score <= 1.0
    claims.read(answer, target)


def test_near_duplicates_point_to_the_first_of_their_kind():
    base = "The unit nginx.service failed because its port was already taken by another process"
    texts = [
        base,
        "Something else entirely about memory and swap",
        base + ".",
        base.upper(),
        "short",
        "short",
    ]
    assert near_duplicates(texts) == {2: 0, 3: 0, 5: 4}
