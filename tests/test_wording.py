"""Words that speak for an alert: what serves says what was learnt, and a damaged table is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save as save_tensors

from models import bundle as bundles
from models.alertness import word_weight
from models.errors import BundleError
from models.lines import encode
from models.runtime import Classifier
from models.wording import FORM, Wording, hash_term, pack, terms
from tests.fixtures.bundles import make_bundle

SHARES = [0.0, 0.0, 0.0, 0.0, 0.5] + [0.0] * 10
RARITY = {"virus": 2.0, "found": 1.0, "virus found": 4.0, "session": 1.5}
WEIGHTS = {"virus": 3.0, "found": 0.5, "virus found": 1.0, "session": -2.0}


def table(**changes):
    return pack(RARITY, WEIGHTS, **({"intercept": -0.5, "gain": 0.0, "shares": SHARES} | changes))


def test_terms_are_words_placeholders_and_pairs():
    assert terms("sshd | failed <num> times") == [
        *("sshd", "failed", "<num>", "times"),
        *("sshd failed", "failed <num>", "<num> times"),
    ]


def test_logit_is_the_regression_on_rare_words_of_unit_length():
    virus, found, pair = 2.0, 1.0 + math.log(2), 4.0
    length = math.sqrt(virus**2 + found**2 + pair**2)
    said = (3.0 * virus + 0.5 * found + 1.0 * pair) / length - 0.5
    assert Wording(table()).logit("virus found unheard found") == pytest.approx(said, rel=1e-3)


def test_unknown_words_leave_what_untrained_weights_say():
    text = "kernel panic"
    assert Wording(table(gain=2.0)).logit(text) == pytest.approx(-0.5 + 2.0 * word_weight(text))
    assert Wording(table()).logit("") == pytest.approx(-0.5)


def test_network_has_its_share():
    logits = [9.0, 0.0, 0.0, 0.0, 2.0] + [9.0] * 10
    words = Wording(table())
    assert words.mix("session", logits) == pytest.approx(words.logit("session") + 1.0)


@given(st.text(max_size=200))
def test_any_text_has_a_finite_logit_within_the_tables_reach(text):
    words = Wording(table())
    assert abs(words.logit(encode(text))) <= 0.5 + math.sqrt(sum(one**2 for one in WEIGHTS.values())) + 1e-2


def broken(**changes):
    tensors = {
        "hashes": np.array([1, 2], np.uint32),
        "rarity": np.ones(2, np.float16),
        "weights": np.ones(2, np.float16),
        "scalars": np.zeros(2, np.float32),
        "shares": np.zeros(15, np.float32),
    }
    kept = {name: one for name, one in (tensors | changes).items() if one is not None}
    return save_tensors(kept, FORM)


@pytest.mark.parametrize(
    "raw",
    [
        broken(hashes=np.array([2, 1], np.uint32)),
        broken(hashes=np.array([1, 2, 3], np.uint32)),
        broken(weights=np.array([1, np.nan], np.float16)),
        broken(weights=np.ones(2, np.float32)),
        broken(shares=None),
        broken(more=np.ones(1, np.float32)),
        broken(scalars=np.zeros(3, np.float32)),
        save_tensors({"hashes": np.zeros(1, np.uint32)}),
        b"\x02\0\0\0\0\0\0\0{}",
        b"",
    ],
)
def test_damaged_table_is_refused(raw):
    with pytest.raises(BundleError, match="holds no weights of words"):
        Wording(raw)
    assert len(Wording(broken())) == 2


def test_bundle_with_a_table_mixes_words_into_its_alert_and_nothing_else(tmp_path):
    plain = Classifier(bundles.verify(make_bundle(tmp_path / "plain"), "low"))
    files = {"wording.safetensors": table()}
    wordy = Classifier(bundles.verify(make_bundle(tmp_path / "wordy", files=files), "low"))
    text = "virus found"
    before, after = plain.score([text])[0], wordy.score([text])[0]
    mixed = Wording(table()).mix(text, plain.logits([text])[0])
    assert after["alert"][0] == pytest.approx(1.0 / (1.0 + math.exp(-mixed)))
    assert after["alert"][0] > before["alert"][0]
    assert (after["severity"], after["category"]) == (before["severity"], before["category"])


def test_bundle_with_a_damaged_table_does_not_serve(tmp_path):
    made = make_bundle(tmp_path / "b", files={"wording.safetensors": broken(shares=None)})
    with pytest.raises(BundleError, match=r"wording.safetensors holds no weights"):
        Classifier(bundles.verify(made, "low"))


# --- learning ---------------------------------------------------------------------------------------------


pytest.importorskip("sklearn")
from training.rows import write_parquet  # noqa: E402
from training.wording import Weighed, cross_validate, shares_of, split_evenly, teach, write_wording  # noqa: E402

GRAVE = ("virus found in file", "attack blocked from host", "disk failed and was removed")
CALM = ("session opened for user", "statistics were written", "lease renewed by client")


def rows(services=12):
    """Services that say grave and calm things, each with a word of its own that tells nothing."""
    found = []
    for service in range(services):
        name = "abcdefghijkl"[service] * 4
        for text in (*GRAVE, *CALM):
            row = {"text": f"{name} | {text}", "alert": float(text in GRAVE), "weight": 1.0}
            found.append(row | {"group": name, "source": "wazuh", "split": "train"})
    return found


def test_table_says_what_the_regression_said():
    weighed = Weighed(rows())
    weighed.settle(np.array([2.0, 1.0, 0.5, -1.0]), np.array([1, 0, 1, 0]), np.ones(4))
    words = Wording(weighed.pack([1.0] * 15))
    texts = [*(row["text"] for row in rows()), "nobody | virus session", ""]
    assert [words.logit(text) for text in texts] == pytest.approx(weighed.logits(texts).tolist(), abs=0.02)


def test_written_table_ranks_what_new_services_say(tmp_path):
    write_parquet(tmp_path / "rows.parquet", rows(), {})
    told = write_wording(tmp_path / "rows.parquet", tmp_path / "w", seed=1)
    words = Wording((tmp_path / "w" / "wording.safetensors").read_bytes())
    assert told["terms"] == len(words)
    grave, calm = ([words.logit(f"newcomer | {text}") for text in said] for said in (GRAVE, CALM))
    assert min(grave) > 0.0 > max(calm)


def test_held_out_splits_are_not_learnt(tmp_path):
    held = [row | {"split": "test", "text": "secret omen", "alert": 1.0} for row in rows()[:9]]
    write_parquet(tmp_path / "rows.parquet", [*rows(), *held], {})
    write_wording(tmp_path / "rows.parquet", tmp_path / "w")
    assert hash_term("omen") not in set(
        Wording((tmp_path / "w" / "wording.safetensors").read_bytes())._hashes.tolist()
    )


def test_cross_validation_holds_out_whole_services():
    """A label that hangs on the service's name alone cannot be foretold."""
    named = [row | {"alert": float(row["group"] < "g"), "text": row["group"]} for row in rows()]
    figures = cross_validate(named, folds=4, rounds=20)["wazuh"]
    assert figures["base_rate"] == 0.5
    assert figures["words_auc_pr"] < 0.7
    told = cross_validate(rows(), folds=4, rounds=20)["wazuh"]
    assert told["words_auc_pr"] == pytest.approx(1.0)
    assert told["groups"] == 12


def test_folds_are_of_like_size_and_of_whole_groups():
    groups = [
        name for name, size in zip("abcdefgh", (9, 8, 7, 6, 5, 4, 3, 2), strict=True) for _ in range(size)
    ]
    found = split_evenly(groups, 3, seed=0)
    sizes = [sum(found[group] == fold for group in groups) for fold in range(3)]
    assert sum(sizes) == len(groups)
    assert max(sizes) - min(sizes) <= 4


def test_operators_word_turns_a_verdict_and_little_else():
    words = Wording(table())
    logits = [[0.0] * 15]
    thresholds = {"alert.scale": 1.0, "alert.shift": -0.4}
    assert words.logit("virus found") > 0.4
    taught = teach(words, [("virus found", False)], logits, thresholds)
    assert taught.logit("virus found") - 0.4 < 0.0
    assert taught.logit("session") == words.logit("session")
    assert words.logit("virus found") > 0.4  # the champion's own table stays
    assert Wording(taught.pack()).logit("virus found") == pytest.approx(taught.logit("virus found"), abs=0.01)


def test_shares_count_how_far_errors_lead():
    shares = shares_of(0.25, 0.3)
    assert shares[4] == 0.25
    assert shares[0] == 0.3
    assert sum(shares[:4]) == pytest.approx(0.0)
    assert not any(shares[5:])
