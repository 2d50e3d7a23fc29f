"""Selectors that see a clip as a video rather than as single frames: X-CLIP, VideoPrism, Perception Encoder.

    VideoTextSelector("xclip-base", Settings("microsoft/xclip-base-patch32", revision="..."))

Long captions and scores of pieces are dealt with as in `model_handlers.dual_selectors`. Frames are preprocessed as each
checkpoint publishes it.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model_handlers.devices import Device
from model_handlers.dual_selectors import CaptionNetwork, Reader, not_of_kind, pooled, text_limit, unit
from model_handlers.frames import clip_frames, exactly
from model_handlers.pretrained import load_model, load_part
from model_handlers.resident import ResidentHandler
from model_handlers.settings import Settings
from model_handlers.tower_embedder import joined
from model_handlers.trained import as_trained, sigmoid
from transforms.records import CaptionedClip, Clip

PERCEPTION_STEP = 64
_PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}]")


class VideoNetwork(CaptionNetwork):
    """What the video models share.

    Args:
      model: of Transformers, on `device`. frames: that it sees of every clip.
    """

    def __init__(self, model: Any, processor: Any, reader: Reader, device: Device, frames: int):
        super().__init__(reader)
        self._model, self._processor, self._device, self._frames = model, processor, device, frames

    def see(self, clip: Clip) -> dict[str, Any]:
        """Frames as `pixel_values_videos`, (1, frames, 3, height, width)."""
        import torch

        frames = exactly(clip_frames(clip, self._frames).frames, self._frames)
        # Each a video of its own, since a processor stacks the frames of a video, and these may differ in size.
        looked = self._processor(videos=[frame[None] for frame in frames], do_sample_frames=False, return_tensors="pt")
        return {"pixel_values_videos": torch.cat(list(looked["pixel_values_videos"]))[None]}


class XClipNetwork(VideoNetwork):
    """X-CLIP. A score is the cosine of the clip's vector and the caption's, which the clip has prompted.

    It is in [-1, 1] and not calibrated. As a caption has another vector for each clip, all pairs of a batch go through
    the text side's prompting, and each clip takes its own captions' scores.
    """

    def see(self, clip: Clip) -> dict[str, Any]:
        return self.look(clip_frames(clip, self._frames).frames)

    def look(self, frames: Sequence[np.ndarray]) -> dict[str, Any]:
        """Frames of one clip, uint8 RGB, as tensors."""
        pixels = self._processor(exactly(frames, self._frames), return_tensors="pt")["pixel_values"]
        # Of an image processor one picture a row; of VideoMAE's, with which it is published, one video a row.
        return {"pixel_values": pixels.reshape(1, self._frames, *pixels.shape[-3:])}

    def fits(self, seen: Sequence[dict[str, Any]], texts: Sequence[str]) -> Any:
        return self.compare(joined(seen, self._device), self._reader.batch(texts, self._device))

    def compare(self, pixels: Mapping[str, Any], tokens: Mapping[str, Any]) -> Any:
        """What `fits` says of clips and texts on the model's device; it can be differentiated."""
        import torch

        told = self._model(**pixels, **tokens)
        clips, captions = unit(told.video_embeds), unit(told.text_embeds)
        # As for CLIP: in a trainer's 16 bits a cosine would have three digits.
        with torch.autocast(clips.device.type, enabled=False):
            return torch.einsum("cd,ctd->ct", clips, captions)


class VideoPrismReader(Reader):
    """VideoPrism was trained on lower-case words without punctuation, and a full stop at the end."""

    def tidy(self, text: str) -> str:
        return " ".join(_PUNCTUATION.sub(" ", text).lower().split()) + "."


class VideoPrismNetwork(VideoNetwork):
    """VideoPrism's video-text model. A score is the cosine of the two vectors: in [-1, 1], not calibrated."""

    def fits(self, seen: Sequence[dict[str, Any]], texts: Sequence[str]) -> Any:
        clips = pooled(self._model.get_video_features(**joined(seen, self._device)))
        captions = pooled(self._model.get_text_features(**self._reader.batch(texts, self._device)))
        # Its pooling leaves an axis of one in the clips.
        return unit(clips.flatten(1)) @ unit(captions).T


class PerceptionNetwork(VideoNetwork):
    """Perception Encoder's video-text model. A score is the sigmoid of its logit: the probability of a match."""

    def fits(self, seen: Sequence[dict[str, Any]], texts: Sequence[str]) -> Any:
        told = self._model(**joined(seen, self._device), **self._reader.batch(texts, self._device))
        return told.logits_video_text.float()

    def score(self, fit: float) -> float:
        return sigmoid(fit)


class VideoTextSelector(ResidentHandler[CaptionedClip, tuple[float, ...]]):
    """How well each caption fits its clip, by X-CLIP or VideoPrism (a cosine), or Perception Encoder (a probability).

    X-CLIP and VideoPrism see as many frames as they were trained on, whatever the settings say.
    """

    def network(self, device: Device) -> CaptionNetwork:
        """Load both towers.

        Raises:
          WeightsError: the checkpoint is missing, or of another kind.
        """
        config = load_part("AutoConfig", self.settings)
        if config.model_type not in _LOADERS:
            raise not_of_kind(self.settings, config.model_type, "X-CLIP, VideoPrism or Perception Encoder (pe_video)")
        return as_trained(_LOADERS[config.model_type](config, self.settings, device), self.settings)


def _load_xclip(config: Any, settings: Settings, device: Device) -> CaptionNetwork:
    reader = Reader(load_part("AutoTokenizer", settings), text_limit(config, settings))
    processor, model = load_part("AutoImageProcessor", settings), load_model("AutoModel", settings, device)
    return XClipNetwork(model, processor, reader, device, config.vision_config.num_frames)


def _load_videoprism(config: Any, settings: Settings, device: Device) -> CaptionNetwork:
    # The whole processor: its class knows of sizes that its video half alone would not.
    processor, model = load_part("AutoProcessor", settings), load_model("AutoModel", settings, device)
    reader = VideoPrismReader(processor.tokenizer, text_limit(config, settings))
    return VideoPrismNetwork(model, processor, reader, device, config.vision_config.num_frames)


def _load_perception(config: Any, settings: Settings, device: Device) -> CaptionNetwork:
    # It reads thousands of tokens, of which a caption has some dozens.
    limit = text_limit(config, settings)
    step = min(PERCEPTION_STEP, limit)
    reader = Reader(load_part("AutoTokenizer", settings), limit - limit % step, step)
    # Of the audio-visual checkpoints, too, the half for videos.
    processor, model = load_part("AutoVideoProcessor", settings), load_model("PeVideoModel", settings, device)
    return PerceptionNetwork(model, processor, reader, device, settings.frames)


_LOADERS = {
    "xclip": _load_xclip,
    "videoprism": _load_videoprism,
    "pe_video": _load_perception,
    "pe_audio_video": _load_perception,
}
