"""Deliver for ever, until SIGTERM or Ctrl-C.

For systemd, a container or a terminal: it stays in the foreground and logs to
standard error, a line for each recipient.  SIGHUP reads the settings anew.
Any number of runs and drains may share one store.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from pathlib import Path
from typing import Final

import attrs

from outbox.errors import UnsupportedError
from outbox.locate import KEYS, Config, masked

from .arguments import add_key
from .bell import Bell
from .delivering import opened_outbox
from .drain import STOPPING
from .exits import CommandError, Exit, Signalled
from .journal import Entry, Journal
from .lifeline import Lifeline, Orders, as_we_were_started, be_left_alone, taken_line
from .logging_to import VERBOSITY, LogTo, diverted
from .metrics import Metrics, counted_in, exposed
from .output import Console
from .pidfile import pid_file
from .sdnotify import Systemd
from .serving import Post, serve, stopped
from .settings import Settings, add_serving, config_of
from .signals import heeded, reloads_later
from .supervisor import Supervisor
from .unserved import warn_of_unserved

__all__ = ["arguments", "run"]

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
    for name in ("processes", "pid_file", "metrics", "log_level", "log_file", "log_config"):
        add_key(parser, name)
    parser.add_argument("--metrics-in", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)


def run(options: argparse.Namespace, console: Console) -> int:
    console.form = options.log_format
    if options.supervised:
        return _run_supervised(options, console)
    early = contextlib.nullcontext() if console.live else reloads_later()
    with early, console.held() as let_go:
        config = config_of(options, console)
        console.form = config.log_format
        if options.log_level is not None or not (options.verbose or options.quiet):
            console.turn(VERBOSITY[config.log_level])
        log_to = LogTo(file=config.log_file, config=config.log_config, discreet=console.discreet)
        if config.processes > 1 and os.name != "posix":
            raise UnsupportedError(
                "--processes is not for this system: run the command several times instead"
            )
        deliver = _run_alone if config.processes == 1 else _run_several
        at_terminal = console.live  # wherever the lines go from here on
        with diverted(log_to), console.logging(), pid_file(config.pid_file):
            let_go()
            return deliver(options, config, log_to, console, reloads=not at_terminal)


def _run_alone(
    options: argparse.Namespace, config: Config, log_to: LogTo, console: Console, *, reloads: bool
) -> int:
    journal = Journal(console, forever=True, log=log_to.logger)

    def reread() -> Settings:
        log_to.reopen()
        return Settings(config=_again(options, config, console), log=log_to.read())

    def adopt(settings: Settings) -> None:
        log_to.apply(settings.log)
        metrics.adopt(settings.config)

    try:
        with (
            Bell() as bell,
            heeded(STOPPING, reloads=reloads, last=True) as asked,
            exposed(config, several=False) as metrics,
        ):
            _tell_where(metrics, journal)
            post = Post(
                journal=journal,
                superior=Systemd(),
                asked=asked,
                bell=bell,
                reread=reread,
                adopt=adopt,
                words=_words,
                discreet=console.discreet,
                look=lambda store, config: warn_of_unserved(store, config, console),
                listeners=metrics.listeners,
            )
            return serve(post, config)
    except Signalled:
        return stopped(journal)


def _run_several(
    options: argparse.Namespace, config: Config, log_to: LogTo, console: Console, *, reloads: bool
) -> int:
    journal = Journal(console, forever=True, log=log_to.logger)
    supervisors: list[Supervisor] = []
    processes = config.processes

    def reread() -> Settings:
        log_to.reopen()
        new = _checked(_again(options, config, console), console)
        return Settings(config=new, log=log_to.read(), log_file=log_to.file)

    def adopt(settings: Settings) -> None:
        log_to.apply(settings.log)
        metrics.adopt(settings.config)

    def kill() -> None:
        for supervisor in supervisors:
            supervisor.kill()

    try:
        with (
            Bell() as bell,
            heeded(STOPPING, reloads=reloads, last=True, leaving=kill) as asked,
            exposed(checked := _checked(config, console), several=True) as metrics,
        ):
            _tell_where(metrics, journal)
            systemd = Systemd()
            post = Post(
                journal=journal,
                superior=systemd,
                asked=asked,
                bell=bell,
                reread=reread,
                adopt=adopt,
                words=lambda config: f"{_words(config)} in {processes} processes",
                discreet=console.discreet,
            )
            supervisors.append(
                Supervisor(
                    post,
                    Settings(config=checked, log=log_to.table, log_file=log_to.file),
                    processes=processes,
                    arguments=[*_arguments_of_a_process(console), *metrics.arguments],
                    watchdog=systemd.watchdog,
                )
            )
            asked.raising = False
            return supervisors[0].supervise()
    except Signalled:
        return stopped(journal)


def _run_supervised(options: argparse.Namespace, console: Console) -> int:
    """One process of several: its supervisor has the words, the file of numbers and the signals."""
    be_left_alone()
    line = taken_line()
    with Bell() as bell, heeded("", patient=True) as asked:
        orders = Orders.read(line)
        config = orders.settings.config
        console.hide(config.secrets())
        log_to = LogTo(orders.settings.log_file, table=orders.settings.log, discreet=console.discreet)
        journal = Journal(console, forever=True, log=log_to.logger)
        bell.watch(line)
        post = Post(
            journal=journal,
            superior=Lifeline(orders.beat),
            asked=asked,
            bell=bell,
            reread=lambda: orders.settings,
            words=_words,
            discreet=console.discreet,
            line=line,
            reopen=lambda: _reopen(log_to, journal),
            listeners=counted_in(options.metrics_in, config),
        )
        try:
            with console.logging():
                return serve(post, config)
        except Signalled:
            return Exit.OK


def _reopen(log_to: LogTo, journal: Journal) -> None:
    try:
        log_to.reopen()
    except CommandError as error:
        fields = {"msg": "log file not opened", "reason": error}
        journal.write(Entry(logging.ERROR, fields, f"the log goes where it went: {error}"))


def _tell_where(metrics: Metrics, journal: Journal) -> None:
    if metrics.address:
        journal.say(f"Metrics at {metrics.address}", {"msg": "metrics", "url": metrics.address})


def _words(config: Config) -> str:
    return f"Delivering {','.join(config.queues)} through {masked(config.transport or '')}"


def _again(options: argparse.Namespace, began: Config, console: Console) -> Config:
    """The settings of now; what changed in vain is told."""
    config = config_of(options, console)
    for name, key in KEYS.items():
        if key.at_start and getattr(config, name) != getattr(began, name):
            console.complain(
                f"warning: {name} has changed, and is read when `outbox run` begins: restart it for that"
            )
    return config


def _checked(config: Config, console: Console) -> Config:
    """These settings, seen to open what they name: once, before several processes do at the same time."""
    if config.password_file is not None:
        # What was checked is what they get, also when the file holds another by then.
        config = attrs.evolve(config, password=config.smtp_password(), password_file=None)
    with opened_outbox(config, []) as outbox:
        warn_of_unserved(outbox.store, config, console)
    return config


def _arguments_of_a_process(console: Console) -> list[str]:
    """What is no setting: those it is handed.  Once for all: the directory of now may be removed."""
    form = ["--log-format", console.form] if console.form else []
    loudness = ["-v" if console.verbosity > 0 else "-q"] * abs(console.verbosity)
    return [*as_we_were_started(), "run", "--supervised", *loudness, *form]
