"""Captions in words, as the captioning metrics count them: lower case, Penn Treebank, without punctuation.

    tokenizer = choose_tokenizer()
    tokenizer(["A dog's ball."])        # ["a dog 's ball"]

The field's figures are made with Stanford's tokenizer, which pycocoevalcap carries as a Java archive. Where there is no
Java, NLTK's Treebank tokenizer stands in; the two differ in rare spellings, so a table says which of them it was.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence

#: A tokenizer that hangs would hang the evaluation: a million captions take it a minute.
_DEADLINE_S = 1800
#: Treebank tokenizers split only the last full stop of what they are given off.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
#: Brackets have names in the Treebank; in lower case pycocoevalcap's list of punctuation misses them, and they count.
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """What cuts captions into words, and what it is called in a table."""

    name: str
    cut: Callable[[Sequence[str]], list[str]]

    def __call__(self, captions: Sequence[str]) -> list[str]:
        """Each caption's words with blanks between them."""
        return self.cut(captions) if captions else []


def java() -> str | None:
    """Where Java is, if it is on the path."""
    return shutil.which("java")


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def package_folder(package: str) -> pathlib.Path:
    """The folder of an installed package."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed", name=package)
    return pathlib.Path(next(iter(found.submodule_search_locations)))


def choose_tokenizer() -> Tokenizer:
    """Stanford's where there is Java, else NLTK's.

    Raises:
      ModuleNotFoundError: neither is installed.
    """
    if java() and is_installed("pycocoevalcap"):
        return Tokenizer("Stanford's PTB tokenizer, as pycocoevalcap", _stanford)
    return Tokenizer("NLTK's Treebank tokenizer (Stanford's, which published figures are made with, needs Java)", _nltk)


def _stanford(captions: Sequence[str]) -> list[str]:
    # Not through pycocoevalcap's class: it writes into its own folder, which need not be writable.
    folder = package_folder("pycocoevalcap") / "tokenizer"
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt", newline="\n") as file:
        file.write("".join(_one_line(caption) + "\n" for caption in captions))
        file.flush()
        command = [str(java()), "-Dfile.encoding=UTF-8", "-cp", str(folder / "stanford-corenlp-3.4.1.jar")]
        command += ["edu.stanford.nlp.process.PTBTokenizer", "-encoding", "UTF-8", "-preserveLines", "-lowerCase"]
        ran = subprocess.run([*command, file.name], capture_output=True, timeout=_DEADLINE_S, check=False)
    lines = ran.stdout.decode("utf-8").split("\n")[:-1]
    if ran.returncode or len(lines) != len(captions):
        told = " ".join(ran.stderr.decode("utf-8", "replace").split())[-300:]
        raise RuntimeError(f"Stanford's tokenizer gave {len(lines)} lines for {len(captions)} captions: {told}")
    return [_words(line.split()) for line in lines]


def _nltk(captions: Sequence[str]) -> list[str]:
    from nltk.tokenize import NLTKWordTokenizer

    cut = NLTKWordTokenizer().tokenize
    return [
        _words(
            _BRACKETS.get(word, word) for part in _SENTENCE_END.split(_one_line(caption).lower()) for word in cut(part)
        )
        for caption in captions
    ]


def _one_line(caption: str) -> str:
    return " ".join(caption.split())


def _words(words: Iterable[str]) -> str:
    return " ".join(word for word in words if word not in _punctuation())


@functools.cache
def _punctuation() -> frozenset[str]:
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    return frozenset(PUNCTUATIONS)
