"""Signatures of manifests, made and checked by OpenSSH (`ssh-keygen -Y`), which every host has.

The key is an ordinary SSH key (Ed25519); who may sign is a file of allowed signers, one a line:
`NAME namespaces="hauswart-bundle" ssh-ed25519 AAAA...` (ssh-keygen(1), ALLOWED SIGNERS).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from models.errors import BundleError, MissingDependencyError

NAMESPACE = "hauswart-bundle"  # a signature made for anything else does not count
TIMEOUT_S = 10.0


def check_signature(manifest: bytes, signature: bytes, signers: Path, name: str) -> str:
    """Who signed these very bytes; raises BundleError where it is nobody who may."""
    if not signers.is_file():
        raise BundleError(
            f"{name} cannot be checked: {signers} does not exist", hint="[models] allowed_signers"
        )
    held = os.memfd_create("signature")  # no file that another process could exchange meanwhile
    try:
        os.write(held, signature)
        shared = ["-f", str(signers), "-n", NAMESPACE, "-s", f"/proc/self/fd/{held}"]
        found = _run(["-Y", "find-principals", *shared], manifest, held)
        who = found.stdout.decode(errors="replace").partition("\n")[0].strip()
        if found.returncode != 0 or not who:
            raise BundleError(f"{name} is not by an allowed signer", hint=f"see {signers}")
        if _run(["-Y", "verify", "-I", who, *shared], manifest, held).returncode != 0:
            raise BundleError(f"{name} is not the signature of this manifest")
        return who
    finally:
        os.close(held)


def sign(manifest: bytes, key: Path) -> bytes:
    """The signature of a manifest with a private SSH key; raises BundleError."""
    done = _run(["-Y", "sign", "-f", str(key), "-n", NAMESPACE], manifest)
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise BundleError(f"signing with {key} failed: {reason[-1] if reason else 'no reason given'}")
    return done.stdout


def _run(arguments: Sequence[str], manifest: bytes, held: int = -1) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["ssh-keygen", *arguments],
            input=manifest,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            pass_fds=[held] if held >= 0 else [],
        )
    except FileNotFoundError as error:
        raise MissingDependencyError(
            "ssh-keygen is not installed", hint="install OpenSSH's client"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"ssh-keygen did not end within {TIMEOUT_S:.0f} s") from error
