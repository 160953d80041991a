"""The settings of the served model: what is refused, where they come from, what the doctor says of them."""

import os

import msgspec
import pytest

from daemon import config
from daemon.command.checks import _served
from daemon.command.configure import _as_toml
from daemon.errors import ConfigError
from daemon.inquiries import key_of
from daemon.settings import Served
from tests.fixtures.chat import Reply, serve


@pytest.fixture
def check(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("HAUSWART_")]:
        monkeypatch.delenv(name)

    def load(text):
        path = tmp_path / "hauswart.toml"
        path.write_text(f"[top.served]\n{text}\n")
        return config.load(path).top.served

    return load


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('url = "https://api.example.org/v1"', "nothing says that evidence may leave it"),
        ('url = "https://api.example.org/v1"\nconsent = ["prompts"]', "nothing says that evidence"),
        ('url = "http://localhost:1"\nconsent = ["all"]', "no consent all"),
        ('url = "localhost:11434"', "no http address"),
        ('url = "http://me:secret@localhost"', "user or password"),
        ('url = "http://localhost"\nparameters = {stream = true}', "stream is not for sampling"),
        ('url = "http://localhost"\nkey_file = "key"', "no absolute path"),
        ("timeout_s = 0", "top.served.timeout_s"),
        ("attempts = 99", "top.served.attempts"),
        ("parameters = {stop = [1]}", "top.served.parameters"),
        ('ulr = "http://localhost"', "top.served.ulr"),
    ],
)
def test_wrong_setting_is_named(check, text, says):
    with pytest.raises(ConfigError) as caught:
        check(text)
    assert says in f"{caught.value} {caught.value.hint}"


def test_consent_names_what_leaves(check):
    with pytest.raises(ConfigError) as caught:
        check('url = "https://api.example.org/v1"')
    assert "log lines, metrics, names of units, devices and users" in caught.value.hint
    assert check('url = "https://api.example.org/v1"\nconsent = ["evidence"]').consent == ["evidence"]


def test_settings_come_from_the_environment_too_and_are_shown_as_toml(check, monkeypatch, tmp_path):
    monkeypatch.setenv("HAUSWART_TOP__SERVED__URL", "http://127.0.0.1:11434")
    monkeypatch.setenv("HAUSWART_TOP__SERVED__PARAMETERS", '{"temperature": 0.3}')
    found = check("attempts = 3")
    assert (found.url, found.parameters, found.attempts) == (
        "http://127.0.0.1:11434",
        {"temperature": 0.3},
        3,
    )
    shown = _as_toml({"language": "en", "top": {"languages": ["en"], "served": msgspec.to_builtins(found)}})
    (tmp_path / "shown.toml").write_text(shown)
    assert config.load(tmp_path / "shown.toml").top.served == found


def test_key_comes_from_the_file_or_the_unit_s_credential(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert key_of(Served()) == ""
    (tmp_path / "hauswart.served").write_text("one\n")
    (tmp_path / "own").write_text("two\n")
    assert key_of(Served()) == "one"
    assert key_of(Served(key_file=str(tmp_path / "own"))) == "two"
    with pytest.raises(ConfigError, match="cannot be read"):
        key_of(Served(key_file="/nonexistent/key"))


def test_doctor_says_whether_the_server_answers_and_the_unit_may_ask_it(tmp_path):
    with serve([Reply()]) as server:
        (fine,) = _served(Served(url=server.url), tmp_path)
        (other,) = _served(Served(url=server.url, model="big"), tmp_path)
    (down,) = _served(Served(url="http://127.0.0.1:1"), tmp_path)
    assert [one.state for one in (fine, other, down)] == ["ok", "absent", "absent"]
    assert "serves scripted" in fine.text
    assert "is 'big'" in other.remedy
    assert "cannot be reached" in down.text
    assert server.asked == []  # nothing was told to anybody
    (tmp_path / "hauswart-top.service").touch()
    assert [one.state for one in _served(Served(url="http://127.0.0.1:1"), tmp_path)] == ["absent", "problem"]
