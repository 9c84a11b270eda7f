"""--pid-file: it holds the number of who delivers, as long as that lives, and no longer."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from command_line import CommandLine
from started import PATIENCE, Started, put_mail

from outbox.cli.exits import CommandError, Exit
from outbox.cli.pidfile import pid_file
from outbox.testing.smtp_sink import SMTPSink

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks as POSIX has them")


def test_it_holds_our_number_and_goes_with_us(tmp_path: Path) -> None:
    path = tmp_path / "outbox.pid"
    with pid_file(path):
        assert path.read_text() == f"{os.getpid()}\n"
        assert [entry.name for entry in tmp_path.iterdir()] == ["outbox.pid"]
    assert list(tmp_path.iterdir()) == []


def test_it_goes_also_where_the_work_fails(tmp_path: Path) -> None:
    path = tmp_path / "outbox.pid"
    with pytest.raises(ZeroDivisionError), pid_file(path):
        _ = 1 / 0
    assert not path.exists()


def test_while_it_is_held_a_second_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "outbox.pid"
    with pid_file(path):
        with (
            pytest.raises(
                CommandError, match=f"held by a process that runs \\('{os.getpid()}'\\)"
            ) as refused,
            pid_file(path),
        ):
            pytest.fail("two at once")
        assert refused.value.status == Exit.TEMPORARY
        assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("left", ["4194304\n", "", "17", f"{os.getppid()}\n"])
def test_what_one_that_is_gone_left_behind_is_taken_over(tmp_path: Path, left: str) -> None:
    # The last is the number of a process that lives: only a lock tells who holds the file.
    path = tmp_path / "outbox.pid"
    path.write_text(left)
    with pid_file(path):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_a_file_that_another_has_put_there_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "outbox.pid"
    with pid_file(path):
        path.unlink()
        path.write_text("another's\n")
    assert path.read_text() == "another's\n"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "outbox.pid").symlink_to(target)
    with pytest.raises(CommandError, match="--pid-file"), pid_file(tmp_path / "outbox.pid"):
        pytest.fail("it was taken")
    assert target.read_text() == "precious"


@pytest.mark.parametrize("precious", ["my notes\n", "1\n2\n", "\u0661\n", "SQLite format 3\0", "1" * 21])
def test_a_file_that_holds_no_number_is_refused_and_stays_as_it_is(tmp_path: Path, precious: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(precious, "utf-8")
    with pytest.raises(CommandError, match=r"notes\.txt' is no pid file") as refused, pid_file(path):
        pytest.fail("it was taken")
    assert refused.value.status == Exit.CONFIGURATION
    assert path.read_text("utf-8") == precious
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_is_refused_and_stays_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pipe"  # as /dev/null would be, for who is root
    os.mkfifo(path)
    with pytest.raises(CommandError, match="pipe' is no pid file") as refused, pid_file(path):
        pytest.fail("it was taken")
    assert refused.value.status == Exit.CONFIGURATION
    assert path.is_fifo()


def test_a_database_named_by_mistake_survives(outbox: CommandLine, sink: SMTPSink) -> None:
    put_mail(outbox.path, 1)
    ran = outbox("run", "--pid-file", str(outbox.path))
    assert ran.status == 78
    assert "is no pid file" in ran.complaint
    assert len(outbox("list", "--json").rows) == 1


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "no" / "outbox.pid"
    missing = pytest.raises(CommandError, match=r"--pid-file '.*/no/outbox.pid': No such file")
    with missing as refused, pid_file(path):
        pytest.fail("where is it?")
    assert refused.value.status == Exit.CONFIGURATION


def test_two_runs_with_one_file_are_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outbox = CommandLine(tmp_path, monkeypatch, capsys)
    path = tmp_path / "outbox.pid"
    with SMTPSink() as sink:
        outbox.environ(OUTBOX_TRANSPORT=sink.url)
        with Started("--pid-file", str(path)) as run:
            run.wait_for("msg=running")
            assert path.read_text() == f"{run.process.pid}\n"
            second = outbox("run", "--pid-file", str(path))
            assert second.status == 75
            assert f"held by a process that runs ('{run.process.pid}')" in second.complaint
            run.signal(signal.SIGKILL)
            run.process.wait(PATIENCE)
        with Started("--processes", "2", "--pid-file", str(path)) as run:
            run.wait_for("msg=running")
            assert path.read_text() == f"{run.process.pid}\n"
            run.signal()
            assert run.ended() == 0
        assert not path.exists()
