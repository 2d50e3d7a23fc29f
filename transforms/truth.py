"""Ground truth of shot boundaries, in the formats that people have it in.

    truths = read_truth("clipshots.json")                  # or a folder, .npz, .txt
    truth = truth_of(truths, "/videos/a.mp4")              # None: nothing is known of this video

Whatever the format, a boundary becomes a `Transition`: the last frame of the old shot and the first of the new one, as
decode indices from 0. On a variable frame rate these are not PySceneDetect's frame numbers, which it derives from time.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

SUFFIXES = (".json", ".npz", ".txt", ".csv", ".tsv")

#: The largest known file of the kind, ClipShots' training set, has 8 MB.
MAX_BYTES = 256 << 20

#: Keys of a video's object that hold boundaries.
_KEYS = ("cuts", "dissolves", "transitions", "scenes", "events")


class TruthError(ValueError):
    """A truth file that cannot be meant: one line that says what is wrong with it."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Transition:
    """A change of shot: `before` is the old shot's last frame, `after` the new one's first; `after > before`.

    A hard cut has `after == before + 1`; the frames between the two belong to neither shot.
    """

    before: int
    after: int


@dataclasses.dataclass(frozen=True, slots=True)
class Truth:
    """The transitions of one video, in order.

    Attributes:
      name: the video, as its truth calls it: a file name with or without folders and suffix.
      frames: how many the video has, where the truth says so.
    """

    name: str
    transitions: tuple[Transition, ...]
    frames: int | None = None


def cut_at(frame: int) -> Transition:
    """The hard cut whose new shot begins with `frame`."""
    return Transition(frame - 1, frame)


def read_truth(path: str) -> tuple[Truth, ...]:
    """Read a truth file, or every such file in a folder.

    Formats:
      .json: a list of first frames of new shots; an object with `cuts` (such frames), `dissolves` (first and last mixed
        frame), `transitions` (last frame of the old shot, first of the new: ClipShots), `scenes` (first and last frame
        of each shot) or `events` (`start`, `end` exclusive, perhaps `cut`); or an object of these by video name.
      .txt, .csv, .tsv: first and last frame of a shot on each line (the BBC and RAI sets).
      .npz: `VIDEO/scenes`, an array of first and last frames (AutoShot).

    A file that names no video is the truth of the video that bears its name.

    Raises:
      TruthError: not readable, or not one of these.
    """
    file = pathlib.Path(path)
    if file.is_dir():
        found = [truth for one in sorted(file.iterdir()) if one.suffix.lower() in SUFFIXES for truth in _of_file(one)]
        if not found:
            raise TruthError(f"{path} holds no truth file ({', '.join(SUFFIXES)})")
        return tuple(found)
    return _of_file(file)


def truth_of(truths: Iterable[Truth], uri: str) -> Truth | None:
    """The truth of the video at `uri`: the one whose name agrees with most of its path, from the end.

    Raises:
      TruthError: two truths name it equally well, and differ.
    """
    best: list[Truth] = []
    agreed = 0
    for truth in truths:
        parts = _agreement(truth.name, uri)
        if parts > agreed:
            best, agreed = [truth], parts
        elif parts and parts == agreed:
            best.append(truth)
    if len({one.transitions for one in best}) > 1:
        raise TruthError(f"{len(best)} truths name {uri}: give each its folder and its suffix")
    return best[0] if best else None


def _agreement(name: str, uri: str) -> int:
    """How many parts of the path a name matches, all of its own; 0 when it is another's. A full suffix counts extra."""
    named, path = pathlib.PurePosixPath(name.replace("\\", "/")).parts, pathlib.PurePosixPath(uri).parts
    if not named or len(named) > len(path) or named[:-1] != path[len(path) - len(named) : -1]:
        return 0
    if named[-1] == path[-1]:
        return 2 * len(named)
    return 2 * len(named) - 1 if named[-1] == pathlib.PurePosixPath(path[-1]).stem else 0


def _of_file(file: pathlib.Path) -> tuple[Truth, ...]:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise TruthError(f"larger than {MAX_BYTES >> 20} MB")
        if file.suffix.lower() == ".json":
            found = tuple(_of_json(json.loads(file.read_text("utf-8-sig")), _own_name(file)))
        elif file.suffix.lower() == ".npz":
            found = tuple(_of_npz(file))
        elif file.suffix.lower() in SUFFIXES:
            found = (Truth(_own_name(file), scenes_to_transitions(_lines(file.read_text("utf-8-sig")))),)
        else:
            raise TruthError(f"its name must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    except OSError as error:
        raise TruthError(f"cannot read the truth {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError, zipfile.BadZipFile) as error:
        why = " ".join(str(error).split()) if isinstance(error, TruthError) else f"no {file.suffix[1:]}: {error}"
        raise TruthError(f"cannot use the truth {file}: {why}") from error
    if not found:
        raise TruthError(f"cannot use the truth {file}: it names no video with {', '.join(_KEYS)}")
    return found


def _own_name(file: pathlib.Path) -> str:
    """The video a file without names is about: `01_Pole-scenes.txt` belongs to `01_Pole.mp4`."""
    return re.sub(r"[-_.](scenes|shots|cuts)$", "", file.stem, flags=re.IGNORECASE)


def _of_json(read: Any, name: str) -> Iterator[Truth]:
    if isinstance(read, list):
        yield Truth(name, tuple(cut_at(frame) for frame in _ascending(read)))
        return
    if not isinstance(read, Mapping):
        raise TruthError("neither a list of frames nor an object")
    if any(isinstance(read.get(key), list) for key in _KEYS):
        yield _of_video(name, read)
        return
    for video, found in read.items():
        # Notes, and videos of which nothing is known, stand between the others.
        if isinstance(found, list):
            yield Truth(video, tuple(cut_at(frame) for frame in _ascending(found, video)))
        elif isinstance(found, Mapping) and any(key in found for key in _KEYS):
            yield _of_video(video, found)


def _of_video(name: str, found: Mapping[str, Any]) -> Truth:
    transitions = [cut_at(frame) for frame in _ascending(found.get("cuts", []), f"{name}: cuts")]
    for first, last in _pairs(found.get("dissolves", []), f"{name}: dissolves"):
        if not 0 < first <= last:
            raise TruthError(f"{name}: the dissolve [{first}, {last}] must begin after frame 0 and end after that")
        transitions.append(Transition(first - 1, last + 1))
    for pair in _pairs(found.get("transitions", []), f"{name}: transitions"):
        # ClipShots' test set has four that end where they begin, and one the wrong way round.
        transitions.append(Transition(min(pair), max(*pair, min(pair) + 1)))
    transitions += scenes_to_transitions(_pairs(found.get("scenes", []), f"{name}: scenes"))
    transitions += [cut_at(frame) for frame in _event_cuts(found.get("events", []), name)]
    frames = found.get("frames", found.get("frame_num"))
    return Truth(name, tuple(sorted(set(transitions))), None if frames is None else _frame(frames, f"{name}: frames"))


def _event_cuts(events: Any, name: str) -> Iterator[int]:
    """The frames at which a shot begins, of events that each may have a cut inside."""
    if not isinstance(events, list) or not all(isinstance(event, Mapping) for event in events):
        raise TruthError(f"{name}: events must be a list of objects with start and end")
    for number, event in enumerate(events):
        if number:
            yield _frame(event.get("start"), f"{name}: start")
        if "cut" in event:
            yield _frame(event["cut"], f"{name}: cut")


def scenes_to_transitions(scenes: Sequence[Sequence[int]]) -> tuple[Transition, ...]:
    """What lies between shots that are given by their first and last frames."""
    for first, last in scenes:
        if last < first:
            raise TruthError(f"the shot {first} to {last} ends before it begins")
    transitions = []
    for (first, last), (following, _) in itertools.pairwise(scenes):
        if last >= following:
            raise TruthError(f"the shot {first} to {last} must end before the next one begins, at {following}")
        transitions.append(Transition(int(last), int(following)))
    return tuple(transitions)


def _of_npz(file: pathlib.Path) -> Iterator[Truth]:
    # allow_pickle stays off: an array of objects would run whatever its writer liked.
    with np.load(file, allow_pickle=False) as arrays:
        for key in arrays.files:
            if not key.endswith("/scenes"):
                continue
            scenes = arrays[key]
            if scenes.ndim != 2 or scenes.shape[1] != 2 or not np.issubdtype(scenes.dtype, np.integer):
                raise TruthError(f"{key} must be whole numbers in two columns, not {scenes.dtype} {scenes.shape}")
            yield Truth(key.removesuffix("/scenes"), scenes_to_transitions(scenes.tolist()))


def _lines(text: str) -> list[tuple[int, int]]:
    scenes = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = re.split(r"[,;\s]+", line.partition("#")[0].strip())
        if words == [""]:
            continue
        if len(words) != 2 or not all(re.fullmatch(r"\d{1,12}", word) for word in words):
            raise TruthError(f"line {number} must be a shot's first and last frame, not {line.strip()[:60]!r}")
        scenes.append((int(words[0]), int(words[1])))
    if not scenes:
        raise TruthError("it holds no line")
    return scenes


def _pairs(found: Any, where: str) -> list[tuple[int, int]]:
    if not isinstance(found, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in found):
        raise TruthError(f"{where} must be a list of [first, last] frames")
    return [(_frame(first, where), _frame(last, where)) for first, last in found]


def _ascending(found: Any, where: str = "cuts") -> list[int]:
    if not isinstance(found, list):
        raise TruthError(f"{where} must be a list of frames")
    frames = sorted({_frame(frame, where) for frame in found})
    if frames and frames[0] == 0:
        raise TruthError(f"{where}: 0 is the first frame of the first shot, which is no cut; leave it out")
    return frames


def _frame(value: Any, where: str) -> int:
    whole = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12 and value == int(value)
    if not whole:
        raise TruthError(f"{where} must be frame numbers from 0 up, not {str(value)[:60]!r}")
    return int(value)
