"""The catalogue: complete in both languages, and nothing in it that its validator should refuse."""

import re
import tomllib

import pytest

from daemon.advice import catalogue
from daemon.advice.actions import allow_list
from daemon.advice.fill import sentences
from daemon.advice.subjects import ARGUMENT_NAMES, sections
from daemon.advice.titles import titles
from daemon.errors import IntegrityError
from models.taxonomy import FaultClass, SubjectKind

GOOD = {
    "action": "disk-free",
    "means": [{"en": "Full.", "de": "Voll."}],
    "look": [{"en": "See {run:disk-free}", "de": "Siehe {run:disk-free}"}],
    "help": [{"en": "Tidy.", "de": "Aufräumen."}],
}
SIGNS = {"full": "no space", "quota": "quota exceeded"}


def entry_of(signs=None, **parts):
    return catalogue._entry({"any": GOOD | parts} | ({"signs": signs} if signs else {}))


def problems(signs=None, **parts):
    """What is wrong with an entry whose sentences are these, in English."""
    parts = {
        name: [one if isinstance(one, dict) else {"en": one, "de": "Voll."} for one in part]
        for name, part in parts.items()
    }
    return catalogue.problems_of(entry_of(signs, **parts))


@pytest.mark.parametrize("fault", list(FaultClass))
def test_every_fault_class_has_a_valid_entry(fault):
    entry = catalogue.load(fault)
    assert catalogue.problems_of(entry) == []
    assert "any" in entry.sections


def test_catalogue_has_no_file_without_a_fault_class():
    assert {path.stem for path in catalogue.FOLDER.glob("*.toml")} == {fault.value for fault in FaultClass}


def test_entries_speak_to_the_culprits_that_make_sense():
    wanted = {
        FaultClass.MEMORY_EXHAUSTION: {"unit", "process", "group"},
        FaultClass.DISK_FULL: {"mount"},
        FaultClass.AUTH_BRUTEFORCE: {"address", "user"},
        FaultClass.LINK_DOWN: {"interface", "physical-interface", "virtual-interface"},
        FaultClass.DISK_FAILING: {"device", "virtual-device", "array"},
        FaultClass.SERVICE_CRASH: {"unit", "process", "stage"},
    }
    for fault, kinds in wanted.items():
        assert kinds <= catalogue.load(fault).sections.keys()


@pytest.mark.parametrize("lang", catalogue.LANGUAGES)
def test_both_languages_say_the_same_placeholders(lang):
    other = "de" if lang == "en" else "en"
    for fault in FaultClass:
        for name, section in catalogue.load(fault).sections.items():
            for part in ("means", "look", "help"):
                mine, theirs = (_placeholders(section.words[each], part) for each in (lang, other))
                assert mine == theirs, (fault, name, part)


def _placeholders(words, part):
    return sorted(
        placeholder
        for item in getattr(words, part)
        for sentence in item
        for placeholder in catalogue.PLACEHOLDER.findall(sentence.text)
    )


def test_a_title_exists_for_each_class_in_both_languages():
    table = titles()
    assert table.keys() == {fault.value for fault in FaultClass}
    for fault, kinds in table.items():
        for kind, by_lang in kinds.items():
            assert kind in catalogue.SECTIONS, (fault, kind)
            for lang in catalogue.LANGUAGES:
                texts = [sentence.text for sentence in sentences(by_lang[lang])]
                assert [fault_ for text in texts for fault_ in catalogue.faults_of(text, ())] == [], texts
                assert not any(text.endswith(".") for text in texts)


def test_general_titles_need_nothing_from_the_incident():
    for kinds in titles().values():
        for lang in catalogue.LANGUAGES:
            assert "{" not in sentences(kinds["any"][lang])[-1].text


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("There are 7 errors.", "'7'"),
        ("Look at /etc/passwd.", "/etc/passwd"),
        ("Three errors happened.", "states a number"),
        ("{used_ratio:bytes} are used.", "is no bytes"),
        ("{used_ratio:furlong} are used.", "unknown placeholder"),
        ("{wizard} did it.", "unknown placeholder"),
        ("Run {run:format-everything}", "unknown action"),
    ],
)
def test_validator_refuses_what_no_evidence_backs(text, wrong):
    assert any(wrong in problem for problem in problems(means=[text]))


def test_validator_accepts_a_constant_only_as_a_whole():
    assert catalogue.faults_of("Root keeps 5 % of it.", ("5 %",)) == []
    assert catalogue.faults_of("Root keeps 15 % of it.", ("5 %",)) != []
    assert catalogue.faults_of("Root keeps 5 of it.", ("5 %",)) != []


def test_sentences_are_chosen_by_signs_that_have_names():
    full = {"en": "Full.", "de": "Voll.", "said": "full quota"}
    (item,) = entry_of(SIGNS, means=[[full, *GOOD["means"]]]).sections["any"].words["de"].means
    assert [(one.text, one.said) for one in item] == [("Voll.", tuple(SIGNS.values())), ("Voll.", ())]


def test_a_section_names_sentences_of_the_general_one():
    general = GOOD | {"means": [{"name": "full", "en": "Full.", "de": "Voll."}]}
    mount = {"means": [[{"en": "{mount}.", "de": "{mount}."}, "full"]]}
    section = catalogue._entry({"any": general, "mount": mount}).sections["mount"]
    assert [one.text for one in section.words["de"].means[0]] == ["{mount}.", "Voll."]
    assert [one.text for item in section.words["en"].help for one in item] == ["Tidy."]
    with pytest.raises(KeyError, match="empty"):
        catalogue._entry({"any": general, "mount": {"means": ["empty"]}})


def test_validator_refuses_signs_that_no_sentence_can_meet():
    assert any("{said}" in problem for problem in problems(means=["It says {said}."]))
    assert any("used nowhere" in problem for problem in problems(SIGNS))
    with pytest.raises(KeyError, match="fool"):
        problems(SIGNS, means=[{"en": "Full.", "de": "Voll.", "said": "fool"}])
    with pytest.raises(re.error):
        entry_of({"full": "(no space"})


def test_last_action_has_no_condition():
    found = problems_of_actions({"run": "disk-free", "said": "full quota"})
    assert any("no action is left" in problem for problem in found)
    assert problems_of_actions({"run": "disk-free", "said": "full quota"}, "inodes") == []


def problems_of_actions(*actions):
    return catalogue.problems_of(entry_of(SIGNS, action=list(actions)))


def test_validator_refuses_a_check_without_a_command():
    assert problems(look=["Look around."])


def test_validator_refuses_a_recommended_command_that_alters_the_host():
    assert any("read-only" in problem for problem in problems_of_actions("unit-restart"))


def test_broken_entry_is_an_integrity_error(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    catalogue.load.cache_clear()
    (tmp_path / "boot.toml").write_text("[any")
    with pytest.raises(IntegrityError, match=r"boot\.toml"):
        catalogue.load(FaultClass.BOOT)
    catalogue.load.cache_clear()


def test_allow_list_asks_only_for_arguments_that_culprits_give():
    for name, action in allow_list().items():
        for template in (action.command, *action.variants.values()):
            wanted = set(catalogue.PLACEHOLDER.findall(template)) - {"print $1", "print $5"}
            assert wanted <= ARGUMENT_NAMES | {"log"}, name
            assert template.isprintable()


def test_recommended_commands_of_all_sections_only_read():
    for fault in FaultClass:
        for section in catalogue.load(fault).sections.values():
            assert not any(allow_list()[choice.run].changes for choice in section.actions)


def test_every_action_is_used_somewhere():
    used = {
        choice.run
        for fault in FaultClass
        for section in catalogue.load(fault).sections.values()
        for choice in section.actions
    }
    text = "".join(path.read_text() for path in catalogue.FOLDER.glob("*.toml"))
    assert [name for name in allow_list() if name not in used and f"{{run:{name}}}" not in text] == []


def test_variants_belong_to_known_actions():
    path = catalogue.FOLDER.with_name("actions.toml")
    table = tomllib.loads(path.read_text())
    assert table.keys() == {"read", "change", "kernel", "file"}
    assert table["kernel"].keys() | table["file"].keys() <= table["read"].keys()


@pytest.mark.parametrize(
    ("kind", "name", "section"),
    [
        ("interface", "eth0", "physical-interface"),
        ("interface", "enp3s0", "physical-interface"),
        ("interface", "veth12ab", "virtual-interface"),
        ("interface", "docker0", "virtual-interface"),
        ("interface", "hwlab0", "interface"),
        ("device", "sda", "device"),
        ("device", "loop3", "virtual-device"),
        ("device", "md127", "array"),
        ("device", "dm-0", "mapped-device"),
        ("device", "/dev/loop3", "virtual-device"),
        ("unit", "nginx.service", "unit"),
        ("unit", "/lab/one", "group"),
        ("unit", "user@1000.service", "unit"),
    ],
)
def test_section_follows_from_the_kind_of_thing(kind, name, section):
    assert sections(SubjectKind(kind), name)[0] == section


def test_host_asks_for_the_general_section():
    assert sections(SubjectKind.HOST, "") == ()
