"""Fakes that the tests share: real model handlers with small, predictable answers."""

from __future__ import annotations

from collections.abc import Sequence

from model_handlers.base import ElementwiseHandler
from transforms.records import CaptionedClip, Clip, EmbedRequest, MediaFacts, Span, Vector

MEDIA = MediaFacts(60.0, 320, 180, 25.0, "h264")


def make_clip(number: int = 0, video_id: str = "v", **changes: object) -> Clip:
    """A clip of four seconds, the `number`th of its video."""
    start_s = 10.0 * number
    values = {
        "clip_id": f"{video_id}-{number}",
        "video_id": video_id,
        "uri": f"/videos/{video_id}.mp4",
        "span": Span(start_s, start_s + 4.0),
        "shots": (Span(start_s, start_s + 4.0),),
        "media": MEDIA,
        "reel": f"/reels/{video_id}.arrow",
        "fingerprint": f"f{number}",
        **changes,
    }
    return Clip(**values)


class Model:
    """What a fake handler loads: Beam wants something that can be weakly referenced."""


class EchoTeacher(ElementwiseHandler[Clip, str, Model]):
    """Says "NAME sees CLIP_ID"; fails on the clips it is told to, and says nothing on others."""

    def __init__(self, name: str, fails_on: Sequence[str] = (), mute_on: Sequence[str] = (), max_batch: int = 4):
        super().__init__(name, max_batch=max_batch)
        self._fails_on, self._mute_on = frozenset(fails_on), frozenset(mute_on)

    def load(self) -> Model:
        return Model()

    def answer(self, requests: Sequence[Clip], model: Model) -> Sequence[str]:
        for clip in requests:
            if clip.clip_id in self._fails_on:
                raise ValueError(f"{self.name} cannot see {clip.clip_id}")
        return ["" if clip.clip_id in self._mute_on else f"{self.name} sees {clip.clip_id}" for clip in requests]


class LengthSelector(ElementwiseHandler[CaptionedClip, tuple[float, ...], Model]):
    """Scores a caption by its length over 100; fails on the clips it is told to."""

    def __init__(self, name: str = "length", fails_on: Sequence[str] = ()):
        super().__init__(name, max_batch=4)
        self._fails_on = frozenset(fails_on)

    def load(self) -> Model:
        return Model()

    def answer(self, requests: Sequence[CaptionedClip], model: Model) -> Sequence[tuple[float, ...]]:
        for captioned in requests:
            if captioned.clip.clip_id in self._fails_on:
                raise ValueError(f"cannot score {captioned.clip.clip_id}")
        return [tuple(len(one.text) / 100 for one in captioned.candidates) for captioned in requests]


class CornerEmbedder(ElementwiseHandler[EmbedRequest, tuple[Vector, Vector], Model]):
    """Unit vectors by shot index: even shots at one corner, odd ones at another; fails on the indices it is told to."""

    def __init__(self, name: str = "corner", fails_on: Sequence[int] = ()):
        super().__init__(name, max_batch=4)
        self._fails_on = frozenset(fails_on)

    def load(self) -> Model:
        return Model()

    def answer(self, requests: Sequence[EmbedRequest], model: Model) -> Sequence[tuple[Vector, Vector]]:
        for request in requests:
            if request.shot.index in self._fails_on:
                raise ValueError(f"cannot embed shot {request.shot.index}")
        even, odd = (1.0, 0.0), (0.0, 1.0)
        return [(odd, odd) if request.shot.index % 2 else (even, even) for request in requests]
