"""The messages, one by one, in the order of their ids: the oldest first.

On a terminal the reason stands below its message; into a pipe every message is
one line, and nothing is cut.  What is paused or suspended is named.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from typing import Final

from outbox.filters import find
from outbox.lifecycle import Summary
from outbox.protocols import SupportsBrowse

from . import choosing, shell, withheld
from .arguments import message_id, whole
from .capable import browsable
from .exits import Exit
from .opening import opened_store
from .output import Console
from .records import summary_data
from .rows import printed
from .settings import config_of

__all__ = ["EPILOG", "arguments", "run"]

EPILOG: Final = f"""\
examples:
  outbox list --state dead                        what died, and of what
  outbox list --recipient ann@example.net         where is her mail?
  outbox list --older-than 2h --domain example.net
  outbox list --state queued --reason 'timed out'

{choosing.HOW_FILTERS_ADD_UP}
A filter that finds little looks at every message, but with --state dead (or
another that is over) at those alone: a second or two for a million in SQLite,
and Ctrl-C ends it.
"""


_LIMIT: Final = 100


def arguments(parser: argparse.ArgumentParser) -> None:
    choosing.add_filters(parser, "all")
    add = parser.add_argument
    add("--limit", metavar="N", type=whole, default=_LIMIT, help=f"at most so many (default: {_LIMIT})")
    add("--after", metavar="ID", type=_after, default="", help="begin behind this id: the next page")


def _after(text: str) -> str:
    return message_id(text) if text else text


def run(options: argparse.Namespace, console: Console) -> int:
    with opened_store(config_of(options, console)) as store:
        page = _page(browsable(store), options)
        suspensions = withheld.in_force(store)
    page, more = page[: options.limit], len(page) > options.limit
    if console.as_json:
        for summary in page:
            console.data(summary_data(summary))
    elif page:
        printed(page, console, suspensions)
    else:
        console.note("No such messages." if choosing.is_chosen(options) else "No messages.")
    if more:
        console.note(f"  -> outbox list {_again(options)}--after {page[-1].id}   there are more")
    return Exit.OK


def _again(options: argparse.Namespace) -> str:
    """What was asked for, for a shell: the next page is one of the same list."""
    said = choosing.again(options)
    if options.limit != _LIMIT:
        said += ["--limit", str(options.limit)]
    return "".join(f"{shell.word(each)} " for each in said)


def _page(store: SupportsBrowse, options: argparse.Namespace) -> Sequence[Summary]:
    """One more than is asked for, where there is one more."""
    sought, limit = choosing.chosen(options), options.limit + 1
    found = itertools.islice(find(store, sought, after=options.after), limit)
    return sorted(found, key=lambda summary: summary.id)
