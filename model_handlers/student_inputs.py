"""What a student reads of a clip, as tensors: its frames squeezed, its texts as tokens, its caption.

    inputs = StudentInputs.from_parts(llm=Settings("models/llm"), vision=Settings("efficientnet-lite0"))
    batch = inputs.batch([Sample(clip_frames(clip, 8).frames, Texts(title="Cacti"), "A man waters a cactus.")])
    inputs.words(model.generate(**batch))
    inputs.save("student"); inputs = StudentInputs.load("student")

The paper fills the prompt of its teachers with the texts, and with neither, one or both of them in training (appendix
D.2). Here a text stands under a short heading alone: no instruction reaches the language model through the text branch.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import random
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from model_handlers import vision as lite
from model_handlers.frames import exactly
from model_handlers.pretrained import load_part
from model_handlers.prompts import Prompt, fit
from model_handlers.settings import Settings
from model_handlers.sighted import load_tokenizer, until_end
from model_handlers.weights import WeightsError
from transforms.records import Clip

if TYPE_CHECKING:
    import torch

FILE = "student_inputs.json"
NO_LABEL = -100
#: A new wording is a new version: a student trained on one reads another less well.
TEXT = Prompt(
    prompt_id="student-text-1",
    system=None,
    request="",
    request_with_text="{title}\n{description}\n{subtitles}",
    introductions={"title": "Title:", "description": "Description:", "subtitles": "Subtitles:"},
)
#: Section 3.4: metadata and subtitles are each kept with this probability, independently.
KEEP = 0.5


@dataclasses.dataclass(frozen=True)
class Texts:
    """What is written or said of a clip; empty or None where there is nothing."""

    title: str | None = None
    description: str | None = None
    subtitles: str | None = None


@dataclasses.dataclass(frozen=True)
class Sample:
    """A clip as a student sees it.

    Attributes:
      frames: uint8 RGB, (height, width, 3) each, in time order; empty where the encoder's states are kept elsewhere.
      caption: what it shall say, in training.
    """

    frames: Sequence[np.ndarray] = ()
    texts: Texts = Texts()
    caption: str | None = None


@dataclasses.dataclass(frozen=True)
class Reading:
    """How clips become tensors; all of it goes with the weights.

    Attributes:
      frames: of a clip. side: of a frame, pixels. mean, deviation: of the encoder's pixels in [0, 1], by channel.
      text_tokens: of titles, descriptions and subtitles together. caption_tokens: of a caption, with its end.
      prompt_id: of the headings.
    """

    frames: int = 8
    side: int = 224
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    deviation: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    text_tokens: int = 512
    caption_tokens: int = 64
    prompt_id: str = TEXT.prompt_id

    def __post_init__(self) -> None:
        for name in ("frames", "side", "text_tokens", "caption_tokens"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be 1 or more, not {value}")
        if self.prompt_id != TEXT.prompt_id:
            raise WeightsError(f"this student reads texts as {self.prompt_id}, this release writes {TEXT.prompt_id}")


class StudentInputs:
    """A student's tokenizer and pixels; may be shared by threads.

    Args:
      tokenizer: the language model's. reading: how.

    Raises:
      WeightsError: the tokenizer has nothing that ends a text.
    """

    def __init__(self, tokenizer: Any, reading: Reading):
        if tokenizer.eos_token_id is None:
            raise WeightsError("the language model's tokenizer has no token that ends a text; name another model")
        self.tokenizer, self.reading = tokenizer, reading
        self._special = tuple(tokenizer.all_special_tokens)
        # A fast tokenizer keeps settings on itself while it works, and so serves one thread at a time.
        self._lock = threading.Lock()

    @classmethod
    def from_parts(cls, *, llm: Settings, vision: Settings, **settings: Any) -> StudentInputs:
        """Those that go with `student_parts.from_parts` of the same parts.

        Args:
          vision: the image encoder's checkpoint, or the BLIP-2 that it comes from. settings: of `Reading`.

        Raises:
          WeightsError: a part is missing.
        """
        mean: tuple[float, ...]
        deviation: tuple[float, ...]
        if vision.weights == lite.MODEL:
            mean, deviation = (lite.PIXEL_MEAN / 255,) * 3, (lite.PIXEL_SCALE / 255,) * 3
        else:
            look = load_part("AutoImageProcessor", vision)
            mean, deviation = normalisation_of(look)
            settings = {"side": side_of(look)} | settings
        return cls(load_speaking(llm), Reading(mean=mean, deviation=deviation, **settings))

    def pixels(self, frames: Sequence[np.ndarray]) -> torch.Tensor:
        """Whole frames squeezed to squares and normalised, float32, (frames, 3, side, side).

        A centre crop, which most encoders' own preparation makes, would lose the sides of a wide picture.
        """
        import torch
        from torch.nn.functional import interpolate

        size = (self.reading.side, self.reading.side)
        small = []
        for frame in exactly(frames, self.reading.frames):
            picture = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float()
            small.append(interpolate(picture, size, mode="bilinear", align_corners=False, antialias=True))
        shares = torch.cat(small) / 255
        mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (self.reading.mean, self.reading.deviation))
        return (shares - mean) / deviation

    def text_tokens(self, texts: Texts) -> list[int]:
        """The texts under their headings as tokens, without special ones; none where there is no text.

        What is too long loses sentences: of the subtitles first, then of the description, the title last.
        """
        # All that a prompt is filled from are these three texts.
        asked = fit(
            TEXT, cast(Clip, texts), "V-S-M", self._count, self.reading.text_tokens, special_tokens=self._special
        )
        return self._tokens(asked.request)

    def caption_tokens(self, caption: str) -> list[int]:
        """The caption's tokens and the one that ends it; a longer caption is cut and not ended."""
        tokens = [*self._tokens(caption), self.tokenizer.eos_token_id]
        return tokens[: self.reading.caption_tokens]

    def batch(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """What `StudentForCaptioning.forward` and `generate` take, on the CPU.

        pixel_values is left out where no sample has frames, labels where none has a caption.

        Raises:
          ValueError: some samples have frames or a caption, others do not.
        """
        import torch

        text_ids, text_mask = _padded([self.text_tokens(sample.texts) for sample in samples], 0)
        tensors = {"text_ids": text_ids, "text_mask": text_mask}
        if _all_or_none("frames", [len(sample.frames) > 0 for sample in samples]):
            tensors["pixel_values"] = torch.stack([self.pixels(sample.frames) for sample in samples])
        captions = [sample.caption for sample in samples if sample.caption is not None]
        if _all_or_none("a caption", [sample.caption is not None for sample in samples]):
            tensors["labels"], _ = _padded([self.caption_tokens(caption) for caption in captions], NO_LABEL)
        return tensors

    def words(self, generated: torch.Tensor) -> list[str]:
        """The captions of generated tokens, each up to the token that ends it."""
        rows = [until_end(row, self.tokenizer.eos_token_id).tokens for row in generated.tolist()]
        return [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the tokenizer and `student_inputs.json` beside the weights."""
        self.tokenizer.save_pretrained(folder)
        pathlib.Path(folder, FILE).write_text(json.dumps(dataclasses.asdict(self.reading), indent=2) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> StudentInputs:
        """Read what `save` wrote.

        Raises:
          WeightsError: it is missing, or of another release.
        """
        path = pathlib.Path(folder, FILE)
        try:
            values = json.loads(path.read_text("utf-8"))
            values |= {name: tuple(values[name]) for name in ("mean", "deviation")}
            reading = Reading(**values)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise WeightsError(
                f"{path} can't be read ({error}); name a directory that a student was saved to"
            ) from error
        return cls(load_tokenizer(Settings(str(folder))), reading)

    def _tokens(self, text: str) -> list[int]:
        with self._lock:
            # A "</s>" that somebody wrote ends nothing.
            plainly = {"add_special_tokens": False, "split_special_tokens": True}
            return self.tokenizer(text, **plainly).input_ids if text else []

    def _count(self, text: str) -> int:
        return len(self._tokens(text))


def load_speaking(llm: Settings) -> Any:
    """A language model's tokenizer that knows what ends a text, if anything does.

    Some checkpoints leave that to the tokenizer's class, GPT-2's among them.
    """
    tokenizer = load_tokenizer(llm)
    if tokenizer.eos_token_id is None:
        tokenizer = load_part("AutoTokenizer", llm)
    return tokenizer


def normalisation_of(look: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and deviation of pixels in [0, 1] that do what an image processor does."""
    scale = 255 * look.rescale_factor if look.do_rescale else 255.0
    if not look.do_normalize:
        return (0.0,) * 3, (1 / scale,) * 3
    return tuple(mean / scale for mean in look.image_mean), tuple(one / scale for one in look.image_std)


def side_of(look: Any) -> int:
    """Pixels a side of the squares that an image processor makes, or would crop."""
    size = look.crop_size if getattr(look, "do_center_crop", False) else look.size
    found = size.get("height") or size.get("shortest_edge")
    if not found:
        raise WeightsError(
            f"{type(look).__name__} makes pictures of no fixed size; say what side the frames shall have"
        )
    return found


def drop_text(texts: Texts, rng: random.Random, keep: float = KEEP) -> Texts:
    """The texts with metadata and subtitles each kept with probability `keep`, independently (section 3.4).

    Two numbers are drawn whatever the texts, so that other clips' texts do not change which of this one's are kept.
    """
    metadata, subtitles = rng.random() < keep, rng.random() < keep
    kept = texts if metadata else dataclasses.replace(texts, title=None, description=None)
    return kept if subtitles else dataclasses.replace(kept, subtitles=None)


def _padded(rows: Sequence[Sequence[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of tokens padded on the right, (rows, longest), and the mask of what is none."""
    import torch

    longest = max(map(len, rows), default=0)
    tokens = torch.full((len(rows), longest), padding, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, : len(row)] = 1
    return tokens, mask


def _all_or_none(what: str, present: Sequence[bool]) -> bool:
    if any(present) and not all(present):
        raise ValueError(f"{present.index(False) + 1} of {len(present)} samples has not {what}; all need it, or none")
    return any(present)
