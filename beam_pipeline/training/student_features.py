"""What the frozen image encoder says of each frame, kept on the disk: later epochs then cost no look at a picture.

    looking = Looking(model, inputs, "work/features", limit_gb=20)
    features = looking.open(clips); looking.fill(features, print)
    features.of(clip)                                    # (frames, states, width), float16

One entry a frame that is shown, so clips of one reel share them. Half precision: the states' rounding, 1 part in 1,000,
lies below that of bfloat16, in which large encoders compute anyway.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from beam_pipeline.training.scored import readable
from beam_pipeline.training.trainer import NothingReadable, TrainingError
from model_handlers.frames import OpenReel, clip_rows, exactly, open_reel
from model_handlers.student_inputs import StudentInputs
from transforms.records import Clip
from transforms.reel import ReelError

#: Frames through the image encoder at once.
AT_ONCE = 32
#: Between two lines of a long look.
TELL_EVERY_S = 30.0
_FILE, _TOLD = "features.f16", "features.json"

#: Frames, uint8 RGB, to their states, (frames, states, width).
Encode = Callable[[Sequence[np.ndarray]], np.ndarray]


#: A frame: its reel's path, from what and how that was made, and its row there.
Place = tuple[str, str, int]


class Features:
    """The states of the frames of some clips, mapped into memory; may be sent to other processes of this machine.

    Args:
      folder: where they stand. places: of each entry. shape: of an entry, (states, width).
    """

    def __init__(self, folder: str, places: Sequence[Place], frames: int, shape: tuple[int, int]):
        self._path, self._frames, self._shape = os.path.join(folder, _FILE), frames, shape
        self._places = list(places)
        self._numbers = {place: number for number, place in enumerate(self._places)}
        self._mapped: Any = None

    def __len__(self) -> int:
        return len(self._places)

    @property
    def size_bytes(self) -> int:
        """Of the whole file."""
        return len(self._places) * self._shape[0] * self._shape[1] * 2

    def of(self, clip: Clip) -> np.ndarray:
        """The states of a clip's frames, (frames, states, width), float16.

        Raises:
          ReelError: its reel could not be read when the features were made.
        """
        reel = open_reel(clip.reel)
        rows = exactly(clip_rows(reel, clip, self._frames), self._frames)
        try:
            numbers = [self._numbers[clip.reel, _version(reel), row] for row in rows]
        except KeyError as error:
            raise ReelError(f"no features of {clip.reel}, which has changed since they were kept") from error
        found = np.stack([self._map()[number] for number in numbers])
        if np.isnan(found[:, 0, 0]).any():
            raise ReelError(f"no readable reel at {clip.reel} when its features were made")
        return found

    def fill(self, encode: Encode, rank: int, of: int, tell: Callable[[str], None]) -> None:
        """Make one rank's share of the entries."""
        told = time.monotonic()
        mine = range(rank, len(self._places), of)
        mapped = self._map("r+")
        for at in range(0, len(mine), AT_ONCE):
            numbers, frames = [], []
            for number in mine[at : at + AT_ONCE]:
                reel, _, row = self._places[number]
                try:
                    frames.append(open_reel(reel).frames([row])[0])
                    numbers.append(number)
                except Exception as error:
                    if not readable(error):
                        raise
                    mapped[number] = np.nan
            if frames:
                states = encode(frames)
                if not np.isfinite(states.astype(np.float16)).all():
                    raise TrainingError(
                        "this encoder's states are too large for half precision; leave out --cache-features"
                    )
                mapped[numbers] = states
            if time.monotonic() - told >= TELL_EVERY_S:
                told = time.monotonic()
                tell(f"looked at {at + len(numbers):,} of {len(mine):,} frames")
        mapped.flush()

    def allocate(self) -> None:
        """Make room for all entries; what stood there is gone."""
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        if os.path.exists(self._told):
            os.remove(self._told)  # Or a kill meanwhile would leave what passes for the former ones.
        with open(self._path, "wb") as file:
            # A full disk is told here; a page that finds no room later ends the process without a word.
            os.posix_fallocate(file.fileno(), 0, self.size_bytes)

    def is_whole(self, key: dict[str, Any]) -> bool:
        """Whether a run that wanted the same made them all."""
        try:
            with open(self._told, encoding="utf-8") as file:
                told = json.load(file)
            return told == self._manifest(key) and os.path.getsize(self._path) == self.size_bytes
        except (OSError, ValueError):
            return False

    def finish(self, key: dict[str, Any]) -> None:
        """Say that all entries are there."""
        with open(f"{self._told}.tmp", "w", encoding="utf-8") as file:
            json.dump(self._manifest(key), file)
        os.replace(f"{self._told}.tmp", self._told)

    @property
    def _told(self) -> str:
        return os.path.join(os.path.dirname(self._path), _TOLD)

    def _manifest(self, key: dict[str, Any]) -> dict[str, Any]:
        digest = hashlib.sha256(json.dumps(self._places).encode()).hexdigest()
        return json.loads(json.dumps(key | {"frames": digest, "shape": self._shape}))

    def _map(self, mode: Any = "r") -> Any:
        if self._mapped is None or mode != "r":
            self._mapped = np.memmap(self._path, np.float16, mode, shape=(len(self._places), *self._shape))
        return self._mapped

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_mapped": None}


def places_of(clips: Iterable[Clip], frames: int) -> list[Place]:
    """The frames that clips show, each once; clips without a readable reel show none."""
    found: dict[Place, None] = {}
    for clip in clips:
        try:
            reel = open_reel(clip.reel)
        except Exception as error:
            if not readable(error):
                raise
            continue
        found |= dict.fromkeys((clip.reel, _version(reel), row) for row in clip_rows(reel, clip, frames))
    return list(found)


def _version(reel: OpenReel) -> str:
    """Of a reel that is made anew in the place of another, another one."""
    _, etag, settings, *_ = reel.key
    return f"{etag} {settings}"


class Looking:
    """The student's image encoder, as it looks at frames once for all.

    Args:
      folder: where what it says stands, for this training and for later ones of the same clips.
      limit_gb: that it may take there.

    Raises:
      TrainingError: the processes of this training are on several machines, whose folders differ.
    """

    def __init__(self, model: Any, inputs: StudentInputs, folder: str, limit_gb: float):
        all_of_them = os.environ.get("WORLD_SIZE", "1")
        if os.environ.get("LOCAL_WORLD_SIZE", all_of_them) != all_of_them:
            raise TrainingError("--cache-features is for one machine; leave it out on several")
        self._model, self._folder, self._limit_gb = model, folder, limit_gb
        self._frames = inputs.reading.frames
        self._inputs = StudentInputs(inputs.tokenizer, dataclasses.replace(inputs.reading, frames=1))

    def open(self, clips: Iterable[Clip]) -> Features:
        """Where the features of these clips' frames stand, or will.

        Raises:
          NothingReadable: no clip's reel can be read. TrainingError: they take more than the limit.
        """
        places = places_of(clips, self._frames)
        if not places:
            raise NothingReadable("no clip's reel can be read; run curate again")
        states = self._encode([np.zeros((8, 8, 3), np.uint8)])
        features = Features(self._folder, places, self._frames, (states.shape[1], states.shape[2]))
        if features.size_bytes > self._limit_gb * 1e9:
            raise TrainingError(
                f"the features of {len(features):,} frames take {features.size_bytes / 1e9:.1f} GB, more than "
                f"--cache-gb {self._limit_gb:g}; raise it, or leave out --cache-features"
            )
        return features

    def fill(self, features: Features, tell: Callable[[str], None]) -> None:
        """See that all features are there; every rank makes its share."""
        from accelerate import PartialState

        state, key = PartialState(), self._key()
        # Whose encoder nobody knows can't be told from another's.
        if key["vision"] and features.is_whole(key):
            return
        tell(f"looking at {len(features):,} frames: {features.size_bytes / 1e9:.2f} GB of features")
        # Nobody writes before there is room, nor asks before all have written.
        if state.is_main_process:
            features.allocate()
        state.wait_for_everyone()
        features.fill(self._encode, state.process_index, state.num_processes, tell)
        state.wait_for_everyone()
        if state.is_main_process:
            features.finish(key)
        state.wait_for_everyone()

    def _encode(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        import torch

        pixels = torch.stack([self._inputs.pixels([frame]) for frame in frames])
        device = next(self._model.vision.parameters()).device
        return self._model.encode_frames(pixels.to(device))[:, 0].float().cpu().numpy()

    def _key(self) -> dict[str, Any]:
        """What the features follow from, beside the frames."""
        reading, places = self._inputs.reading, self._model.config.references or {}
        look = [reading.side, list(reading.mean), list(reading.deviation)]
        dtype = str(self._model.vision.dtype)
        return {"vision": places.get("vision", {}).get("version"), "reading": look, "dtype": dtype}
