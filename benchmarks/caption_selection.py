"""Does the selector choose better captions than chance? Against human references, with a control.

    python benchmarks/caption_selection.py --dataset DIR --captions REFERENCES.json
    python benchmarks/caption_selection.py --videos VIDEOS --captions REFERENCES.json

The first reads `clips/*.parquet` as `reelscribe curate` wrote them, the second splits and captions the videos itself,
one clip each. References are a list of `{"file", "caption"}`, or a film's truth `{"fps", "shots": [{"start", "end",
"caption"}]}` beside a film of the same name; the option can be given several times. Similarity to the reference is
measured twice: by the sentence encoder (which the lite selector uses too, so it is a judge of its own cause) and by the
words both share, which no model has a say in.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow.parquet as pq

from model_handlers import catalogue
from model_handlers.sentences import load_sentences
from transforms.detection import SplittingConfig
from transforms.records import Candidate, CaptionedClip, Clip, Span, Video
from transforms.splitting import split_of, split_video

RESAMPLES = 10_000
PERMUTATIONS = 1_000
SEED = 70_000_000
TRIM = 0.1
_STOP_WORDS = """
    a an the this that these those there it its is are was be been being am of in on at to into onto from for with by
    and or but as up down out over under off near while who which what some any each most can may might could will
    has have had do does did not no he she they them their his her him we you i one two very perhaps possibly probably
    looks look like seen part hard say picture clip video
"""
_STOP = frozenset(_STOP_WORDS.split())


@dataclasses.dataclass(frozen=True)
class Reference:
    """What a person wrote about a stretch of a file."""

    file: str
    span: Span
    caption: str


@dataclasses.dataclass(frozen=True)
class Case:
    """One clip: its reference, every candidate by teacher, the selector's scores, and the chosen one."""

    reference: str
    candidates: Mapping[str, str]
    scores: Mapping[str, float]

    @property
    def ranking(self) -> list[str]:
        return sorted(self.candidates, key=lambda teacher: -self.scores[teacher])


def read_references(paths: Iterable[pathlib.Path]) -> list[Reference]:
    """The references of either form."""
    found = []
    for path in paths:
        content = json.loads(path.read_text("utf-8"))
        if isinstance(content, list):
            found += [Reference(row["file"], Span(0.0, float("inf")), row["caption"].strip('"')) for row in content]
            continue
        for shot in content.get("shots") or content["events"]:
            span = Span(shot["start"] / content["fps"], shot["end"] / content["fps"])
            found.append(Reference(path.with_suffix(".mp4").name, span, shot["caption"].strip('"')))
    return found


def cases_of_dataset(dataset: pathlib.Path, references: Sequence[Reference]) -> Iterator[Case]:
    """Every clip of a dataset that overlaps a reference for more than half its length."""
    for path in sorted((dataset / "clips").glob("*.parquet")):
        columns = ["uri", "start_s", "end_s", "captions"]
        for row in pq.read_table(path, columns=columns).to_pylist():
            name, length = pathlib.PurePosixPath(row["uri"]).name, row["end_s"] - row["start_s"]
            for reference in references:
                shared = min(row["end_s"], reference.span.end_s) - max(row["start_s"], reference.span.start_s)
                if reference.file == name and shared > length / 2:
                    captions = {each["teacher"]: each["caption"] for each in row["captions"]}
                    scores = {each["teacher"]: each["matching_score"] for each in row["captions"]}
                    yield Case(reference.caption, captions, scores)


def cases_of_videos(videos: pathlib.Path, references: Sequence[Reference], seconds: list[float]) -> Iterator[Case]:
    """Caption each referenced stretch with the teachers that need no text, and score it; times go to `seconds`."""
    entries = [
        entry for entry in catalogue.TEACHERS.values() if entry.name.startswith("lite-") and not entry.needs_text
    ]
    teachers = [(entry, entry.build()) for entry in entries]
    selector = catalogue.selector("conse").build()
    model = selector.load_model()
    with tempfile.TemporaryDirectory() as scratch:
        reels: dict[str, tuple] = {}
        for number, reference in enumerate(references):
            if reference.file not in reels:
                reel = str(pathlib.Path(scratch) / f"{number}.arrow")
                summary = split_video(str(videos / reference.file), reel, SplittingConfig(), etag="benchmark")
                video = Video(f"v{number}", reference.file, "benchmark", 0)
                reels[reference.file] = (video, split_of(video, reel, summary))
            video, split = reels[reference.file]
            end_s = min(reference.span.end_s, split.shots[-1].end_s)
            trimmed = TRIM * (end_s - reference.span.start_s)
            span = Span(reference.span.start_s + trimmed, end_s - trimmed)
            clip = Clip(f"c{number}", video.video_id, video.uri, span, (span,), split.media, split.reel, "benchmark")
            began = time.perf_counter()
            candidates = []
            for entry, handler in teachers:
                (told,) = handler.run_inference([clip], model)
                if told.answer is None:
                    raise RuntimeError(f"{entry.name} failed on {reference.file}: {told.failure}")
                candidates.append(Candidate(entry.name, entry.model, entry.revision, entry.prompt_id, told.answer, ""))
            (judged,) = selector.run_inference([CaptionedClip(clip, tuple(candidates), (), ())], model)
            if judged.answer is None:
                raise RuntimeError(f"the selector failed on {reference.file}: {judged.failure}")
            seconds.append(time.perf_counter() - began)
            names = [candidate.teacher for candidate in candidates]
            texts = dict(zip(names, (candidate.text for candidate in candidates), strict=True))
            yield Case(reference.caption, texts, dict(zip(names, judged.answer, strict=True)))


def content_words(text: str) -> frozenset[str]:
    """The words that carry content, without a plural or verbal s."""
    found = (word for word in re.findall(r"[a-z]+", text.lower()) if word not in _STOP)
    return frozenset(word[:-1] if len(word) > 3 and word.endswith("s") else word for word in found)


def shared_words(one: str, other: str) -> float:
    """F1 of the content words of two texts."""
    a, b = content_words(one), content_words(other)
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 0.0


def similarities(cases: Sequence[Case]) -> dict[str, list[np.ndarray]]:
    """Per measure, one matrix a clip: (references of all clips, candidates of this one)."""
    encoder = load_sentences()
    vectors = encoder.encode([case.reference for case in cases])
    meaning = [vectors @ encoder.encode(list(case.candidates.values())).T for case in cases]
    words = [
        np.array([[shared_words(other.reference, text) for text in case.candidates.values()] for other in cases])
        for case in cases
    ]
    return {"sentence vectors (MiniLM)": meaning, "content words (F1)": words}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One measure's means over the clips, and what chance makes of them.

    `duels` counts the clips whose chosen caption is nearer to the reference than the runner-up, as near, farther.
    """

    chosen: float
    random: float
    runner_up: float
    oracle: float
    duels: tuple[int, int, int]
    gain: float
    low: float
    high: float
    control_mean: float
    control_p: float
    teachers: Mapping[str, float]


def judge(cases: Sequence[Case], matrices: Sequence[np.ndarray]) -> Verdict:
    """Compare the chosen candidate with a random one.

    The interval is a paired bootstrap over clips. The control gives every clip another clip's reference: the gain that
    is left then is what the chosen captions' style earns anywhere; `control_p` is how often it reaches the real gain.
    """
    draw = np.random.default_rng(SEED)
    count = len(cases)
    places = [[list(case.candidates).index(teacher) for teacher in case.ranking[:2]] for case in cases]
    # gains[i, j]: clip i's gain if it were judged by clip j's reference.
    gains = np.stack(
        [matrix[:, place[0]] - matrix.mean(axis=1) for matrix, place in zip(matrices, places, strict=True)]
    )
    own = np.diag(gains)
    resampled = own[draw.integers(0, count, (RESAMPLES, count))].mean(axis=1)
    control = np.array([gains[np.arange(count), draw.permutation(count)].mean() for _ in range(PERMUTATIONS)])
    rows = [matrix[at] for at, matrix in enumerate(matrices)]
    leads = np.array([row[place[0]] - row[place[-1]] for row, place in zip(rows, places, strict=True)])
    by_teacher: dict[str, list[float]] = {}
    for case, row in zip(cases, rows, strict=True):
        for teacher, value in zip(case.candidates, row, strict=True):
            by_teacher.setdefault(teacher, []).append(float(value))
    return Verdict(
        chosen=float(np.mean([row[place[0]] for row, place in zip(rows, places, strict=True)])),
        random=float(np.mean([row.mean() for row in rows])),
        runner_up=float(np.mean([row[place[-1]] for row, place in zip(rows, places, strict=True)])),
        oracle=float(np.mean([row.max() for row in rows])),
        duels=(int((leads > 0).sum()), int((leads == 0).sum()), int((leads < 0).sum())),
        gain=float(own.mean()),
        low=float(np.quantile(resampled, 0.025)),
        high=float(np.quantile(resampled, 0.975)),
        control_mean=float(control.mean()),
        control_p=float((1 + (control >= own.mean()).sum()) / (1 + PERMUTATIONS)),
        teachers={teacher: float(np.mean(values)) for teacher, values in by_teacher.items()},
    )


def table(cases: Sequence[Case], verdicts: Mapping[str, Verdict]) -> str:
    """The result as Markdown."""
    names = list(verdicts)
    lines = [f"{len(cases)} clips", "", "| similarity to the reference | " + " | ".join(names) + " |"]
    lines += ["|---|" + "---:|" * len(names)]

    def row(title: str, cells: Iterable[str]) -> str:
        return f"| {title} | " + " | ".join(cells) + " |"

    for title in ("chosen", "random", "runner_up", "oracle"):
        lines.append(row(title.replace("_", "-"), (f"{getattr(verdicts[name], title):.3f}" for name in names)))
    for teacher in next(iter(verdicts.values())).teachers:
        chosen = sum(case.ranking[0] == teacher for case in cases)
        cells = (f"{verdicts[name].teachers[teacher]:.3f}" for name in names)
        lines.append(row(f"{teacher} (chosen {chosen} times)", cells))
    duels = ("{} / {} / {}".format(*verdict.duels) for verdict in verdicts.values())
    lines.append(row("clips whose choice is nearer than the runner-up / as near / farther", duels))
    intervals = (f"**{v.gain:+.3f}** [{v.low:+.3f}, {v.high:+.3f}]" for v in verdicts.values())
    lines.append(row("chosen - random, 95 % interval", intervals))
    controls = (f"{v.control_mean:+.3f}, p = {v.control_p:.3f}" for v in verdicts.values())
    lines.append(row("control: the gain with references shuffled", controls))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare chosen captions with human references.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--dataset", type=pathlib.Path, help="a dataset that `reelscribe curate` wrote")
    source.add_argument("--videos", type=pathlib.Path, help="a folder of the referenced videos")
    parser.add_argument("--captions", type=pathlib.Path, action="append", required=True, help="references, JSON")
    parser.add_argument("--limit", type=int, help="the first so many references only")
    options = parser.parse_args(arguments)
    references = read_references(options.captions)[: options.limit]
    seconds: list[float] = []
    if options.dataset:
        cases = list(cases_of_dataset(options.dataset, references))
    else:
        cases = list(cases_of_videos(options.videos, references, seconds))
    if len(cases) < 2:
        parser.error("fewer than two clips have a reference; do the file names agree?")
    verdicts = {name: judge(cases, matrices) for name, matrices in similarities(cases).items()}
    print(table(cases, verdicts))
    if seconds:
        print(f"\n{1000 * float(np.median(seconds)):.0f} ms a clip (median) through all teachers and the selector")
    return 0 if all(verdict.low > 0 for verdict in verdicts.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
