"""METEOR 1.5 by its authors' program, a Java archive in the package pycocoevalcap (Denkowski and Lavie, 2014).

    figures = running().figures([("a dog runs", ["the dog is running"])])      # (1, 23)
    running().scores(figures.sum(axis=0, keepdims=True))                       # as for the whole corpus

The corpus' score is that of the sums of its figures, which is what the program itself does, so that a resample of
clips costs one more line of figures rather than another look at the captions.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence

import numpy as np

from beam_pipeline.evaluate_tokens import is_installed, java, package_folder

#: Lines of figures a request; a request is one line of the protocol.
_AT_ONCE = 500


class Meteor:
    """The program, running; English, with its normalisation, as the captioning field calls it."""

    def __init__(self) -> None:
        folder = package_folder("pycocoevalcap") / "meteor"
        command = [str(java()), "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", "meteor-1.5.jar"]
        # To a file: a pipe that nobody reads would fill and stop it.
        self._told = tempfile.TemporaryFile()  # noqa: SIM115
        self._running = subprocess.Popen(
            [*command, "-", "-", "-stdio", "-l", "en", "-norm"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._told,
            encoding="utf-8",
        )

    def figures(self, pairs: Iterable[tuple[str, Sequence[str]]]) -> np.ndarray:
        """What each (caption, references) adds to the corpus, (n, 23); all of them tokenised."""
        rows = []
        for caption, references in pairs:
            told = self._ask(" ||| ".join(["SCORE", *map(_plain, references), _plain(caption)]))
            rows.append(np.array(told.split(), dtype=float))
        return np.array(rows)

    def scores(self, sums: np.ndarray) -> np.ndarray:
        """The score of each row of figures."""
        found: list[float] = []
        for at in range(0, len(sums), _AT_ONCE):
            part = sums[at : at + _AT_ONCE]
            lines = (" ".join(repr(float(number)) for number in row) for row in part)
            found.append(float(self._ask(" ||| ".join(["EVAL", *lines]))))
            found += [float(self._answer()) for _ in part[1:]]
            # After one for each row comes that of all of them together.
            self._answer()
        return np.array(found)

    def _ask(self, line: str) -> str:
        assert self._running.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._running.stdin.write(line + "\n")
            self._running.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._running.stdout is not None
        told = self._running.stdout.readline()
        if not told:
            self._told.seek(0)
            last = " ".join(self._told.read().decode("utf-8", "replace").split())[-300:]
            raise RuntimeError(f"METEOR ended: {last or 'it says nothing'}")
        return told

    def close(self) -> None:
        """End the program."""
        self._running.kill()
        self._running.communicate()
        self._told.close()


@functools.cache
def running() -> Meteor:
    """The one program of this process: it reads its tables for seconds before the first answer."""
    program = Meteor()
    atexit.register(program.close)
    return program


def missing() -> str | None:
    """What METEOR lacks here; None where it can run."""
    if not is_installed("pycocoevalcap"):
        return "pip install 'reelscribe[evaluate]'"
    return None if java() else "needs Java 8 or newer on the path"


def _plain(caption: str) -> str:
    # The protocol's own mark; words of captions are told apart by single blanks. One bar alone is a word like others.
    return " ".join(re.sub(r"\|{3,}", " ", caption).split())
