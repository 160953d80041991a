"""The low tier's text of a line and its verdict, the rows that train it, and where its model starts."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from daemon.errors import ConfigError
from models.lines import (
    CATEGORIES,
    HEADS,
    SEVERITY_CLASSES,
    TEXT_CHARS,
    decode,
    encode,
    sharpen,
    split_header,
)
from models.taxonomy import Category, Severity
from training.sources import judged, lines
from training.sources.expansion import expand

SURE = {
    "severity": [0.4, 0.3, 0.2, 0.1],
    "alert": [0.8],
    "category": [float(one is Category.STORAGE) for one in CATEGORIES],
}


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("%s: link down, speed %d", "<str>: link down, speed 1000"),
        ("read reg 0x%02x failed: %d", "read reg 0x3f failed: -5"),
        ("eth%d: no carrier", "eth2: no carrier"),
        ("peer %pI4 gone", "peer 192.168.7.9 gone"),
        ("addr %pM is ours", "addr 52:54:00:12:34:56 is ours"),
        ("mapping of %#llx lost", "mapping of 0xfee00000 lost"),
        ("firmware %u.%u.%u", "firmware 4.12.1"),
    ],
)
def test_format_string_and_the_line_that_it_prints_read_the_same(template, line):
    assert encode(template) == encode(line)


def test_header_is_cut_and_names_the_program():
    line = "Jan 12 10:11:12 web1 sshd[811]: Failed password for bob from 10.0.0.9 port 4022 ssh2"
    assert encode(line) == "sshd | failed password for bob from <ip> port <num> ssh0"
    assert encode(line) == encode("Failed password for bob from 10.0.0.7 port 22 ssh2", "sshd")


@pytest.mark.parametrize(
    ("line", "program", "message"),
    [
        ("2024-01-02T03:04:05.678Z host app[7]: ready", "app", "ready"),
        ("srv sshd[12]: Invalid user x", "sshd", "Invalid user x"),
        ("Jan  1 00:00:01 host kernel: [   12.345678] usb 1-1: new device", "kernel", "usb 1-1: new device"),
        ("[   12.345678] usb 1-1: new device", "", "usb 1-1: new device"),
        ("twl4030: i2c error", "", "twl4030: i2c error"),
    ],
)
def test_headers_of_several_kinds_are_told_from_messages(line, program, message):
    assert split_header(line) == (program, message)


def test_kernel_is_not_named_since_its_strings_are_not():
    assert encode("disk is gone", "kernel") == encode("disk is gone")


def test_structured_line_says_first_what_happened():
    line = json.dumps({"id": 17, "request": {"agent": "curl/8"}, "action": "repo.destroy", "user": "bob"})
    assert encode(line).startswith("action repo.destroy")


def test_words_of_quoted_values_are_kept_and_device_levels_are_spelt_out():
    assert "nat mapping" in encode('id=firewall m=98 msg="NAT Mapping" n=23419')
    assert encode("%ASA-1-104001: Switching to ACTIVE").startswith("asa alert")


@pytest.mark.parametrize(
    "hostile",
    [
        "{" * 5000,
        "[" * 9000,
        '{"a":' * 3000 + "1" + "}" * 3000,
        "%" * 9000,
        "%p" * 5000,
        "A" * 200_000,
        "a:" * 50_000,
        "\\" * 9000,
        " <num>" * 9000,
        "Jan 1 " * 9000,
        "(" * 9000,
    ],
)
def test_hostile_lines_cost_little_and_stay_short(hostile):
    assert len(encode(hostile)) <= TEXT_CHARS


def test_the_same_text_comes_out_whatever_the_values_are():
    chance = random.Random(4)
    for _ in range(50):
        port, pid = chance.randrange(1024, 65536), chance.randrange(1, 99999)
        text = f"worker {pid} lost the connection to 10.{chance.randrange(256)}.3.4:{port} after {pid} ms"
        assert encode(text) == "worker <num> lost the connection to <ip> after <size>"


# --- verdicts -------------------------------------------------------------------------------------------


def test_verdict_takes_the_likeliest_class_without_thresholds():
    verdict = decode(SURE, {})
    assert (verdict.severity_class, verdict.severity) == ("err-or-worse", Severity.ERROR)
    assert (verdict.category, verdict.alert) == (Category.STORAGE, pytest.approx(0.8))


def test_thresholds_shift_the_decision_but_not_the_ranking():
    verdict = decode(SURE, {"severity.notice-or-info": 1.0})
    assert (verdict.severity_class, verdict.severity) == ("notice-or-info", Severity.INFO)
    assert verdict.severity_scores == (0.4, 0.3, 0.2, 0.1)


def test_alert_is_calibrated_and_survives_a_certain_model():
    assert decode(SURE, {"alert.shift": -2.0}).alert < 0.5
    sure = decode({**SURE, "alert": [1.0]}, {"alert.scale": 2.0})
    assert 0.999 < sure.alert <= 1.0


def test_heads_have_a_class_for_every_category_and_severity():
    assert {"severity": len(SEVERITY_CLASSES), "alert": 1, "category": len(Category)} == HEADS


# --- rows -----------------------------------------------------------------------------------------------


def write(folder: Path, path: str, text: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text, encoding="utf-8")


@pytest.fixture
def data(tmp_path):
    words = [f"word{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(400)]
    printk = "".join(f"{n % 8},{word} of %s,drivers/d{n % 67},x.c\n" for n, word in enumerate(words))
    write(tmp_path, lines.KERNEL, f"severity,template,subsystem,file\n{printk}")
    wazuh = "".join(f'svc{n},"Jan 1 00:00:0{n % 10} h p{n}[1]: word{n} said",{n % 12}\n' for n in range(60))
    write(tmp_path, lines.WAZUH, f"service,line,level\n{wazuh}")
    write(tmp_path, lines.FAIL2BAN, "service,line,match\nsshd,bad login of x,True\nsshd,fine,False\n")
    write(
        tmp_path,
        lines.LOGCHECK,
        'list,service,egrep\nignore.d.server,cron,"^\\w{3} cron\\[[0-9]+\\]: (BEGIN|END) EDIT$"\n'
        'violations.d,sudo,"^sudo: .*$"\nviolations.d,x,"^unbalanced (rule"\n',
    )
    write(
        tmp_path, lines.SYZKALLER, json.dumps({"log": "[  1.0] BUG: unable to handle\n[  1.1] CPU: 0 PID: 1"})
    )
    write(tmp_path, lines.CATALOGUE, json.dumps({"lang": "en", "subject": "Unit @UNIT@ failed"}))
    said = ("- name: Host down", "  description: it is gone", "  severity: critical")
    write(tmp_path, lines.ALERT_RULES, "".join(f"{' ' * 14}{one}\n" for one in said))
    return tmp_path


def test_rows_of_all_sources_carry_the_labels_they_have(data):
    pytest.importorskip("sklearn")
    by_source = {}
    for row in lines.rows(data):
        by_source.setdefault(row["source"], []).append(row)
    wanted = {"printk", "wazuh", "fail2ban", "logcheck", "spoken", "known", "syzkaller", "systemd"}
    assert by_source.keys() == wanted | {"alert rules"}
    assert {row["severity"] for row in by_source["printk"]} == {0, 1, 2, 3}
    assert {0.0, 1.0} <= {row["alert"] for row in by_source["spoken"]}
    assert [row["alert"] for row in by_source["logcheck"]] == [0.0]  # a policy and a broken rule say nothing
    assert by_source["alert rules"][0]["severity"] == 0
    assert not any("severity" in row for row in by_source["wazuh"])


def test_judged_rows_keep_the_held_out_services_of_the_network(data):
    pytest.importorskip("sklearn")
    splits = {row["group"]: row["split"] for row in lines.rows(data)}
    found = list(judged.rows(data))
    assert found == list(judged.rows(data))
    events = {row["group"]: row["split"] for row in found if row["source"].startswith(("wazuh", "fail2ban"))}
    assert {"train", "val", "test"} == set(events.values())
    both = splits.keys() & events.keys()
    assert len(both) >= 3  # what these services say is mostly alike, and comes once
    assert all(splits[group] == events[group] for group in both)
    strings = {row["group"] for row in found if row["source"] == "printk"}
    assert {splits[group] for group in strings} <= {"train"}


def test_refused_logins_of_a_filter_are_asked_but_teach_nothing(data):
    rows = {row["alert"]: row for row in judged.events(data) if row["source"] == "fail2ban"}
    assert rows[1.0]["weight"] == 0.0
    assert rows[0.0]["weight"] > 0.0


def test_services_with_many_lines_do_not_outweigh_others(data):
    many = "".join(f"big,line {n} of it,9\n" for n in range(300))
    write(data, lines.WAZUH, f"service,line,level\n{many}small,one line,9\n")
    weights = {}
    for row in judged.events(data):
        if row["source"].startswith("wazuh"):
            weights[row["group"]] = weights.get(row["group"], 0.0) + row["weight"]
    assert weights["big"] == pytest.approx(judged.EVENTS_MOST * weights["small"])


def test_lines_written_here_teach_whole_bare_and_in_parts():
    rows = list(judged.spoken())
    texts = {row["text"] for row in rows}
    assert {row["alert"] for row in rows} == {0.0, 1.0}
    assert {"siem agent | started", "started"} & texts
    whole = next(row["text"] for row in rows if row["text"].startswith("honeypot | connection opened; "))
    assert {judged.bare(whole), *judged.bare(whole).split("; ")} <= texts


def test_longer_text_leaves_the_networks_part_as_it_was():
    """The network reads the beginning only; what words add stands behind it."""
    pairs = {f"key{letter}": f"value of {letter} and more of it" for letter in "abcdefghijklmnopqrstuvwxyz"}
    text = encode(json.dumps(pairs))
    assert 320 < len(text) <= TEXT_CHARS
    assert text.startswith("keya value of a and more of it; keyb value of b")


def test_groups_are_split_whole_and_the_same_each_time(data):
    pytest.importorskip("sklearn")
    first, second = list(lines.rows(data, 3)), list(lines.rows(data, 3))
    assert first == second
    splits = {}
    for row in first:
        splits.setdefault((row["source"].partition(" ")[0], row["group"]), set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert {"train", "val", "test"} <= {one for found in splits.values() for one in found}


def test_look_alikes_of_one_vendor_are_one_group():
    assert lines.family("sysmon_eid_11") == lines.family("powershell") == "windows"
    assert lines.family("nginx-botsearch") == lines.family("nginx-http-auth")


def test_written_lines_are_judged_both_ways_and_are_not_repeated():
    rows = list(lines.spoken(Path(), random.Random(0)))
    assert {row["alert"] for row in rows} == {0.0, 1.0}
    whole = [row["text"] for row in rows[::3]]
    assert len(set(whole)) == len(whole)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\w{3} [ :0-9]{11} [._[:alnum:]-]+ sshd\[[0-9]+\]: (Accepted|Failed) [^ ]+ for [[:alnum:]]+$",
        r"^a(b|c(d|e))?f{2,3}\.[xyz]+$",
        r"^[^a-z]{4}[]x]+(:[[:digit:]]{2}){2}$",
    ],
)
def test_expanded_line_matches_its_rule(pattern):
    named = {"[:alnum:]": "a-zA-Z0-9", "[:digit:]": "0-9"}
    plain = pattern
    for name, members in named.items():
        plain = plain.replace(name, members)
    chance = random.Random(1)
    for _ in range(20):
        line = expand(pattern, chance)
        if "[^a-z]" not in pattern:  # letters stand for what a negated class takes
            assert re.search(plain, line), line


@pytest.mark.parametrize("broken", ["(a", "a)", "[abc"])
def test_malformed_rule_is_refused(broken):
    with pytest.raises(ValueError, match=r"unbalanced|not closed"):
        expand(broken, random.Random(0))


def test_absurd_calibration_is_no_crash():
    assert sharpen(1e-7, {"alert.scale": 1e6}) == pytest.approx(0.0)
    assert sharpen(1.0 - 1e-7, {"alert.scale": 1e6}) == pytest.approx(1.0)


# --- the model it starts from ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    torch = pytest.importorskip("torch")
    hf = pytest.importorskip("transformers")
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("minilm")
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    model = hf.BertModel(hf.BertConfig(vocab_size=200, max_position_embeddings=64, **shape)).eval()
    model.save_pretrained(folder)
    return folder, model


def test_albert_computes_what_minilm_computes(minilm):
    import torch  # noqa: PLC0415  # heavy

    from training.albert import from_minilm  # noqa: PLC0415

    folder, model = minilm
    made = from_minilm(folder, 15).eval()
    ids = torch.tensor([[2, 17, 33, 4, 3]])
    with torch.no_grad():
        ours, theirs = made.albert(ids).last_hidden_state, model(ids).last_hidden_state
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert made.config.num_labels == 15


def test_shrunk_albert_is_smaller_and_sees_nearly_the_same_words(minilm):
    import torch  # noqa: PLC0415  # heavy

    from training import tokens  # noqa: PLC0415  # heavy
    from training.albert import from_minilm, shrink  # noqa: PLC0415

    texts = [f"disk {word} failed on port {word}" for word in ("alpha", "beta", "gamma", "delta")] * 5
    tokenizer = tokens.train_wordpiece([*texts, *["unused zebra quartz"] * 9], 110)
    model = from_minilm(minilm[0], 15).eval()
    small, fewer = shrink(model, tokenizer, texts, layers=[0, 2], repeats=2, vocabulary=60, embedding=24)
    assert (small.config.num_hidden_groups, small.config.num_hidden_layers) == (2, 4)
    assert small.config.vocab_size == fewer.get_vocab_size() <= 70 < tokenizer.get_vocab_size()
    seen = []
    for one, words in ((model, tokenizer), (small, fewer)):
        ids = torch.tensor([words.encode(texts[1]).ids])
        with torch.no_grad():
            seen.append(one.albert.encoder.embedding_hidden_mapping_in(one.albert.embeddings(ids)))
    assert torch.cosine_similarity(*seen, dim=-1).mean() > 0.9
    old = model.albert.encoder.albert_layer_groups[2].state_dict()
    new = small.albert.encoder.albert_layer_groups[1].state_dict()
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_shrinking_to_a_layer_that_is_not_there_is_refused(minilm):
    from training.albert import from_minilm, shrink  # noqa: PLC0415

    with pytest.raises(ConfigError, match="no layers"):
        shrink(from_minilm(minilm[0], 15), None, [], layers=[7])


# --- soft labels ----------------------------------------------------------------------------------------


def test_grader_learns_from_judged_lines_and_from_words():
    pytest.importorskip("sklearn")
    from training.sources.grading import Grader  # noqa: PLC0415  # heavy

    judged = [("user was added to group wheel", 1.0), ("session opened for user bob", 0.0)] * 3
    judged += [("integrity checksum changed", 1.0), ("service started", 0.0)] * 3
    grader = Grader([text for text, _ in judged], [alert for _, alert in judged], [1.0] * len(judged))
    grave, calm, word = grader.grade(["user was added to sudoers", "session opened for eve", "kernel panic"])
    assert grave > calm
    assert word > 0.5
    assert grader.grade([]) == []


def test_training_lines_of_a_siem_get_soft_labels_and_held_out_ones_their_own(data):
    pytest.importorskip("sklearn")
    rows = list(lines.rows(data))
    siem = [row for row in rows if row["source"] == "wazuh"]
    assert {row["alert"] for row in siem if row["split"] != "train"} <= {0.0, 1.0}
    assert any(0.0 < row["alert"] < 1.0 for row in siem if row["split"] == "train")
    assert all("alert" in row for row in rows if row["source"] == "printk" and row["split"] == "train")
