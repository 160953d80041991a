"""What any process of ours needs and nothing more: a name in ps(1), and a line that says what went wrong."""

from __future__ import annotations

import ctypes
import os
import socket
import sys

from daemon.errors import ConfigError, HauswartError

_PR_SET_NAME = 15  # prctl(2)


def name_process(name: str) -> None:
    """Show a name in ps(1) and top(1), cut by the kernel to 15 characters."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def inherited_channel(whose: str) -> socket.socket:
    """The socket to the stage that is this helper's standard input. Raises ConfigError."""
    try:
        channel = socket.socket(fileno=0)
        kind = channel.type
    except OSError:
        kind = None
    if kind != socket.SOCK_SEQPACKET:
        raise ConfigError(f"the {whose} is started by its stage", hint="use `hauswart run`")
    return channel


def start_anew(stage: str) -> None:
    """Become a fresh process of a stage, under the same number; what it reads again is in the environment.

    Raises HauswartError; the service manager then starts another one.
    """
    arguments = [sys.executable, "-P", "-m", "daemon", "stage", stage]
    try:
        os.execv(arguments[0], arguments)  # noqa: S606  # no shell
    except OSError as error:
        raise HauswartError(f"cannot start {arguments[0]} anew: {error.strerror}") from error


def describe(error: BaseException) -> str:
    """What went wrong and where in our code, on one line."""
    where, trace = "", error.__traceback__
    while trace is not None:
        where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}: {error} ({where})"
