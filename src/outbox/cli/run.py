"""Deliver for ever, until SIGTERM or Ctrl-C.

For systemd, a container or a terminal: it stays in the foreground and logs to
standard error, a line for each recipient.  SIGHUP reads the settings anew.
Any number of runs and drains may share one store.
"""

from __future__ import annotations

import argparse
import functools
import os
from pathlib import Path
from typing import Final

from outbox.errors import UnsupportedError
from outbox.locate import Config, masked

from .bell import Bell
from .drain import STOPPING
from .exits import Exit
from .journal import Journal
from .lifeline import Lifeline, Orders
from .logging_to import LogTo, add_logging, diverted, log_to_of
from .output import Console
from .pidfile import pid_file
from .sdnotify import Systemd
from .serving import Post, serve, stopped
from .settings import add_serving, config_of, opened_outbox, whole
from .signals import Signalled, heeded
from .supervisor import Supervisor
from .unserved import warn_of_unserved

__all__ = ["arguments", "run"]

_MOST_PROCESSES: Final = 256
_STDIN: Final = 0

EPILOG: Final = """\
signals:
  SIGTERM, SIGINT  end when what is under way has ended; the second: at once
  SIGHUP           read the settings anew, and open the log file anew; what
                   cannot be used is refused, and the old settings stay (at a
                   terminal it is the end, as elsewhere)

exit status:
  0   ended by a signal, in good order
  70  its workers ended by a bug: the lines before say which
  75  ended by a signal, and what was under way did not end in the grace time:
      the last line says how much, and when it is taken up again
  78  it could not start: a URL, a password, a permission
  128 + n  ended at once by the second signal, number n
A relay or a store that cannot be reached does not end it: it says so, waits,
and tries again.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_serving(parser)
    parser.add_argument(
        "--processes",
        metavar="N",
        type=functools.partial(whole, most=_MOST_PROCESSES),
        default=1,
        help="so many processes, each with its own threads; one that dies is replaced (default: 1)",
    )
    parser.add_argument(
        "--pid-file",
        metavar="FILE",
        type=Path,
        help="hold this file, with the process's number, as long as it runs",
    )
    add_logging(parser)
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)


def run(options: argparse.Namespace, console: Console) -> int:
    log_to = log_to_of(options)
    if options.supervised:
        return _run_supervised(log_to, console)
    if options.processes > 1 and os.name != "posix":
        raise UnsupportedError("--processes is not for this system: run the command several times instead")
    with diverted(log_to), pid_file(options.pid_file):
        if options.processes == 1:
            return _run_alone(options, log_to, console)
        return _run_several(options, log_to, console)


def _run_alone(options: argparse.Namespace, log_to: LogTo, console: Console) -> int:
    journal = Journal(console, forever=True, log=log_to.logger)
    config = config_of(options, console)

    def reread() -> Config:
        log_to.apply()
        return config_of(options, console)

    try:
        with Bell() as bell, heeded(STOPPING, reloads=not console.live) as asked:
            post = Post(
                journal=journal,
                superior=Systemd(),
                asked=asked,
                bell=bell,
                reread=reread,
                words=_words,
                discreet=console.discreet,
                look=lambda store, config: warn_of_unserved(store, config, console),
            )
            return serve(post, config)
    except Signalled:
        return stopped(journal)


def _run_several(options: argparse.Namespace, log_to: LogTo, console: Console) -> int:
    journal = Journal(console, forever=True, log=log_to.logger)
    supervisors: list[Supervisor] = []

    def reread() -> Config:
        log_to.apply()
        return _checked(options, console)

    def kill() -> None:
        for supervisor in supervisors:
            supervisor.kill()

    try:
        with Bell() as bell, heeded(STOPPING, reloads=not console.live, leaving=kill) as asked:
            systemd = Systemd()
            post = Post(
                journal=journal,
                superior=systemd,
                asked=asked,
                bell=bell,
                reread=reread,
                words=lambda config: f"{_words(config)} in {options.processes} processes",
                discreet=console.discreet,
            )
            supervisors.append(
                Supervisor(
                    post,
                    _checked(options, console),
                    processes=options.processes,
                    arguments=_arguments_of_a_process(options),
                    watchdog=systemd.watchdog,
                )
            )
            asked.raising = False
            return supervisors[0].supervise()
    except Signalled:
        return stopped(journal)


def _run_supervised(log_to: LogTo, console: Console) -> int:
    """One process of several: its supervisor has the words, the file of numbers and the signals."""
    with diverted(log_to), Bell() as bell, heeded("", patient=True) as asked:
        orders = Orders.read(_STDIN)
        console.hide(orders.config.secrets())
        bell.watch(_STDIN)
        post = Post(
            journal=Journal(console, forever=True, log=log_to.logger),
            superior=Lifeline(orders.beat),
            asked=asked,
            bell=bell,
            reread=lambda: orders.config,
            words=_words,
            discreet=console.discreet,
            line=_STDIN,
        )
        try:
            return serve(post, orders.config)
        except Signalled:
            return Exit.OK


def _words(config: Config) -> str:
    return f"Delivering {','.join(config.queues)} through {masked(config.transport or '')}"


def _checked(options: argparse.Namespace, console: Console) -> Config:
    """The settings of now, seen to open what they name: once, before several processes do at the same time."""
    config = config_of(options, console)
    with opened_outbox(config, []) as outbox:
        warn_of_unserved(outbox.store, config, console)
    return config


def _arguments_of_a_process(options: argparse.Namespace) -> list[str]:
    """What is no setting: those it is handed."""
    words = ["run", "--supervised", *["-v"] * options.verbose, *["-q"] * options.quiet]
    return words if options.log_config is None else [*words, "--log-config", str(options.log_config)]
