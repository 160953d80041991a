"""`hauswart models` as an operator uses it: what serves and why, exchange, way back, what would change."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from daemon.command.app import main
from daemon.messages import Line, Stamp
from daemon.serving import qualities
from daemon.store.segments import SegmentWriter
from models import shelf
from models.bundle import TIERS
from models.lines import encode
from tests.fixtures.bundles import HEADS, classifier_model, make_bundle, seal

LINES = [
    "disk error link down",
    "user session started",
    "usb device timeout",
    "root memory out killed process",
]


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("HAUSWART_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(shelf, "SHIPPED", tmp_path / "shipped")


@pytest.fixture
def run(tmp_path, capsys):
    """Runs a command line with a state directory of its own: exit code, standard output, standard error."""

    def call(*arguments, config=None):
        options = ["--config", str(config)] if config else []
        code = main([*options, "--state-dir", str(tmp_path / "state"), "models", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def configured(tmp_path, text):
    path = tmp_path / "hauswart.toml"
    path.write_text(f"[models]\n{text}\n")
    return path


def listed(run, **options):
    code, out, _ = run("list", "--json", **options)
    return code, {row["tier"]: row for row in json.loads(out)}


def test_host_without_bundles_says_that_the_baselines_speak(run):
    code, rows = listed(run)
    assert (code, list(rows)) == (0, list(TIERS))
    assert {row["why"] for row in rows.values()} == {"none"}
    assert "baseline" in run("list")[1]


def test_list_says_which_bundle_serves_and_why(run, tmp_path):
    make_bundle(tmp_path / "shipped/low", version="s")
    make_bundle(tmp_path / "mine", "middle", "m")
    config = configured(tmp_path, f'middle = "{tmp_path}/mine"\ntop = "off"')
    code, rows = listed(run, config=config)
    assert code == 0
    assert {tier: row["why"] for tier, row in rows.items()} == {
        "low": "shipped",
        "middle": "pinned",
        "top": "off",
    }
    assert rows["low"]["serving"] | {"name": "", "bytes": 0, "directory": ""} == {
        "name": "",
        "tier": "low",
        "version": "s",
        "directory": "",
        "bytes": 0,
        "memory_mib": 0.0,
        "architecture": "albert",
        "licence": "MIT",
        "signer": "",
        "quality": {"macro_f1": 0.5},
        "created": "",
        "recipe": "",
    }
    table = run("list", config=config)[1]
    for word in ("pinned", "shipped", "off", "macro_f1 0.500", "MIT"):
        assert word in table


def test_install_and_rollback_change_what_serves(run, tmp_path):
    make_bundle(tmp_path / "shipped/low", version="s")
    for version in ("1", "2"):
        code, out, _ = run("install", make_bundle(tmp_path / version, version=version, seed=int(version)))
        assert code == 0
        assert f"installed low-{version}-" in out
    assert listed(run)[1]["low"]["serving"]["version"] == "2"
    assert listed(run)[1]["low"]["installed"] == ["1", "2"]
    assert run("rollback", "low")[:2][0] == 0
    assert listed(run)[1]["low"]["serving"]["version"] == "1"
    code, _, err = run("rollback", "middle")
    assert (code, "no bundle is installed" in err) == (1, True)


def test_rollback_of_the_only_one_says_that_the_shipped_one_serves(run, tmp_path):
    run("install", make_bundle(tmp_path / "1"))
    code, out, _ = run("rollback", "low")
    assert (code, "what ships" in out) == (0, True)
    run("install", tmp_path / "1")
    assert json.loads(run("rollback", "low", "--json")[1])["bundle"] is None


def test_refused_install_exits_with_4_in_one_line_while_the_present_one_serves(run, tmp_path):
    run("install", make_bundle(tmp_path / "1", version="1"))
    broken = make_bundle(tmp_path / "2", version="2")
    raw = bytearray((broken / "model.onnx").read_bytes())
    raw[100] ^= 4
    (broken / "model.onnx").write_bytes(raw)
    code, out, err = run("install", broken)
    assert (code, out) == (4, "")
    assert "model.onnx is damaged" in err.splitlines()[0]
    assert listed(run)[1]["low"]["serving"]["version"] == "1"


def test_bundle_for_another_tier_is_refused(run, tmp_path):
    code, _, err = run("install", make_bundle(tmp_path / "1"), "--tier", "top")
    assert (code, "not of the top tier" in err) == (4, True)
    assert run("install", tmp_path / "1", "--tier", "bottom")[0] == 2


def test_model_that_no_runtime_can_load_is_not_installed(run, tmp_path):
    model = classifier_model(sum(HEADS["low"].values()))
    model.graph.node[0].op_type = "Frobnicate"
    made = make_bundle(tmp_path / "1", files={"model.onnx": model.SerializeToString()})
    code, _, err = run("install", made)
    assert (code, "cannot be loaded" in err) == (4, True)
    assert listed(run)[1]["low"]["installed"] == []


def test_install_under_a_pinned_bundle_says_that_the_pinned_one_goes_on(run, tmp_path):
    config = configured(tmp_path, f'low = "{make_bundle(tmp_path / "p", version="p")}"')
    code, out, _ = run("install", make_bundle(tmp_path / "1"), config=config)
    assert (code, "goes on" in out) == (0, True)


def test_damaged_bundle_that_should_serve_is_told_with_exit_code_4(run, tmp_path):
    make_bundle(tmp_path / "shipped/low", version="s")
    run("install", make_bundle(tmp_path / "1"))
    (tmp_path / "state/bundles/low/current/model.onnx").write_bytes(b"")
    code, rows = listed(run)
    assert (code, rows["low"]["why"], rows["low"]["serving"]["version"]) == (4, "shipped", "s")
    assert "damaged" in rows["low"]["refused"][0]
    assert run("verify")[0] == 4
    assert "refused" in run("list")[1]


def test_verify_takes_a_directory_or_what_serves(run, tmp_path):
    made = make_bundle(tmp_path / "1")
    assert "ok, low-1-" in run("verify", made)[1]
    assert json.loads(run("verify", made, "--json")[1])["version"] == "1"
    assert run("verify", made, "--tier", "middle")[0] == 4
    assert run("verify", tmp_path / "none")[0] == 4
    assert run("verify") == (0, "", "")
    run("install", made)
    assert "state/bundles/low/1: ok" in run("verify")[1]


def test_signature_is_asked_for_where_the_settings_say_so(run, tmp_path):
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (tmp_path / "allowed").write_text("builder " + (tmp_path / "key.pub").read_text())
    config = configured(tmp_path, f'signature_required = true\nallowed_signers = "{tmp_path}/allowed"')
    made = make_bundle(tmp_path / "1")
    code, _, err = run("install", made, config=config)
    assert (code, "not signed" in err) == (4, True)
    from models.signature import sign  # noqa: PLC0415

    (made / "manifest.sig").write_bytes(sign((made / "manifest.json").read_bytes(), key))
    assert run("install", made, config=config)[0] == 0
    assert listed(run, config=config)[1]["low"]["serving"]["signer"] == "builder"


def test_qualities_are_found_wherever_the_manifest_has_them():
    metrics = {"quality": {"macro_f1": 0.5, "n": 3}, "auc_pr": 0.7, "table": {"table": [{"bytes": 1}]}}
    assert qualities(metrics) == {"macro_f1": 0.5, "auc_pr": 0.7}
    rows = [
        {"step": "parent", "quality": {"perplexity": 9.0}},
        {"step": "int8", "quality": {"perplexity": 9.5}},
    ]
    before = {"table": [{"step": "distil", "quality": {"perplexity": 8.0}}]}
    assert qualities({"shrinking": {"table": rows}, "training": before}) == {"perplexity": 9.5}


# --- diff ---------------------------------------------------------------------------------------------------


def test_diff_tells_which_verdicts_change(run, tmp_path):
    before, after = (make_bundle(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    rows = tmp_path / "lines.jsonl"
    rows.write_text("\n".join([json.dumps(LINES[0]), *(json.dumps({"text": text}) for text in LINES)]) + "\n")
    code, out, _ = run("diff", before, after, "--on", rows, "--json")
    found = json.loads(out)
    assert (code, found["asked"]) == (0, len(LINES))  # equal texts count once
    assert 0 < found["changed"] == len(found["examples"]) <= len(LINES)
    assert sum(one["n"] for one in found["by"]) >= found["changed"]
    assert {one["what"] for one in found["by"]} <= {"severity", "alert", "category"}
    assert found["examples"][0]["before"] != found["examples"][0]["after"]
    assert "verdicts change" in run("diff", before, after, "--on", rows)[1]


def test_bundle_does_not_differ_from_itself(run, tmp_path):
    made, rows = make_bundle(tmp_path / "1"), tmp_path / "lines.jsonl"
    rows.write_text(json.dumps(LINES[0]) + "\n")
    found = json.loads(run("diff", made, made, "--on", rows, "--json")[1])
    assert (found["asked"], found["changed"], found["by"]) == (1, 0, [])


def test_diff_against_what_serves_on_what_this_host_kept(run, tmp_path):
    run("install", make_bundle(tmp_path / "1", version="1", seed=1))
    telemetry = tmp_path / "state/telemetry"
    telemetry.mkdir(parents=True)
    writer = SegmentWriter(telemetry, days=1, mib=8)
    stamps = [Stamp("boot", 1000.0 + number, 1.7e9 + number) for number in range(400)]
    lines = [
        Line(
            stamp,
            "journal",
            LINES[number % 4] if number > 200 else "ok",
            identifier="app",
            unit="app.service",
        )
        for number, stamp in enumerate(stamps)
    ]
    writer.write(lines, stamps[-1])
    writer.close()
    code, out, err = run("diff", make_bundle(tmp_path / "2", version="2", seed=2), "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["before"][:5], found["after"][:5]) == ("low-1", "low-2")
    assert found["asked"] >= len(LINES)
    assert {one["text"] for one in found["examples"]} <= {encode(text, "app") for text in [*LINES, "ok"]}


def test_middle_tier_differs_in_class_severity_and_culprit(run, tmp_path):
    before, after = (make_bundle(tmp_path / str(seed), "middle", seed=seed) for seed in (1, 2))
    rows = tmp_path / "situations.jsonl"
    rows.write_text(json.dumps({"text": "disk full . alpha unit beta mount . error"}) + "\n")
    found = json.loads(run("diff", before, after, "--on", rows, "--json")[1])
    assert set(found["examples"][0]["before"]) == {"fault_class", "severity", "culprit"}
    assert found["examples"][0]["before"]["culprit"] in {"alpha", "beta"}


def test_top_tier_differs_in_its_text(run, tmp_path):
    before, after = (make_bundle(tmp_path / str(seed), "top", seed=seed) for seed in (1, 2))
    rows = tmp_path / "prompts.jsonl"
    rows.write_text(json.dumps({"text": "en disk full <culprit>"}) + "\n")
    found = json.loads(run("diff", before, after, "--on", rows, "--json")[1])
    assert (found["changed"], set(found["examples"][0]["before"])) == (1, {"text"})


@pytest.mark.parametrize("raw", ["{", "3", '{"text": 3}', '{"line": "x"}'])
def test_row_without_a_text_is_named(run, tmp_path, raw):
    made, rows = make_bundle(tmp_path / "1"), tmp_path / "lines.jsonl"
    rows.write_text('"disk"\n' + raw + "\n")
    code, _, err = run("diff", made, made, "--on", rows)
    assert (code, "line 2" in err) == (2, True)


def test_bundles_of_two_tiers_cannot_be_compared(run, tmp_path):
    low, middle = make_bundle(tmp_path / "1"), make_bundle(tmp_path / "2", "middle")
    assert run("diff", low, middle, "--on", "x.jsonl")[0] == 4


def test_nothing_to_compare_on_is_said(run, tmp_path):
    made = make_bundle(tmp_path / "1")
    code, _, err = run("diff", made, made)
    assert (code, "nothing was kept yet" in err) == (2, True)


def test_text_of_a_log_never_becomes_markup(run, tmp_path):
    before, after = (make_bundle(tmp_path / str(seed), seed=seed, version="[red]"[1:4]) for seed in (1, 2))
    seal(after, tier="low", version="other")
    rows = tmp_path / "lines.jsonl"
    rows.write_text("".join(json.dumps(f"{text} (bold) [/red]") + "\n" for text in LINES))
    assert run("diff", before, after, "--on", rows)[0] == 0
