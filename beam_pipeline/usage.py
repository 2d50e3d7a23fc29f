"""Bad usage in one line with the nearest right word: what every command's arguments share.

parser = Parser(prog="reelscribe"); parser.add_argument("--limit", type=positive)
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence


class UsageError(ValueError):
    """A mistake in the command line or the configuration: one line, exit status 2."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and name the nearest right word."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(message)


def positive(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def names(text: str) -> list[str]:
    """Names between commas, at least one."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise argparse.ArgumentTypeError("needs names, with commas between them")
    return found


def check_words(arguments: Sequence[str], commands: dict[str, argparse.ArgumentParser]) -> None:
    """Check the word that chooses a command, and the one after it where the command has several kinds.

    Raises:
      UsageError: it is missing, or none of those known; the nearest one is named.
    """
    words = [word for word in arguments if not word.startswith("-")]
    asked = bool({"-h", "--help", "--version"} & set(arguments))
    _check_word("command", words[:1], list(commands), asked)
    kinds = commands[words[0]].get_default("kinds") if words else None
    if kinds:
        _check_word("evaluation", words[1:2], kinds, asked)


def _check_word(what: str, words: Sequence[str], known: Sequence[str], asked: bool) -> None:
    if not words and not asked:
        raise UsageError(f"which {what}? {', '.join(known)} (see reelscribe --help)")
    if words and words[0] not in known:
        near = difflib.get_close_matches(words[0], known, n=1, cutoff=0.0)[0]
        raise UsageError(f"there is no {what} {words[0]!r}; did you mean {near!r}?")


def flags_of(parser: argparse.ArgumentParser) -> list[str]:
    """All flags that the parser knows."""
    return [flag for action in parser._actions for flag in action.option_strings]


def unknown_flag(flag: str, known: Sequence[str]) -> str:
    """Say that a flag is none of those known, and which is nearest."""
    name = flag.partition("=")[0]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"unknown argument {flag!r}; did you mean {near[0]!r}?" if near else f"unknown argument {flag!r}"
