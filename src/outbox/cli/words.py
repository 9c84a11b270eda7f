"""A command line as sendmail and mail have it: letters joined, a value behind its letter or in the next word."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import attrs

from outbox.values import quoted

__all__ = ["Grammar", "Words"]


@attrs.define
class Words:
    """What was said: values and flags by letter, in order; *long* are the words of long options."""

    values: dict[str, list[str]] = attrs.Factory(dict)
    flags: list[str] = attrs.Factory(list)
    long: list[str] = attrs.Factory(list)
    operands: list[str] = attrs.Factory(list)
    behind: list[str] = attrs.Factory(list)
    """What stands behind ``--``."""

    def all(self, letter: str) -> Sequence[str]:
        """Its values, in order."""
        return self.values.get(letter, ())

    def last(self, *letters: str) -> str | None:
        """The value of the last of these letters that has one."""
        said = [value for letter in letters for value in self.all(letter)]
        return said[-1] if said else None


@attrs.frozen(kw_only=True)
class Grammar:
    """Which letters take a value, which none, which one that is joined to them; and which long options take one."""

    valued: frozenset[str]
    flags: frozenset[str]
    joined: frozenset[str] = frozenset()
    long: frozenset[str] = frozenset()

    def read(self, argv: Sequence[str], parser: argparse.ArgumentParser) -> Words:
        """Options and operands in any order; behind ``--`` nothing is an option.

        Raises:
            CommandError: it cannot be understood.
        """
        words, rest = Words(), iter(argv)
        for word in rest:
            if word == "--":
                words.behind += rest
            elif word.startswith("--"):
                words.long.append(word)
                if word in self.long:
                    words.long.append(_next(rest, word, parser))
            elif word.startswith("-") and len(word) > 1:
                self._letters(word[1:], rest, words, parser)
            else:
                words.operands.append(word)
        return words

    def _letters(
        self, letters: str, rest: Iterator[str], words: Words, parser: argparse.ArgumentParser
    ) -> None:
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in self.joined or letter in self.valued:
                value = letters if letters or letter in self.joined else _next(rest, f"-{letter}", parser)
                words.values.setdefault(letter, []).append(value)
                return
            if letter not in self.flags:
                parser.error(f"unknown option {quoted('-' + letter)}")
            words.flags.append(letter)


def _next(rest: Iterator[str], option: str, parser: argparse.ArgumentParser) -> str:
    value = next(rest, None)
    if value is None:
        parser.error(f"{option} needs a value")
    return value
