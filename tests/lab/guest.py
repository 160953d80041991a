"""The lab's end in its virtual machine: a request a line on the serial port, an answer a line.

A request has either `command` (for the shell, as root), or `write` (a path, with `data`), or `read` (a path);
data is base64. It stands alone: it is copied into the guest and runs there on Debian's own Python.
"""

import base64
import json
import os
import signal
import subprocess
import time
from pathlib import Path

PORT = Path("/dev/virtio-ports/lab")


def shell(request: dict) -> dict:
    """Run a command with its output in one piece; what is left of it when its time is over is killed."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", request["command"]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=request["timeout_s"])
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        output += f"\nnot done in {request['timeout_s']:.0f} s".encode()
    return {"code": process.returncode, "output": output.decode("utf-8", "replace")}


def answer(request: dict) -> dict:
    """What came of one request; a failure is an answer, too."""
    try:
        if "command" in request:
            return shell(request)
        if "write" in request:
            with Path(request["write"]).open("ab" if request["more"] else "wb") as file:
                file.write(base64.b64decode(request["data"]))
            return {"code": 0, "output": ""}
        return {"code": 0, "output": base64.b64encode(Path(request["read"]).read_bytes()).decode()}
    except OSError as error:
        return {"code": 1, "output": str(error)}


def send(port: int, message: dict) -> None:
    """The whole message, however little the port takes at once."""
    rest = json.dumps(message).encode() + b"\n"
    while rest:
        rest = rest[os.write(port, rest) :]


def main() -> None:
    """Serve for ever; the port reads as empty while nobody is at the other end."""
    while not PORT.exists():
        time.sleep(0.1)
    port = os.open(PORT, os.O_RDWR)
    waiting = bytearray()
    while True:
        got = os.read(port, 1 << 16)
        if not got:
            time.sleep(0.05)
        waiting += got
        while (end := waiting.find(b"\n")) >= 0:
            request = json.loads(waiting[:end])
            del waiting[: end + 1]
            send(port, {"id": request["id"], **answer(request)})


if __name__ == "__main__":
    main()
