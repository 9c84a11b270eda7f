"""What one large message adds to the memory of the process that holds it and sends it, at the peak."""

from __future__ import annotations

import contextlib
import json
import resource
import smtplib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from outbox import Message
from outbox.transports.smtp import SMTPTransport

_STATUS: Final = Path("/proc/self/status")
_FORGET_THE_PEAK: Final = "5"
_BLOCK: Final = b"Subject: a large one\r\n\r\n" + (b"x" * 76 + b"\r\n") * 420


def resident(line: str) -> int:
    """Bytes, from that line of this process's status."""
    found = [each for each in _STATUS.read_text(encoding="ascii").splitlines() if each.startswith(line)]
    return int(found[0].split()[1]) * 1024


def peak() -> int:
    if _STATUS.exists():
        return resident("VmHWM:")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def before() -> int:
    """What there is now; from here on a new peak is looked for, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text(_FORGET_THE_PEAK, encoding="ascii")
    except OSError:
        return peak()
    return resident("VmRSS:")


def by_outbox(port: int) -> Callable[[bytes], None]:
    def send(content: bytes) -> None:
        with contextlib.closing(SMTPTransport("127.0.0.1", port)) as transport:
            message = Message(sender="s@example.org", recipients=["r@example.org"], content=content)
            outcome = transport.deliver(message, message.recipients)
        if "Accepted" not in repr(outcome):
            raise RuntimeError(f"not accepted: {outcome}")

    return send


def by_smtplib(port: int) -> Callable[[bytes], None]:
    def send(content: bytes) -> None:
        with smtplib.SMTP("127.0.0.1", port) as client:
            client.sendmail("s@example.org", ["r@example.org"], content)

    return send


def main(way: str, port: int, size: int) -> None:
    send = {"deliver": by_outbox, "smtplib": by_smtplib}[way](port)
    # What is loaded and kept by the first message of all is not this one's.
    send(_BLOCK)
    base = before()
    send(_BLOCK * (size // len(_BLOCK)))
    print(json.dumps(peak() - base))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
