"""Which bundle serves a tier, and how another takes its place without a moment in which none does."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path

import pytest

from models import shelf
from models.errors import BundleError, HauswartError, LockedError, NoBundleError
from models.shelf import Trust
from tests.fixtures.bundles import make_bundle

OPEN = Trust()


@pytest.fixture(autouse=True)
def _shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(shelf, "SHIPPED", tmp_path / "shipped")


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


def made(tmp_path, version, **options):
    return make_bundle(tmp_path / "made" / version, version=version, **options)


def serving(state, pinned="auto"):
    found = shelf.look("low", pinned, state, OPEN)
    return found.source, found.bundle.manifest.version


def test_pinned_comes_before_installed_and_installed_before_shipped(tmp_path, state):
    with pytest.raises(NoBundleError):
        serving(state)
    make_bundle(shelf.SHIPPED / "low", version="s")
    assert serving(state) == ("shipped", "s")
    shelf.install(made(tmp_path, "1"), "low", state, OPEN)
    assert serving(state) == ("current", "1")
    assert serving(state, str(made(tmp_path, "p"))) == ("pinned", "p")
    with pytest.raises(NoBundleError, match="switched off"):
        serving(state, "off")


def test_choose_gives_the_bundle_that_serves(tmp_path, state):
    shelf.install(made(tmp_path, "1"), None, state, OPEN)
    assert shelf.choose("low", "auto", state).manifest.version == "1"


def test_damaged_pinned_bundle_is_refused_whatever_else_there_is(tmp_path, state):
    shelf.install(made(tmp_path, "1"), "low", state, OPEN)
    pinned = made(tmp_path, "p")
    (pinned / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        serving(state, str(pinned))


def test_damaged_current_gives_way_to_the_one_before_and_then_to_the_shipped_one(tmp_path, state):
    make_bundle(shelf.SHIPPED / "low", version="s")
    for version in ("1", "2"):
        shelf.install(made(tmp_path, version), "low", state, OPEN)
    (state / "bundles/low/current/model.onnx").write_bytes(b"x")
    found = shelf.look("low", "auto", state, OPEN)
    assert (found.source, found.bundle.manifest.version) == ("previous", "1")
    assert "2/model.onnx" in found.refused[0]
    (state / "bundles/low/previous/config.json").write_bytes(b"x")
    assert serving(state) == ("shipped", "s")


def test_damaged_bundle_is_named_where_nothing_else_is_left(tmp_path, state):
    shelf.install(made(tmp_path, "1"), "low", state, OPEN)
    (state / "bundles/low/1/model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match="damaged"):
        serving(state)


@pytest.mark.parametrize("damage", ["flip", "cut", "tier", "format", "pickle", "unsigned", "link"])
def test_refused_bundle_leaves_the_present_one_serving(tmp_path, state, damage):
    shelf.install(made(tmp_path, "1"), "low", state, OPEN)
    offered, trust = made(tmp_path, "2", tier="middle" if damage == "tier" else "low"), OPEN
    model = offered / "model.onnx"
    match damage:
        case "flip":
            raw = bytearray(model.read_bytes())
            raw[len(raw) // 2] ^= 1
            model.write_bytes(raw)
        case "cut":
            model.write_bytes(model.read_bytes()[:-1])
        case "format":
            manifest = offered / "manifest.json"
            manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
        case "pickle":
            (offered / "weights.pth").write_bytes(b"\x80\x04N.")
        case "unsigned":
            trust = Trust(tmp_path / "allowed", signature_required=True)
        case "link":
            model.rename(tmp_path / "model.onnx")
            model.symlink_to(tmp_path / "model.onnx")
    with pytest.raises(BundleError):
        shelf.install(offered, "low", state, trust)
    assert serving(state) == ("current", "1")
    assert sorted(path.name for path in (state / "bundles/low").iterdir()) == [".lock", "1", "current"]


def test_installed_bundle_needs_the_offered_one_no_more(tmp_path, state):
    offered = made(tmp_path, "1")
    shelf.install(offered, "low", state, OPEN)
    shutil.rmtree(offered)
    assert serving(state) == ("current", "1")


def test_signature_is_installed_with_its_bundle(tmp_path, state):
    offered = made(tmp_path, "1")
    (offered / "manifest.sig").write_text("signature")
    shelf.install(offered, "low", state, OPEN)
    assert (state / "bundles/low/1/manifest.sig").read_text() == "signature"


def test_rollback_brings_back_the_one_before_and_a_second_one_undoes_it(tmp_path, state):
    for version in ("1", "2", "3"):
        shelf.install(made(tmp_path, version), "low", state, OPEN)
    assert shelf.rollback("low", state, OPEN).manifest.version == "2"
    assert serving(state) == ("current", "2")
    assert shelf.rollback("low", state, OPEN).manifest.version == "3"


def test_rollback_of_the_first_one_leaves_the_shipped_one(tmp_path, state):
    make_bundle(shelf.SHIPPED / "low", version="s")
    shelf.install(made(tmp_path, "1"), "low", state, OPEN)
    assert shelf.rollback("low", state, OPEN) is None
    assert serving(state) == ("shipped", "s")
    with pytest.raises(HauswartError, match="no bundle is installed"):
        shelf.rollback("low", state, OPEN)


def test_rollback_to_a_damaged_bundle_is_refused(tmp_path, state):
    for version in ("1", "2"):
        shelf.install(made(tmp_path, version), "low", state, OPEN)
    (state / "bundles/low/1/model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError):
        shelf.rollback("low", state, OPEN)
    assert serving(state) == ("current", "2")


def test_same_bundle_may_be_installed_again_and_mends_a_damaged_copy(tmp_path, state):
    offered = made(tmp_path, "1")
    shelf.install(offered, "low", state, OPEN)
    (state / "bundles/low/1/model.onnx").write_bytes(b"x")
    shelf.install(offered, "low", state, OPEN)
    assert serving(state) == ("current", "1")


def test_other_bundle_of_the_same_version_is_refused(tmp_path, state):
    shelf.install(made(tmp_path, "1"), "low", state, OPEN)
    other = make_bundle(tmp_path / "other", version="1", seed=7)
    with pytest.raises(BundleError, match="another bundle of version 1"):
        shelf.install(other, "low", state, OPEN)


def test_installed_version_can_be_taken_up_again_from_its_own_place(tmp_path, state):
    for version in ("1", "2"):
        shelf.install(made(tmp_path, version), "low", state, OPEN)
    shelf.install(state / "bundles/low/1", "low", state, OPEN)
    assert serving(state) == ("current", "1")


def test_shelf_keeps_a_bounded_number_of_versions_and_what_is_in_use(tmp_path, state):
    for version in range(10):
        shelf.install(made(tmp_path, f"v{version}"), "low", state, OPEN)
    kept = [path.name for path in shelf.installed("low", state)]
    assert len(kept) == shelf.KEPT + 2
    assert {"v9", "v8"} <= set(kept)


def test_install_while_another_one_is_at_work_is_refused(tmp_path, state):
    offered = made(tmp_path, "1")
    with shelf._locked(state / "bundles/low"), pytest.raises(LockedError):
        shelf.install(offered, "low", state, OPEN)
    shelf.install(offered, "low", state, OPEN)


def install_until(step, offered, state):
    """Install in a process that is killed before its n-th change on the disk; whether it got through."""
    pid = os.fork()
    if pid == 0:
        left = [step]

        def counted(call):
            def change(*arguments, **options):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **options)

            return change

        os.fsync, os.rename = counted(os.fsync), counted(os.rename)
        for name in ("rename", "replace", "symlink_to"):
            setattr(Path, name, counted(getattr(Path, name)))
        try:
            shelf.install(offered, "low", state, OPEN)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_install_that_is_killed_at_any_step_leaves_a_bundle_serving(tmp_path, state):
    first, second = made(tmp_path, "1"), made(tmp_path, "2")
    shelf.install(first, "low", state, OPEN)
    before = shutil.copytree(state, tmp_path / "before", symlinks=True)
    seen, steps, through = set(), 0, False
    while not through:
        shutil.rmtree(state)
        shutil.copytree(before, state, symlinks=True)
        through = install_until(steps, second, state)
        seen.add(serving(state))
        shelf.install(second, "low", state, OPEN)  # works after the crash, and clears what it left
        assert serving(state) == ("current", "2")
        assert not list((state / "bundles/low").glob(".new-*"))
        steps += 1
    assert steps > 8
    assert seen == {("current", "1"), ("current", "2")}


def test_reader_finds_a_whole_bundle_while_others_are_installed(tmp_path, state):
    offered = [made(tmp_path, str(number), seed=number) for number in range(4)]
    shelf.install(offered[0], "low", state, OPEN)
    stop, found, failed = threading.Event(), set(), []

    def read():
        while not stop.is_set():
            try:
                found.add(shelf.choose("low", "auto", state).manifest.version)
            except HauswartError as error:
                failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(5):
        for bundle in offered:
            shelf.install(bundle, "low", state, OPEN)
    stop.set()
    reader.join()
    assert not failed
    assert len(found) > 1
