"""Where what is sent goes to: Postfix's ``smtp-sink``, or ``SMTPSink``, in a process of its own."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["add_receiver", "chosen", "environment", "named", "program", "receiver"]

_PATIENCE: Final = dt.timedelta(seconds=20)


def add_receiver(parser: argparse.ArgumentParser, *, use: str) -> None:
    """The options that say where what is sent goes to; *use* is what is used of Postfix."""
    parser.add_argument(
        "--postfix",
        type=Path,
        default=os.environ.get("OUTBOX_POSTFIX"),
        help=f"a folder with {use}: /usr, or an unpacked package",
    )
    parser.add_argument("--receiver", choices=["smtp-sink", "ours"], default="smtp-sink")


def chosen(options: argparse.Namespace) -> Path | None:
    """Where the Postfix is that receives; None where ours does."""
    if options.receiver == "ours":
        return None
    if options.postfix is None:
        raise SystemExit("say where Postfix is (--postfix FOLDER, or OUTBOX_POSTFIX), or --receiver ours")
    return Path(options.postfix)


def named(postfix: Path | None) -> str:
    """It, in a report's words."""
    return "Postfix's `smtp-sink`" if postfix else "`SMTPSink`, which is slower than its senders"


@contextlib.contextmanager
def receiver(postfix: Path | None) -> Iterator[int]:
    """A receiver in a process of its own; its port."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    if postfix:
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        # Ten sessions and what they leave behind them.
        command = [program(postfix, "smtp-sink"), *user, "-m", "200", f"127.0.0.1:{port}", "200"]
        variables = environment(postfix)
    else:
        command = [sys.executable, "-c", _OURS, str(port)]
        variables = dict(os.environ)
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=variables) as process:
        try:
            _wait_for(process, port)
            yield port
        finally:
            process.terminate()


_OURS: Final = """
import sys
from outbox.testing import SMTPSink
with SMTPSink(port=int(sys.argv[1]), room=1 << 40):
    sys.stdin.read()
"""


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + _PATIENCE.total_seconds()
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the receiver did not start; its own words are above") from None
            time.sleep(0.05)
        else:
            return


def program(postfix: Path, name: str) -> str:
    for folder in ("usr/sbin", "sbin", "bin", "."):
        if (postfix / folder / name).is_file():
            return str(postfix / folder / name)
    raise SystemExit(f"there is no {name} in {postfix}")


def environment(postfix: Path) -> dict[str, str]:
    """An unpacked Postfix finds its own libraries only when it is told where they are."""
    folders = sorted({str(path.parent) for path in postfix.rglob("libpostfix-*.so")})
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(folders)} if folders else dict(os.environ)
