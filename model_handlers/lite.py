"""The models of the `lite` profile as one bundle, shared by its teachers and its selector.

    lite = load_lite()
    lite.clip_sight(clip).probabilities     # (n, 1000), n <= 12

Every handler that holds `model_key = LITE_KEY` gets the same bundle, so that six teachers load one network.
"""

from __future__ import annotations

import dataclasses
from typing import Generic

from model_handlers.base import ElementwiseHandler
from model_handlers.conse import Conse, load_conse
from model_handlers.frames import OpenReel, open_reel
from model_handlers.labels import Labels, load_labels
from model_handlers.sentences import SentenceEncoder, load_sentences
from model_handlers.vision import Sight, Vision, load_vision
from transforms.records import AnswerT, Clip, RequestT

LITE_KEY = "lite"
#: Uniform frames of a clip that are looked at (section 3.3: the paper's selector sees 12).
CLIP_FRAMES = 12


@dataclasses.dataclass
class Lite:
    """EfficientNet-Lite0, its labels, MiniLM, and ConSE between them."""

    vision: Vision
    labels: Labels
    sentences: SentenceEncoder
    conse: Conse

    def clip_rows(self, clip: Clip) -> tuple[OpenReel, list[int]]:
        """The clip's reel and the rows of its uniform frames."""
        reel = open_reel(clip.reel)
        return reel, reel.uniform(clip.span.start_s, clip.span.end_s, CLIP_FRAMES)

    def clip_sight(self, clip: Clip) -> Sight:
        """What the network makes of the clip's uniform frames."""
        return self.vision.look(*self.clip_rows(clip))


def load_lite() -> Lite:
    """Load everything now: weights that are missing must fail here, not as an error of some clip."""
    return Lite(load_vision(), load_labels(), load_sentences(), load_conse())


class LiteHandler(ElementwiseHandler[RequestT, AnswerT, Lite], Generic[RequestT, AnswerT]):
    """A handler that works with the shared bundle."""

    @property
    def model_key(self) -> str:
        return LITE_KEY

    def load(self) -> Lite:
        return load_lite()
