"""How right the text hygiene of captions is, and what it costs: tables of accuracy, and microseconds a caption.

    python benchmarks/hygiene.py                                                   # on captions of ours alone
    python benchmarks/hygiene.py --captions ../shared/captions                     # and on those that people wrote
    python benchmarks/hygiene.py --names en_core_web_sm --names models/bert-base-NER --harmful models/toxic-bert

Even captions of `hygiene_texts` and Flickr8k's training part chose thresholds and lists, the rest checks them.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow.parquet as pq

ROOT = pathlib.Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from beam_pipeline.hygiene import HygieneSettings, hygiene_settings, tidy  # noqa: E402
from benchmarks.hygiene_texts import HARMFUL, INNOCENT, LANGUAGES, NAMES  # noqa: E402
from model_handlers.catalogue import Entry  # noqa: E402
from transforms.tidying import without_names  # noqa: E402

Texts = dict[str, list[str]]
Asked = Callable[[Sequence[str]], list[Any]]


@dataclasses.dataclass(frozen=True)
class Text:
    """A request about a text."""

    text: str


def asker(entry: Entry) -> Asked:
    """Asks a model about texts; a text that it fails on ends the benchmark."""
    handler: Any = entry.build()
    model = handler.load_model()

    def ask(texts: Sequence[str]) -> list[Any]:
        outcomes = list(handler.run_inference([Text(text) for text in texts], model))
        if failed := [one.failure for one in outcomes if one.failure]:
            raise SystemExit(f"{entry.name} failed: {failed[0].message}")
        return [one.answer for one in outcomes]

    return ask


def read_captions(folder: pathlib.Path) -> Texts:
    """Captions that people wrote, all of them English, by the file they stand in."""
    found: Texts = {}
    for part in ("train", "dev"):
        rows = pq.read_table(folder / f"flickr8k_{part}.parquet", columns=["captions"])["captions"].to_pylist()
        found[f"flickr8k {part}"] = [caption for five in rows for caption in five]
    references = json.loads((folder / "msvd_caption_test.json").read_text("utf-8"))
    found["msvd"] = [text for one in references for text in _listed(one["caption"])]
    found["panda70m"] = [one["caption"] for one in json.loads((folder / "panda70m.json").read_text("utf-8"))]
    return found


def _listed(captions: str | list[str]) -> list[str]:
    return captions if isinstance(captions, list) else [captions]


def plain(marked: str) -> tuple[str, list[tuple[int, int]]]:
    """A caption without its brackets, and the spans that they enclosed.

    >>> plain("[Anna] runs.")
    ('Anna runs.', [(0, 4)])
    """
    spans: list[tuple[int, int]] = []
    text = ""
    for part in re.split(r"(\[[^\]]*\])", marked):
        if part.startswith("["):
            spans.append((len(text), len(text) + len(part) - 2))
        text += part.strip("[]")
    return text, spans


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")


def tidying(people: Texts) -> None:
    """How many captions that people wrote are changed, and examples to read."""
    rows, examples = [], []
    for name, texts in people.items():
        began = time.perf_counter()
        after = [tidy(text) for text in texts]
        cost = micros(began, texts)
        pairs = zip(texts, after, strict=True)
        changed = [(a, b) for a, b in pairs if " ".join(a.split()).casefold() != b.casefold()]
        rows.append((name, len(texts), len(changed), cost))
        examples += [f"    {before}  ->  {now}" for before, now in changed[:4]]
    show("Stock openings and repetition", ("captions", "count", "changed", "us"), rows)
    print("", *examples, sep="\n")


def languages(entry: Entry, people: Texts) -> None:
    """Right, wrong and not told, for each language and for captions that people wrote in English."""
    ask = asker(entry)
    rows = []
    for part, name in ((0, "chooses"), (1, "checks")):
        texts = [(code, text) for code, said in LANGUAGES.items() for text in said[part::2]]
        rows.append((f"ours, {name}", *_told([code for code, _ in texts], ask([text for _, text in texts])), ""))
    rows += [(f"  {code}", *_told([code] * len(said), ask(said)), "") for code, said in LANGUAGES.items()]
    for name, texts in people.items():
        began = time.perf_counter()
        told = ask(texts)
        rows.append((name, *_told(["en"] * len(texts), told), micros(began, texts)))
    show(f"Language, {entry.revision}", ("captions", "count", "right", "wrong", "not told", "us"), rows)


def _told(right: Sequence[str], told: Sequence[str | None]) -> tuple[object, ...]:
    counted = collections.Counter(
        "none" if answer is None else "right" if answer == wanted else "wrong"
        for wanted, answer in zip(right, told, strict=True)
    )
    return len(told), *(f"{counted[kind] / len(told):.3f}" for kind in ("right", "wrong", "none"))


def harm(entry: Entry, people: Texts) -> None:
    """Hits among harmful and innocent sentences, and among captions that people wrote, with examples."""
    ask = asker(entry)
    rows, examples = [], []
    for name, texts in {"ours, harmful": list(HARMFUL), "ours, innocent": list(INNOCENT), **people}.items():
        began = time.perf_counter()
        told = ask(texts)
        cost = micros(began, texts)
        hits = [text for text, harmful in zip(texts, told, strict=True) if harmful]
        rows.append((name, len(texts), len(hits), f"{len(hits) / len(texts):.2%}", cost))
        examples += [f"    {name}: {text}" for text in hits[:8] if name != "ours, harmful"]
    show(f"Harmful text, {entry.model} {entry.revision}", ("texts", "count", "hits", "rate", "us"), rows)
    print("", *examples, sep="\n")


def persons(entry: Entry, people: Texts) -> None:
    """Precision and recall of names by their characters, and hits among captions that people wrote."""
    ask = asker(entry)
    rows, examples = [], []
    for case, change in (("as written", str), ("in small letters", str.lower)):
        marked = [plain(text) for text in NAMES]
        texts = [change(text) for text, _ in marked]
        found = ask(texts)
        of, at, both = 0, 0, 0
        for (_, names), spans in zip(marked, found, strict=True):
            wanted = {n for start, end in names for n in range(start, end)}
            hit = {n for start, end in spans for n in range(start, end)}
            of, at, both = of + len(wanted), at + len(hit), both + len(wanted & hit)
        exact = sum(
            without_names(text, spans) == without_names(text, names)
            for text, spans, (_, names) in zip(texts, found, marked, strict=True)
        )
        rows.append((f"ours, {case}", len(texts), f"{both / max(at, 1):.2f}", f"{both / of:.2f}", exact, ""))
    for name, texts in people.items():
        texts = texts[:3000]
        began = time.perf_counter()
        found = ask(texts)
        cost = micros(began, texts)
        hits = [without_names(text, spans) for text, spans in zip(texts, found, strict=True) if spans]
        rows.append((name, len(texts), "", "", f"{len(hits)} hit", cost))
        examples += [f"    {name}: {text}" for text in hits[:6]]
    columns = ("captions", "count", "precision", "recall", "captions as they should be", "us")
    show(f"Names of persons, {entry.model} {entry.revision}", columns, rows)
    print("", *examples, sep="\n")


def micros(began: float, texts: Sequence[str]) -> str:
    return f"{1e6 * (time.perf_counter() - began) / len(texts):.0f}"


def asked_for(part: str, weights: str) -> Entry:
    """The model that a name or a directory stands for."""
    value: Any = {"weights": weights} if part == "harmful" or os.path.isdir(weights) else weights
    settings = hygiene_settings({part: value}) or HygieneSettings()
    (entry,) = settings.models
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=pathlib.Path, help="a folder with Flickr8k, MSVD and Panda-70M captions")
    parser.add_argument("--names", action="append", default=[], help="a spaCy pipeline, or a checkpoint's directory")
    parser.add_argument("--harmful", action="append", default=[], help="a classifier's directory, beside the word list")
    arguments = parser.parse_args()
    people = read_captions(arguments.captions) if arguments.captions else {}
    settings = hygiene_settings({"harmful": True, "language": True})
    assert settings and settings.language and settings.harmful
    tidying(people)
    languages(settings.language, people)
    for entry in [settings.harmful, *(asked_for("harmful", weights) for weights in arguments.harmful)]:
        harm(entry, people)
    for weights in arguments.names:
        persons(asked_for("names", weights), people)


if __name__ == "__main__":
    main()
