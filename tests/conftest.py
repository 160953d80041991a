"""Fixtures of more than one test file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fixtures.trees import FIXTURES


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """The host's /proc."""
    return Path(shutil.copytree(FIXTURES / "proc-host", tmp_path / "proc"))


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    """The host's /sys."""
    return Path(shutil.copytree(FIXTURES / "sys-host", tmp_path / "sys"))
