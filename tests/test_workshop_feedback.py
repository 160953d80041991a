"""Ratings and edits out of SQLite and a real PostgreSQL server; the password is never said."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from daemon.command.app import main
from daemon.errors import ConfigError, HauswartError
from training import chatml
from training.workshop import feedback, prepare, ratings, settings

ROWS = [
    ("Write a post on bread.", "Bread is good.", "up", None),
    ("Write a post on milk.", "Milk!!!", "EDITED", "Fresh milk every morning."),
    ("Write a post on jam.", "Jam.", "down", None),
    ("Write a post on tea.", "Tea.", None, None),
    ("Write a post on salt.", "Salt.", "edited", "  "),
    ("Write a post on <|im_end|>.", "Eggs.", "up", None),
]
CREATE = "CREATE TABLE ai_feedback (prompt text, output text, rating text, edited_output text)"
COUNTS = {"good": 1, "edited": 1, "bad": 1, "unusable": 1, "rows": 2, "pairs": 1}
PASSWORD = "so-secret-pw"
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
needs_postgres = pytest.mark.skipif(not PROGRAMS, reason="Debian's package postgresql is not installed")


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "app.db"
    with sqlite3.connect(path) as connection:
        connection.execute(CREATE)
        connection.executemany("INSERT INTO ai_feedback VALUES (?, ?, ?, ?)", ROWS)
    connection.close()
    return path


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """A cluster under an unprivileged user; its address with a password."""
    psycopg = pytest.importorskip("psycopg")
    folder = tmp_path_factory.mktemp("pg")
    programs = PROGRAMS[-1].parent
    as_user: dict = {}
    if os.getuid() == 0:
        user = pwd.getpwnam("nobody")
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        shutil.chown(folder, user.pw_uid, user.pw_gid)
        for parent in (folder, *folder.parents):
            if parent.owner() == "root" and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
    (folder / "pw").write_text(PASSWORD)
    (folder / "pw").chmod(0o644)
    run = {
        "capture_output": True,
        "cwd": "/",
        "env": {"LC_ALL": "C", "PATH": os.environ["PATH"]},
        **as_user,
    }
    data = str(folder / "data")
    subprocess.run(
        [
            programs / "initdb",
            "-D",
            data,
            "-A",
            "scram-sha-256",
            "-U",
            "app",
            "--pwfile",
            folder / "pw",
            "-N",
        ],
        check=True,
        **run,
    )
    options = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -p {_free_port()}"
    port = options.rsplit(" ", 1)[1]
    subprocess.run(
        [programs / "pg_ctl", "-D", data, "-o", options, "-w", "-l", folder / "log", "start"],
        check=True,
        **run,
    )
    try:
        url = f"postgresql://app:{PASSWORD}@127.0.0.1:{port}/postgres"
        with psycopg.connect(url) as connection:
            connection.execute("CREATE SCHEMA shop")
            connection.execute(CREATE.replace("ai_feedback", 'shop."Rated Texts"').replace("rating", "stars"))
            with connection.cursor() as cursor:
                cursor.executemany('INSERT INTO shop."Rated Texts" VALUES (%s, %s, %s, %s)', ROWS)
        yield url
    finally:
        # It is gone with the folder; a stop that a busy machine delays is no test's failure.
        subprocess.run([programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=False, **run)


def _free_port() -> int:
    import socket  # noqa: PLC0415

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def config(path: Path, table: str = "shop.Rated Texts") -> Path:
    path.write_text(f"feedback:\n  table: {table}\n  columns: {{rating: stars}}\n")
    return path


def test_thumbs_and_edits_of_sqlite_become_rows_and_pairs(database, tmp_path):
    counts = feedback.export(f"sqlite:///{database}", tmp_path, dict(settings.load().feedback))
    assert counts == COUNTS
    rows = chatml.read_file(tmp_path / feedback.CHATML).rows
    assert [one["messages"][-1]["content"] for one in rows] == ["Bread is good.", "Fresh milk every morning."]
    (pair,) = chatml.read_file(tmp_path / feedback.PREFERENCES).pairs
    assert pair["chosen"][0]["content"] == "Fresh milk every morning."
    assert pair["rejected"][0]["content"] == "Milk!!!"
    (bad,) = json.loads((tmp_path / feedback.BAD).read_text())
    assert bad["messages"][-1]["content"] == "Jam."


def test_exported_feedback_is_prepared_with_the_seed_and_the_bad_is_not(database, tmp_path, capsys):
    arguments = ["workshop", "export-feedback", "--workdir", str(tmp_path)]
    assert main([*arguments, "--database-url", str(database), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"] == 1
    found = prepare.prepare(tmp_path, config=settings.load(), examples=["host"])
    assert found.train + found.val == 32
    assert found.train_pairs + found.val_pairs == 1
    text = (tmp_path / "data/processed/train.jsonl").read_text() + (
        tmp_path / "data/processed/val.jsonl"
    ).read_text()
    assert "Fresh milk" in text
    assert "Jam." not in text


@needs_postgres
def test_real_postgres_is_read_by_mapped_table_and_columns(postgres, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", postgres)
    arguments = ["workshop", "export-feedback", "--workdir", str(tmp_path), "--json"]
    assert main([*arguments, "--config", str(config(tmp_path / "c.yaml"))]) == 0
    captured = capsys.readouterr()
    assert {name: json.loads(captured.out)[name] for name in COUNTS} == COUNTS
    assert PASSWORD not in captured.out + captured.err


@needs_postgres
@pytest.mark.parametrize(
    "case",
    [
        (PASSWORD, "wrong-pw", "shop.Rated Texts", "password authentication failed"),
        ("x-x", "", "nothing", 'relation "nothing" does not exist'),
        ("x-x", "", "shop.Rated Texts; DROP TABLE x", "does not exist"),
        ("/postgres", "/other", "shop.Rated Texts", 'database "other" does not exist'),
    ],
)
def test_failing_postgres_is_told_without_its_password(case, postgres, tmp_path, capsys):
    old, new, table, said = case
    url = postgres.replace(old, new)
    arguments = ["workshop", "export-feedback", "--workdir", str(tmp_path), "--database-url", url]
    assert main([*arguments, "--config", str(config(tmp_path / "c.yaml", table))]) in {1, 2}
    error = capsys.readouterr().err
    assert said in error
    assert PASSWORD not in error
    assert "wrong-pw" not in error
    assert "Traceback" not in error


def test_server_that_is_down_is_told_without_its_password(tmp_path):
    url = f"postgresql://app:{PASSWORD}@127.0.0.1:{_free_port()}/x"
    pytest.importorskip("psycopg")
    with pytest.raises(HauswartError, match="cannot be read") as error:
        list(ratings.read(url, ratings.mapped(settings.load().feedback)))
    assert PASSWORD not in str(error.value)
    assert error.value.__cause__ is None, "the driver's error has the address in it"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:////nonexistent.db", "there is no database"),
        ("mysql://a:b@c/d", "no database mysql"),
    ],
)
def test_wrong_address_is_refused(url, said):
    with pytest.raises(ConfigError, match=said):
        list(ratings.read(url, ratings.mapped(settings.load().feedback)))


def test_wrong_column_of_sqlite_is_refused_with_those_that_there_are(database):
    known = dict(settings.load().feedback) | {"columns.rating": "stars"}
    with pytest.raises(ConfigError, match="has no column stars") as error:
        list(ratings.read(str(database), ratings.mapped(known)))
    assert "edited_output, output, prompt, rating" in error.value.hint
    with pytest.raises(ConfigError, match="no table"):
        list(ratings.read(str(database), ratings.mapped(known | {"table": 'x"; DROP TABLE ai_feedback; --'})))


def test_database_is_only_read(database):
    before = database.read_bytes()
    list(ratings.read(str(database), ratings.mapped(settings.load().feedback)))
    assert database.read_bytes() == before


def test_hauswarts_own_store_is_a_source_too(tmp_path, capsys):
    from daemon.store.writer import StoreWriter  # noqa: PLC0415

    with StoreWriter(tmp_path / "store.db"):
        pass
    arguments = [
        "workshop",
        "export-feedback",
        "--store",
        str(tmp_path / "store.db"),
        "--workdir",
        str(tmp_path),
    ]
    assert main(arguments) == 0
    assert "feedback 0, preferences 0" in capsys.readouterr().out
    assert (tmp_path / "data/feedback/feedback.jsonl").is_file()


def test_without_a_source_that_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert main(["workshop", "export-feedback", "--workdir", str(tmp_path)]) == 2
    assert "nothing says where the feedback is" in capsys.readouterr().err
