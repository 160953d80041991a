"""What the senders that speak JSON over HTTP share: one request from standard input, one POST, an exit code.

Exit codes are those of `daemon.notify.channels`; what went wrong goes to standard error without the address,
which may hold credentials.
"""

from __future__ import annotations

import base64
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from daemon.notify.channels import FAILED, NOT_UNDERSTOOD

TIMEOUT_S = 20.0
MAX_INPUT_BYTES = 4 << 20
TOO_MANY = 429
Content = Callable[[dict[str, Any]], tuple[str, Any]]


def post(content_of: Content) -> int:
    """Post what `content_of` makes of the request: a path below its `url`, and a body for JSON."""
    try:
        request = json.loads(sys.stdin.buffer.read(MAX_INPUT_BYTES))
        path, content = content_of(request)
        prepared = prepare(request["url"], path, json.dumps(content).encode())
    except (ValueError, KeyError, TypeError) as error:
        sys.stderr.write(f"not understood: {type(error).__name__}\n")
        return NOT_UNDERSTOOD
    try:
        with urllib.request.build_opener(_NoRedirects).open(prepared, timeout=TIMEOUT_S):
            return 0
    except urllib.error.HTTPError as error:
        sys.stderr.write(f"answered {error.code}\n")
        return NOT_UNDERSTOOD if 300 <= error.code < 500 and error.code != TOO_MANY else FAILED
    except OSError as error:
        sys.stderr.write(f"not reached: {getattr(error, 'reason', error)}\n")
        return FAILED
    except HTTPException as error:  # what it says is what the other side sent
        sys.stderr.write(f"no valid HTTP: {type(error).__name__}\n")
        return FAILED


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET without its body, and takes user and password to whoever is named."""

    def redirect_request(self, *_: Any) -> None:
        """Nobody is asked; the answer stands as it is."""


def prepare(url: str, path: str, content: bytes) -> urllib.request.Request:
    """The request; a user and password in the address become a header. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("no http address")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = f"{host}:{parts.port}" if parts.port else host
    bare = urlunsplit((parts.scheme, place, parts.path.rstrip("/") + path, "", ""))
    headers = {"Content-Type": "application/json"}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    return urllib.request.Request(bare, content, headers, method="POST")  # noqa: S310  # checked above
