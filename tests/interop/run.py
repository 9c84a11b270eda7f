"""The SMTP transport against servers by other authors: Postfix, OpenSMTPD and Exim, one after another.

    nox -s interop -- [NAME...]      runs this
    python tests/interop/run.py [NAME...]

Their packages conflict, so each is unpacked into a directory of its own, where
it runs with that directory as its root, on ports of 127.0.0.1, under
certificates made for this run; nothing is installed, and nothing is left.  It
needs root (for ``chroot``), apt and its package lists (``apt-get update``).

Ends with 0 where everything was there and went well, 1 where a check failed,
3 where a server, or its TLS, could not be had.
"""

from __future__ import annotations

import os
import ssl
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import attrs
import packages
import servers
import trustme
from checks import CHECKS, SINK_CHECKS, NoTLS, Scene, SinkScene, offers, tls_fault

from outbox.testing.smtp_sink import SMTPSink

S = TypeVar("S")

KINDS: Final[Sequence[type[servers.Server]]] = (servers.Postfix, servers.OpenSMTPD, servers.Exim)


@attrs.define
class Findings:
    """What was found, line by line."""

    failed: int = 0
    missing: int = 0

    def title(self, text: str) -> None:
        print(f"\n## {text}\n", flush=True)

    def check_all(self, checks: Mapping[str, Callable[[S], str]], scene: S, log: Callable[[], str]) -> None:
        print("| what | found |\n| --- | --- |", flush=True)
        for name, check in checks.items():
            try:
                found = check(scene)
            except NoTLS as missing:
                self.missing += 1
                found = f"**missing**: {missing}"
            except Exception as error:  # noqa: BLE001 - whatever it is, the next check may tell more
                self.failed += 1
                found = f"**failed**: {type(error).__name__}: {str(error)[:600]}"
                print(log()[-3000:], file=sys.stderr)
            print(f"| {name} | {' '.join(found.split()).replace('|', '/')} |", flush=True)

    def lacks(self, name: str, reason: object) -> None:
        self.missing += 1
        print(f"**missing**: {name}: {' '.join(str(reason).split())[:1500]}", flush=True)


def check_server(kind: type[servers.Server], findings: Findings, folder: Path) -> None:
    ca = trustme.CA()
    trust = ssl.create_default_context()
    ca.configure_trust(trust)
    findings.title(f"{kind.name} {packages.version(kind.packages[0])}")
    with SMTPSink(room=1 << 31, manners="noted") as sink:
        server = kind(root=folder / kind.name, ca=ca, onward=sink.port)
        try:
            with server.running():
                offered = offers(server.open)
                print(f"It offers: {', '.join(f'{k} {v}'.strip().upper() for k, v in offered.items())}.\n")
                scene = Scene(server, sink, trust, offered, tls_fault(server.implicit))
                findings.check_all(CHECKS, scene, server.log)
        except packages.Missing as missing:
            findings.lacks(kind.name, missing)


def check_sink(findings: Findings, folder: Path) -> None:
    findings.title(f"{servers.SMTP_SINK}, of Postfix {packages.version('postfix')}")
    root, dumps = folder / "sink", folder / "dumps"
    dumps.mkdir()
    try:
        packages.unpack(["postfix"], root)
        with servers.smtp_sink(root, dumps) as port:
            findings.check_all(SINK_CHECKS, SinkScene(port, dumps), str)
    except packages.Missing as missing:
        findings.lacks(servers.SMTP_SINK, missing)


def main(names: Sequence[str]) -> int:
    if sys.platform != "linux" or os.geteuid() != 0:
        print(
            "This needs Linux and root: each server runs with an unpacked tree as its root.", file=sys.stderr
        )
        return 3
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="interop-", ignore_cleanup_errors=True) as made:
        folder = Path(made).resolve()
        folder.chmod(0o755)
        for kind in KINDS:
            if not names or kind.name in names:
                check_server(kind, findings, folder)
        if not names or servers.SMTP_SINK in names:
            check_sink(findings, folder)
    print(f"\n{findings.failed} failed, {findings.missing} missing.")
    return 1 if findings.failed else 3 if findings.missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
