"""A coverage-guided search for a server that makes the SMTP transport crash, hang, or say what is not so.

    nox -s fuzz -- [--minutes N] [--corpus FOLDER]
    python tests/smtp_fuzz.py [--minutes N] [--corpus FOLDER] [--replay FILE]

It is driven by atheris (libFuzzer).  What must hold is in ``smtp_fuzz_target.py``.
A finding is kept beside the corpus, and ``--replay`` plays it without atheris.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

LONGEST = 4096
SLOWEST = 10
"""Seconds for one input: the transport waits milliseconds for a reply, and there are not so many."""
MOST = 512
"""MiB of memory: the interpreter, and what is bounded."""


def search(minutes: float, corpus: Path) -> None:
    """Search; ends the process."""
    try:
        import atheris  # noqa: PLC0415 - a replay needs none
    except ImportError:
        raise SystemExit("atheris is not installed for this Python: pip install atheris") from None
    with atheris.instrument_imports(include=["outbox.transports.smtp"]):
        import smtp_fuzz_target  # noqa: PLC0415 - what it imports is instrumented here

    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(smtp_fuzz_target.SEEDS):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = corpus.parent / "words"
    words.write_text(
        "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in smtp_fuzz_target.WORDS),
        encoding="ascii",
    )
    options = [
        f"-max_total_time={int(minutes * 60)}",
        f"-max_len={LONGEST}",
        f"-timeout={SLOWEST}",
        f"-rss_limit_mb={MOST}",
        f"-dict={words}",
        f"-artifact_prefix={corpus.parent}/",
        "-print_final_stats=1",
        str(corpus),
    ]

    def one(data: bytes) -> None:
        smtp_fuzz_target.play(data)

    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


def replay(file: Path) -> None:
    import smtp_fuzz_target  # noqa: PLC0415 - a search instruments it while it is imported

    print(f"it went well: {sorted(smtp_fuzz_target.play(file.read_bytes()))}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Searches for servers that the SMTP transport cannot bear.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--corpus", type=Path, help="keep what it found interesting, for the next time")
    parser.add_argument("--replay", type=Path, help="play one finding again")
    options = parser.parse_args()
    if options.replay:
        replay(options.replay)
    else:
        search(options.minutes, options.corpus or Path(tempfile.mkdtemp(prefix="fuzz-"), "corpus"))


if __name__ == "__main__":
    main()
