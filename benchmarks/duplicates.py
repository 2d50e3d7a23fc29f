"""How near are copies of a clip, and how far apart are other clips? Finds an embedder's threshold for duplicates.

    python benchmarks/duplicates.py --videos ../shared/videos --output measured.md
    python benchmarks/duplicates.py --pictures photographs.parquet       # other pictures: none may be near
    python benchmarks/duplicates.py --scale 100000 --dimensions 1280     # how long the search takes

Copies are made by encoding real clips anew: smaller, coarser, slower, cropped, brighter, with a logo, trimmed, between
black bars. The threshold is chosen on every second clip and checked on the others, and on shots of films, which no
threshold was chosen on. A clip is embedded as the pipeline does it: the mean of its first and last boundary frame.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import pathlib
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
from calibrate_embedder import FIRST, LAST, _at, _unit, embed, frame_count, frames_of
from PIL import Image

from model_handlers import catalogue
from transforms.media import open_media
from transforms.neighbours import Clusters

#: Frames of a clip that are encoded, from all of its length; as large as a reel's.
MOST_FRAMES, SHORT_SIDE = 100, 448
THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
QUANTILES = (0.0, 0.01, 0.05, 0.5, 0.95, 0.99, 1.0)
Frames = list[np.ndarray]


def resized(frame: np.ndarray, short_side: int) -> np.ndarray:
    scale = short_side / min(frame.shape[:2])
    size = (2 * round(frame.shape[1] * scale / 2), 2 * round(frame.shape[0] * scale / 2))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))


def cropped(frame: np.ndarray) -> np.ndarray:
    """5 % off each side."""
    height, width = frame.shape[:2]
    return frame[height // 20 : height - height // 20, width // 20 : width - width // 20]


def with_logo(frame: np.ndarray) -> np.ndarray:
    """A white box of a tenth of the width in a corner."""
    marked, (height, width) = frame.copy(), frame.shape[:2]
    marked[height // 20 : height // 20 + height // 12, width - width // 8 : width - width // 40] = 240
    return marked


def letterboxed(frame: np.ndarray) -> np.ndarray:
    """Black bars of an eighth of the height above and below."""
    bar = np.zeros((frame.shape[0] // 8, frame.shape[1], 3), np.uint8)
    return np.concatenate([bar, frame, bar])


def brighter(frame: np.ndarray) -> np.ndarray:
    return np.clip(frame.astype(np.float32) * 1.1 + 12, 0, 255).astype(np.uint8)


#: What is done to each frame, at which quality it is encoded, and which frames are taken.
COPIES: Mapping[str, tuple[Callable[[np.ndarray], np.ndarray], int, Callable[[Frames, float], Frames]]] = {
    "same size, crf 23": (lambda frame: frame, 23, lambda frames, fps: frames),
    "240 lines, crf 28": (lambda frame: resized(frame, 240), 28, lambda frames, fps: frames),
    "crf 38": (lambda frame: frame, 38, lambda frames, fps: frames),
    "half the frames": (lambda frame: frame, 23, lambda frames, fps: frames[::2]),
    "0.5 s trimmed": (lambda frame: frame, 23, lambda frames, fps: frames[round(fps / 2) : -max(1, round(fps / 2))]),
    "brighter": (brighter, 23, lambda frames, fps: frames),
    "logo": (with_logo, 23, lambda frames, fps: frames),
    "cropped by 5 %": (cropped, 23, lambda frames, fps: frames),
    "letterboxed": (letterboxed, 23, lambda frames, fps: frames),
    "mirrored": (lambda frame: frame[:, ::-1], 23, lambda frames, fps: frames),
}


def read_clip(path: pathlib.Path) -> tuple[Frames, float]:
    """Frames over the whole length of a clip, and how many of them there are a second."""
    step = max(1, -(-frame_count(path) // MOST_FRAMES))
    with open_media(str(path)) as media:
        frames = [
            resized(np.ascontiguousarray(picture.bgr()[..., ::-1]), SHORT_SIDE)
            for picture in media.pictures()
            if picture.index % step == 0
        ]
        return frames, media.fps / step


def write_clip(path: pathlib.Path, frames: Frames, crf: int) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": str(crf)})
        height, width = (side - side % 2 for side in frames[0].shape[:2])
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), "rgb24")
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))


def boundary(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """The two frames that the embedder sees."""
    count = frame_count(path)
    first, last = _at(0, count, FIRST), _at(0, count, LAST)
    found = frames_of(path, [first, last])
    return found[first], found[last]


def vectors(handler: object, pairs: Sequence[tuple[np.ndarray, np.ndarray]], folder: pathlib.Path) -> np.ndarray:
    first, last = embed(handler, pairs, folder)
    return _unit(first + last)


def measure(
    embedder: str, videos: pathlib.Path, limit: int | None
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """The embeddings of the clips, of each kind of copy of them, and of the shots of films."""
    handler = catalogue.embedder(embedder).build()
    with tempfile.TemporaryDirectory() as scratch:
        reels, copy = pathlib.Path(scratch) / "reels", pathlib.Path(scratch) / "copy.mp4"
        reels.mkdir()
        originals, copies = [], {kind: [] for kind in COPIES}
        for path in sorted((videos / "panda70m").glob("*.mp4"))[:limit]:
            frames, fps = read_clip(path)
            if len(frames) < 2.5 * fps:
                continue
            # The same frames that the copies are made of.
            write_clip(copy, frames, 12)
            originals.append(boundary(copy))
            for kind, (change, crf, take) in COPIES.items():
                write_clip(copy, [change(frame) for frame in take(frames, fps)], crf)
                copies[kind].append(boundary(copy))
        shots = []
        for name, film in json.loads((videos / "reference_cuts.json").read_text("utf-8")).items():
            if isinstance(film, dict) and "cuts" in film:
                edges = [0, *film["cuts"], film["frames"]]
                spans = [(start, end) for start, end in itertools.pairwise(edges) if end - start >= 25]
                ends = [(_at(*span, FIRST), _at(*span, LAST)) for span in spans]
                found = frames_of(videos / name, [index for pair in ends for index in pair])
                shots += [(found[first], found[last]) for first, last in ends]
        return (
            vectors(handler, originals, reels),
            {kind: vectors(handler, pairs, reels) for kind, pairs in copies.items()},
            vectors(handler, shots, reels),
        )


def pictures(embedder: str, path: pathlib.Path, count: int) -> np.ndarray:
    """The embeddings of photographs, each a clip that does not move: none is a copy of another."""
    rows = next(pq.ParquetFile(path).iter_batches(count)).to_pylist()
    shown = [np.asarray(Image.open(io.BytesIO(_bytes(row))).convert("RGB")) for row in rows]
    with tempfile.TemporaryDirectory() as scratch:
        return vectors(catalogue.embedder(embedder).build(), [(one, one) for one in shown], pathlib.Path(scratch))


def _bytes(row: Mapping[str, Any]) -> bytes:
    """The picture in a row, whatever its column is called."""
    flat = [part for value in row.values() for part in (value.values() if isinstance(value, dict) else [value])]
    return next(value for value in flat if isinstance(value, bytes))


def apart(found: np.ndarray) -> np.ndarray:
    """The distances of all pairs."""
    one, other = np.triu_indices(len(found), 1)
    return np.linalg.norm(found[one] - found[other], axis=1)


def report(name: str, clips: np.ndarray, copies: Mapping[str, np.ndarray], shots: np.ndarray) -> str:
    """All that was measured, as Markdown."""
    near = {kind: np.linalg.norm(clips - found, axis=1) for kind, found in copies.items()}
    lines = [f"# Copies and other clips by the embedder `{name}`", ""]
    lines += [f"{len(clips)} clips, {len(COPIES)} kinds of copies, {len(shots)} shots of films.", ""]
    lines += ["| pairs | number | " + " | ".join(f"{100 * q:g} %" for q in QUANTILES) + " |"]
    lines += ["|---|---:|" + "---:|" * len(QUANTILES)]
    for kind, values in [*near.items(), ("other clips", apart(clips)), ("shots of films", apart(shots))]:
        quantiles = " | ".join(f"{value:.3f}" for value in np.quantile(values, QUANTILES))
        lines.append(f"| {kind} | {len(values)} | {quantiles} |")
    for half, title in ((0, "every second clip, to choose on"), (1, "the others, to check with")):
        same = np.concatenate([values[half::2] for values in near.values()])
        different = apart(clips[half::2])
        lines += ["", f"## {title.capitalize()}", "", "| threshold | recall | precision | false pairs | of |"]
        lines += ["|---:|---:|---:|---:|---:|"]
        for limit in THRESHOLDS:
            hits, false = int((same < limit).sum()), int((different < limit).sum())
            precision = f"{hits / (hits + false):.3f}" if hits + false else "-"
            lines.append(f"| {limit:g} | {hits / len(same):.3f} | {precision} | {false} | {len(different)} |")
    lines += ["", "## Recall by kind of copy", "", "| copy | " + " | ".join(f"{one:g}" for one in THRESHOLDS) + " |"]
    lines += ["|---|" + "---:|" * len(THRESHOLDS)]
    for kind, values in near.items():
        lines.append(f"| {kind} | " + " | ".join(f"{(values < one).mean():.2f}" for one in THRESHOLDS) + " |")
    films = " | ".join(f"{int((apart(shots) < one).sum())}" for one in THRESHOLDS)
    lines.append(f"| shots of films that count as copies of each other (of {len(apart(shots))} pairs) | {films} |")
    return "\n".join(lines) + "\n"


def made_up(count: int, dimensions: int, seed: int) -> np.ndarray:
    """Unit vectors round so many centres as footage has scenes, with a spectrum like an image network's."""
    draw = np.random.default_rng(seed)
    spectrum = (1.0 / np.sqrt(np.arange(1, dimensions + 1))).astype(np.float32)
    found = np.abs(draw.standard_normal((count, dimensions), dtype=np.float32)) * spectrum
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def scale(count: int, dimensions: int, threshold: float, news: int) -> str:
    """How long the search takes over so many vectors, of which each twentieth is a copy of one before it."""
    clusters, began = Clusters(threshold), time.monotonic()
    draw, last = np.random.default_rng(1), np.empty((0, dimensions), np.float32)
    for start in range(0, count, 10_000):
        found = made_up(min(10_000, count - start), dimensions, start)
        if len(last):
            found[::20] = last[::20][: len(found[::20])] + draw.standard_normal((1, dimensions), np.float32) * 1e-4
        last = found
        clusters.add(found, np.arange(start, start + len(found)))
    filled, began = time.monotonic() - began, time.monotonic()
    clusters.join()
    joined, began = time.monotonic() - began, time.monotonic()
    clusters.add(made_up(news, dimensions, 77), np.arange(count, count + news))
    clusters.join()
    more = time.monotonic() - began
    duplicates = len(clusters) - len(np.unique(clusters.labels))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    clusters.close()
    return (
        f"{count} vectors of {dimensions}: {filled:.1f} s to fill, {joined:.1f} s for all pairs, "
        f"{more:.2f} s for {news} more; {duplicates} duplicates, at most {peak:.0f} MiB resident"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure how near copies of clips are.")
    parser.add_argument("--embedder", default="efficientnet-lite0", help="a name of the catalogue")
    parser.add_argument("--videos", type=pathlib.Path, help="folder with panda70m/ and reference_cuts.json")
    parser.add_argument("--limit", type=int, help="use so many clips of panda70m/ only")
    parser.add_argument("--output", type=pathlib.Path, help="also write the Markdown here")
    parser.add_argument("--pictures", type=pathlib.Path, help="a Parquet file of photographs: compare these instead")
    parser.add_argument("--count", type=int, default=1000, help="so many of them")
    parser.add_argument("--scale", type=int, help="search so many made-up vectors instead")
    parser.add_argument("--dimensions", type=int, default=1280)
    parser.add_argument("--threshold", type=float, default=0.2)
    parser.add_argument("--news", type=int, default=1000)
    options = parser.parse_args(arguments)
    if options.scale:
        print(scale(options.scale, options.dimensions, options.threshold, options.news))
        return 0
    if options.pictures:
        near = np.sort(apart(pictures(options.embedder, options.pictures, options.count)))
        counts = ", ".join(f"{int((near < one).sum())} below {one:g}" for one in THRESHOLDS)
        print(f"{len(near)} pairs of other photographs, the nearest {np.round(near[:8], 3).tolist()}: {counts}")
        return 0
    told = report(options.embedder, *measure(options.embedder, options.videos, options.limit))
    print(told)
    if options.output:
        options.output.write_text(told, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
