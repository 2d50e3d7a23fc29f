"""Calibrate an embedder's thresholds on real footage: which distances are a cut, a jump cut, a still, a repeat.

    python benchmarks/calibrate_embedder.py --embedder efficientnet-lite0 --videos VIDEOS

`VIDEOS` holds `panda70m/*.mp4` (clips of one shot each), `built/` with `panda_concat24` (24 different clips joined by
hard cuts) and `panda_jump24` (24 clips with a piece cut out of each), both .mp4 with their truth as .json, and
`reference_cuts.json` (file: first frames of new shots). Every kind of pair is put before the embedder as the two
boundary frames of a shot, as the pipeline does it.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import itertools
import json
import pathlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from model_handlers import catalogue
from model_handlers.base import ElementwiseHandler
from model_handlers.catalogue import Thresholds
from transforms.media import open_media
from transforms.records import EmbedRequest, Shot
from transforms.reel import ReelFrame, ReelWriter

#: Where a shot's boundary frames are (Panda-70M's code: 5 % and 95 %).
FIRST, LAST = 0.05, 0.95
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
SEED = 20240
Pair = tuple[np.ndarray, np.ndarray]
KINDS = {
    "still": "one frame against itself, with faint noise, a shift of up to a pixel and another JPEG quality",
    "within": "first and last frame of one shot",
    "jump": "last and first frame on both sides of a jump cut inside one clip",
    "cut": "last and first frame on both sides of a true cut between two clips",
    "film": "last and first frame on both sides of a true cut inside one film, often within one scene",
    "repeat": "mean of a clip against the mean of the same clip at other instants, re-encoded with noise",
    "other": "mean of a clip against the mean of a clip of another video",
}


def frames_of(path: pathlib.Path, wanted: Iterable[int]) -> dict[int, np.ndarray]:
    """The RGB frames of a video at these decode indices, short side at most 448 pixels as in a reel."""
    left, found = set(wanted), {}
    with open_media(str(path)) as media:
        for picture in media.pictures():
            if picture.index in left:
                found[picture.index] = _small(picture.bgr()[..., ::-1])
                left.discard(picture.index)
                if not left:
                    break
    return found


def frame_count(path: pathlib.Path) -> int:
    with open_media(str(path)) as media:
        return sum(1 for _ in media.pictures())


def disturbed(frame: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """The same picture as another encoding would show it."""
    moved = np.roll(frame, draw.integers(-1, 2, size=2), axis=(0, 1)).astype(np.float32)
    noisy = np.clip(moved + draw.normal(0, 2, frame.shape), 0, 255).astype(np.uint8)
    return np.asarray(Image.open(io.BytesIO(_jpeg(noisy, int(draw.integers(75, 95))))))


def distances(handler: ElementwiseHandler, pairs: Sequence[Pair], folder: pathlib.Path) -> np.ndarray:
    """The distance the embedder gives each pair."""
    first, last = embed(handler, pairs, folder)
    return np.linalg.norm(first - last, axis=1)


def embed(handler: ElementwiseHandler, pairs: Sequence[Pair], folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """The unit vectors of both sides of each pair, asked for through a reel."""
    path = folder / f"{len(list(folder.iterdir()))}.arrow"
    with ReelWriter(str(path), etag="calibration", settings="pairs") as reel:
        for number, pair in enumerate(pairs):
            for side, frame in enumerate(pair):
                at = 2 * number + side
                reel.add(ReelFrame(time_s=float(at), frame=at, shot=number, jpeg=_jpeg(frame, 90)))
        reel.finish({})
    shots = [Shot(n, 2 * n, 2 * n + 2, 2.0 * n, 2.0 * n + 2, 2.0 * n, 2.0 * n + 1) for n in range(len(pairs))]
    requests = [EmbedRequest("calibration", shot, str(path)) for shot in shots]
    model = handler.load_model()
    outcomes = [
        outcome for at in range(0, len(requests), 8) for outcome in handler.run_inference(requests[at : at + 8], model)
    ]
    for outcome in outcomes:
        if outcome.answer is None:
            raise RuntimeError(f"the embedder failed: {outcome.failure}")
    sides = np.array([outcome.answer for outcome in outcomes])
    return sides[:, 0], sides[:, 1]


def measure(handler: ElementwiseHandler, videos: pathlib.Path, limit: int | None = None) -> dict[str, np.ndarray]:
    """The distances of every kind of pair (see KINDS)."""
    draw = np.random.default_rng(SEED)
    clips: list[list[np.ndarray]] = []
    for path in sorted((videos / "panda70m").glob("*.mp4"))[:limit]:
        count = frame_count(path)
        at = [min(count - 1, int(part * count)) for part in (FIRST, 0.15, 0.5, 0.85, LAST)]
        found = frames_of(path, at)
        if all(index in found for index in at):
            clips.append([found[index] for index in at])
    if len(clips) < 2:
        raise SystemExit(f"{videos}/panda70m needs at least two clips to calibrate with")
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        found_distances = {
            "still": distances(handler, [(clip[2], disturbed(clip[2], draw)) for clip in clips], folder),
            "within": distances(handler, [(clip[0], clip[4]) for clip in clips], folder),
            "jump": distances(handler, _jumps(videos / "built/panda_jump24"), folder),
            "cut": distances(handler, _cuts(videos / "built/panda_concat24"), folder),
            "film": distances(handler, _film_cuts(videos / "reference_cuts.json"), folder),
        }
        first, last = embed(handler, [(clip[0], clip[4]) for clip in clips], folder)
        again = embed(handler, [(disturbed(clip[1], draw), disturbed(clip[3], draw)) for clip in clips], folder)
    means, repeats = _unit(first + last), _unit(again[0] + again[1])
    found_distances["repeat"] = np.linalg.norm(means - repeats, axis=1)
    upper = np.triu_indices(len(means), 1)
    found_distances["other"] = np.linalg.norm(means[upper[0]] - means[upper[1]], axis=1)
    return found_distances


def _cuts(stem: pathlib.Path) -> list[Pair]:
    shots = json.loads(stem.with_suffix(".json").read_text("utf-8"))["shots"]
    sides = [(_at(a["start"], a["end"], LAST), _at(b["start"], b["end"], FIRST)) for a, b in itertools.pairwise(shots)]
    return _pairs(stem.with_suffix(".mp4"), sides)


def _film_cuts(truth: pathlib.Path) -> list[Pair]:
    pairs = []
    for name, film in json.loads(truth.read_text("utf-8")).items():
        if not isinstance(film, dict) or "cuts" not in film:
            continue
        edges = [0, *film["cuts"], film["frames"]]
        shots = list(itertools.pairwise(edges))
        sides = [(_at(*a, LAST), _at(*b, FIRST)) for a, b in itertools.pairwise(shots)]
        pairs += _pairs(truth.parent / name, sides)
    return pairs


def _jumps(stem: pathlib.Path) -> list[Pair]:
    events = json.loads(stem.with_suffix(".json").read_text("utf-8"))["events"]
    sides = [(_at(e["start"], e["cut"], LAST), _at(e["cut"], e["end"], FIRST)) for e in events]
    return _pairs(stem.with_suffix(".mp4"), sides)


def _at(start: int, end: int, part: float) -> int:
    return min(end - 1, start + int(part * (end - start)))


def _pairs(path: pathlib.Path, sides: Sequence[tuple[int, int]]) -> list[Pair]:
    frames = frames_of(path, [index for pair in sides for index in pair])
    return [(frames[before], frames[after]) for before, after in sides]


@dataclasses.dataclass(frozen=True)
class Point:
    """A threshold, with the reason for it in words."""

    value: float
    why: str


def auc(low: np.ndarray, high: np.ndarray) -> float:
    """The chance that a pair of `high` lies farther apart than one of `low`, ties counting half."""
    less = np.searchsorted(np.sort(low), high, side="left") + np.searchsorted(np.sort(low), high, side="right")
    return float(less.mean() / (2 * len(low)))


def best_split(low: np.ndarray, high: np.ndarray) -> float:
    """The threshold t with the most of `low` <= t and of `high` > t, each kind counting the same."""
    edges = np.unique(np.concatenate([low, high]))
    middles = (edges[:-1] + edges[1:]) / 2
    gains = [(low <= middle).mean() + (high > middle).mean() for middle in middles]
    top = np.flatnonzero(np.isclose(gains, max(gains)))
    # Of equally good ones the middle: no pair of this sample decides where exactly it lies.
    return float((middles[top[0]] + middles[top[-1]]) / 2)


def operating_points(found: Mapping[str, np.ndarray]) -> dict[str, Point]:
    """The four thresholds, rounded to hundredths, and why."""
    stitch = round(best_split(found["jump"], np.concatenate([found["cut"], found["film"]])), 2)
    transition = round(max(float(np.quantile(found["within"], 0.98)), stitch), 2)
    still = round(min(float(np.quantile(found["still"], 0.95)), float(np.quantile(found["within"], 0.02))), 2)
    redundant = round(min(float(np.quantile(found["repeat"], 0.95)), float(np.quantile(found["other"], 0.002))), 2)

    def share(kind: str, limit: float) -> str:
        return f"{100 * float((found[kind] <= limit).mean()):.1f} %"

    return {
        "transition": Point(
            transition,
            f"keeps 98 % of the shots; {share('cut', transition)} of shots that hid a whole cut would pass",
        ),
        "stitch": Point(
            stitch,
            f"best split of jump cuts and true cuts; joins {share('jump', stitch)} of the jump cuts, "
            f"{share('cut', stitch)} of cuts between clips, {share('film', stitch)} of cuts inside a film",
        ),
        "still": Point(
            still,
            f"the lower of 95 % of the stills and 2 % of real shots; drops {share('still', still)} of the stills, "
            f"{share('within', still)} of real shots",
        ),
        "redundant": Point(
            redundant,
            f"the lower of 95 % of the repeats and 0.2 % of the others; drops {share('repeat', redundant)} of repeats, "
            f"{share('other', redundant)} of other clips",
        ),
    }


def tables(name: str, found: Mapping[str, np.ndarray]) -> str:
    """The whole calibration as Markdown."""
    lines = [f"# Calibration of the embedder `{name}`", ""]
    lines += [f"Written by `python benchmarks/calibrate_embedder.py --embedder {name} --videos DIR`.", ""]
    lines += ["Distances are Euclidean between unit vectors.", "", "## What was measured", ""]
    lines += ["| kind | pairs | " + " | ".join(f"{100 * q:g} %" for q in QUANTILES) + " |"]
    lines += ["|---|---:|" + "---:|" * len(QUANTILES)]
    for kind, values in found.items():
        quantiles = " | ".join(f"{value:.3f}" for value in np.quantile(values, QUANTILES))
        lines.append(f"| {kind} | {len(values)} | {quantiles} |")
    lines += ["", *(f"- **{kind}**: {meaning}" for kind, meaning in KINDS.items()), "", "## How well they part", ""]
    lines += ["| nearer | farther | AUC |", "|---|---|---:|"]
    for low, high in (("jump", "cut"), ("jump", "film"), ("within", "cut"), ("still", "within"), ("repeat", "other")):
        lines.append(f"| {low} | {high} | {auc(found[low], found[high]):.3f} |")
    lines += ["", "## Operating points", "", "| threshold | value | why |", "|---|---:|---|"]
    lines += [f"| {rule} | {point.value:.2f} | {point.why} |" for rule, point in operating_points(found).items()]
    return "\n".join(lines) + "\n"


def _small(frame: np.ndarray) -> np.ndarray:
    scale = 448 / min(frame.shape[:2])
    if scale >= 1:
        return np.ascontiguousarray(frame)
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize(size, Image.Resampling.BILINEAR))


def _jpeg(frame: np.ndarray, quality: int) -> bytes:
    kept = io.BytesIO()
    Image.fromarray(frame).save(kept, "JPEG", quality=quality)
    return kept.getvalue()


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Calibrate an embedder's thresholds on real footage.")
    parser.add_argument("--embedder", default="efficientnet-lite0", help="a name of the catalogue")
    parser.add_argument("--videos", required=True, type=pathlib.Path, help="folder with panda70m/ and built/")
    parser.add_argument("--limit", type=int, help="use so many clips of panda70m/ only")
    parser.add_argument("--output", type=pathlib.Path, help="also write the Markdown here (docs/calibration.md)")
    options = parser.parse_args(arguments)
    entry = catalogue.embedder(options.embedder)
    found = measure(entry.build(), options.videos, options.limit)
    report = tables(entry.name, found)
    print(report)
    chosen = Thresholds(**{rule: point.value for rule, point in operating_points(found).items()})
    print(f"{chosen}; the catalogue says {entry.thresholds}")
    if options.output:
        options.output.write_text(report, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
