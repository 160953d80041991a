"""The kinds of 4 to 6 bits that llama.cpp alone can write (q4_k_m and its like), from a file in F16.

By `llama-quantize` on PATH, or by the library itself (llama-cpp-python) in a process of its own:
`python -m training.quantizer F16 OUT KIND`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

from daemon.errors import ConfigError, HauswartError

# llama.h's numbers of file types.
TYPES = {"q3_k_m": 12, "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18}
_MODULE = "llama_cpp"


def find_quantizer() -> str:
    """What can write these kinds here; empty where nothing can."""
    if shutil.which("llama-quantize"):
        return "llama-quantize"
    return _MODULE if find_spec(_MODULE) else ""


def quantize(source: Path, out: Path, kind: str) -> str:
    """Write `out` from an F16 file, whole or not at all; who did it. Raises ConfigError, HauswartError."""
    if kind not in TYPES:
        raise ConfigError(f"no kind {kind!r}", hint=", ".join(TYPES))
    name = find_quantizer()
    if not name:
        raise HauswartError(f"nothing here can write {kind}", hint="install llama.cpp (llama-quantize)")
    part = out.with_name(out.name + ".part")
    if name == "llama-quantize":
        command = [name, str(source), str(part), kind]
    else:
        command = [sys.executable, "-m", "training.quantizer", str(source), str(part), kind]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not part.is_file():
        part.unlink(missing_ok=True)
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise HauswartError(f"{name} cannot write {kind}: {(said or ['it says nothing'])[-1][:300]}")
    part.replace(out)
    return name


def types_of(file: Path) -> dict[str, int]:
    """How many tensors a file has of each type, so that nobody has to believe its name."""
    from gguf import GGUFReader  # noqa: PLC0415  # only an export needs it

    counts = Counter(tensor.tensor_type.name for tensor in GGUFReader(file).tensors)
    return dict(counts.most_common())


def main(source: str, out: str, kind: str) -> int:
    """Ask the library; its return code."""
    import ctypes  # noqa: PLC0415

    import llama_cpp  # noqa: PLC0415

    wanted = llama_cpp.llama_model_quantize_default_params()
    wanted.ftype = TYPES[kind]
    return int(llama_cpp.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(wanted)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
