"""BLAKE2b for ids and checksums without `hashlib`, which loads OpenSSL: 3 MB of each stage's memory."""

from __future__ import annotations

try:
    from _blake2 import blake2b  # what hashlib itself hands out; has no dependencies
except ImportError:  # an interpreter built with OpenSSL's digests only
    from hashlib import blake2b

__all__ = ["blake2b"]
