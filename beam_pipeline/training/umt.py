"""Train the paper's selector, Unmasked Teacher: contrast (VTC) and matching (VTM), as section 3.3 says.

    trainable = open_umt(choose("selector", {"name": "umt-l16", "weights": "l16_25m.pth", "sha256": "..."}).entry)
    trainable.losses(batch)["loss"].backward()
    trainable.write("models/selector/v1")                # selector: {name: umt-l16, weights: models/selector/v1}

The matching head learns from each clip's own captions: those that people found good are matches, the others are not;
of a clip whose captions are all bad none is. As in ALBEF and Unmasked Teacher it also sees, for each chosen caption,
another clip, and for its clip a caption of another one, drawn by the contrast's similarity so that hard ones come
often. Clips of one source are not drawn for each other, nor captions in the very words that are right, since people
were not asked about these. Over several devices each contrasts the clips of its own share of the batch.

What is seen differs from scoring as in the authors' fine-tuning: frames drawn at random from equal parts of the clip,
one RandomResizedCrop for all of them, half of the clips mirrored. Unlike there, a clip is not mirrored whose captions
say left or right.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from beam_pipeline.training.augmentation import drawn_frames
from beam_pipeline.training.captions import by_caption, join_captions, read_captions, weighted_means, without_good
from beam_pipeline.training.losses import vtc, vtm
from beam_pipeline.training.trainable import Batch, Example, Recipe, Trainable
from beam_pipeline.training.umt_module import DROP_PATH, DROPOUT, TrainedNetwork, as_module
from model_handlers import long_captions
from model_handlers.catalogue import Entry
from model_handlers.frames import clip_frames
from model_handlers.umt_inputs import TEXT_TOKENS, CaptionReader, clean, middles, normalise, squeeze
from model_handlers.umt_selector import UmtSelector, tokenizer_folder
from model_handlers.umt_weights import load_network, untold_sizes, write_folder

#: The authors keep what divides cosines within these.
TEMPERATURES = (0.001, 0.5)
#: What a tokenizer may consist of.
TOKENIZER_FILES = (
    *("vocab.txt", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json"),
)


def open_umt(entry: Entry) -> UmtTrainable:
    """The trainable form of an entry of the catalogue.

    Raises:
      WeightsError: see `UmtTrainable`.
    """
    handler: Any = entry.build()
    return UmtTrainable(handler)


class UmtTrainable(Trainable):
    """Unmasked Teacher with its checkpoint's weights, in float32 on the CPU until its module is moved.

    Args:
      handler: of the catalogue, with the settings that name the weights. dropout, drop_path: see `umt_module`.

    Raises:
      WeightsError: the checkpoint or its tokenizer is missing or is not what it should be.
    """

    #: The paper's (section 3.3).
    recipe = Recipe()

    def __init__(self, handler: UmtSelector, *, dropout: float = DROPOUT, drop_path: float = DROP_PATH):
        settings = handler.settings
        told = untold_sizes(folder) if (folder := settings.folder()) else {}
        loaded = load_network(settings.file(), sha256=settings.sha256 or None, **told)  # type: ignore[arg-type]
        self._tokenizer = tokenizer_folder(settings)
        self._reader = CaptionReader.open(self._tokenizer, loaded.sizes.vocabulary)
        self._frames = settings.frames
        self._module = as_module(loaded.tensors)
        self.network = TrainedNetwork(loaded.sizes, self._module, dropout, drop_path)

    @property
    def module(self) -> Any:
        return self._module

    def prepare(self, example: Example, rng: random.Random | None = None) -> dict[str, Any]:
        if rng is None:
            frames = clip_frames(example.clip, self._frames).frames
            pieces = [self._pieces(caption) for caption in example.captions]
        else:
            frames = drawn_frames(example.clip, self._frames, example.captions, rng, mirror=True)
            pieces = [[caption] for caption in example.captions]
        texts = [text for parts in pieces for text in parts]
        ids, mask = self._reader.read([clean(text) for text in texts])
        tokens = {"input_ids": ids, "attention_mask": mask}
        rows = middles(len(frames), self._frames)
        return {
            "pixels": squeeze([frames[row] for row in rows], self.network.sizes.side),
            **read_captions(example, pieces, tokens, [max(1, self._reader.count(text)) for text in texts]),
        }

    def _pieces(self, caption: str) -> list[str]:
        """A caption in the pieces that the selector scores."""
        return long_captions.pieces(caption, self._reader.count, TEXT_TOKENS) or [""]

    def collate(self, prepared: Sequence[Mapping[str, Any]]) -> Batch:
        import torch

        pixels = torch.stack([one["pixels"] for one in prepared])
        return {**join_captions([dict(one) for one in prepared]), "pixels": pixels}

    def losses(self, batch: Batch) -> dict[str, Any]:
        import torch

        self.network.refresh()
        temperature = self.network.tensors["temp"]
        if self._module.training:
            with torch.no_grad():
                temperature.clamp_(*TEMPERATURES)
        tokens, pooled, states = self._encode(batch)
        similarity = by_caption(self.network.vtc(pooled, states), batch) / temperature
        contrast = vtc(without_good(similarity, batch), batch["owners"], batch["chosen"])

        captions = torch.arange(len(batch["owners"]), device=similarity.device)
        strangers, strange = drawn_mismatches(similarity.detach(), batch, at_random=self._module.training)
        clips, told = torch.cat([batch["owners"], strangers]), torch.cat([captions, strange])
        targets = torch.cat([batch["good"], torch.zeros_like(strange, dtype=torch.bool)])
        matching = vtm(self._matches(tokens, states, batch, clips, told), targets)
        return {"loss": contrast + matching, "vtc": contrast, "vtm": matching}

    def scores(self, batch: Batch) -> Any:
        import torch

        self.network.refresh()
        with torch.no_grad(), self._settled():
            tokens, _, states = self._encode(batch)
            captions = torch.arange(len(batch["owners"]), device=tokens.device)
            return self._matches(tokens, states, batch, batch["owners"], captions).sigmoid()

    @contextmanager
    def _settled(self) -> Iterator[None]:
        """Nothing is left out meanwhile."""
        was = self._module.training
        self._module.eval()
        try:
            yield
        finally:
            self._module.train(was)

    def _encode(self, batch: Batch) -> tuple[Any, Any, Any]:
        tokens, pooled = self.network.encode_video(normalise(batch["pixels"]))
        return tokens, pooled, self.network.encode_text(batch["input_ids"], batch["attention_mask"])

    def _matches(self, tokens: Any, states: Any, batch: Batch, clips: Any, captions: Any) -> Any:
        """The log-odds of each pair of a clip and a caption, (pairs,), float32."""
        import torch

        pairs, pieces = (captions[:, None] == batch["pieces_of"][None, :]).nonzero(as_tuple=True)
        shown = clips[pairs]
        # The network wants them clip after clip.
        order = shown.argsort(stable=True)
        counts = torch.bincount(shown, minlength=len(tokens)).tolist()
        asked = pieces[order]
        found = self.network.match_logits(tokens, states[asked], batch["attention_mask"][asked], counts)
        return weighted_means(found, pairs[order], batch["lengths"][asked], len(captions))

    def use_checkpointing(self) -> None:
        self.network.checkpointing = True

    def write(self, folder: str) -> None:
        self.network.refresh()
        write_folder(folder, self.network.sizes, self.network.tensors)
        for name in TOKENIZER_FILES:
            # As published: a reader takes the closing token off what it has loaded.
            if os.path.isfile(path := os.path.join(self._tokenizer, name)):
                shutil.copyfile(path, os.path.join(folder, name))


def drawn_mismatches(similarity: Any, batch: Batch, *, at_random: bool) -> tuple[Any, Any]:
    """Pairs that don't belong together, up to two for each clip with a good caption; fewer where a batch has none.

    Args:
      similarity: of the contrast, (clips, captions), divided by the temperature.
      at_random: by the softmax of the similarity; else the most similar ones, so that a held-out loss is no lottery.

    Returns:
      clips, captions: (pairs,) each; first a strange caption for each such clip, then a strange clip for its caption.
    """
    import torch

    owners, words, sources = batch["owners"], batch["words"], batch["sources"]
    clips = torch.arange(len(similarity), device=similarity.device)
    good = clips[batch["chosen"] >= 0]
    chosen = batch["chosen"][good]
    own = clips[:, None] == owners[None, :]
    same_words = (words[:, None] == words[None, :]).float()
    right = (own & batch["good"]).float() @ same_words > 0
    strange = (sources[:, None] != sources[owners][None, :]) & ~right

    def draw(fits: Any, allowed: Any) -> tuple[Any, Any]:
        """Of each row that allows anything one column; rows, columns."""
        rows = allowed.any(1).nonzero()[:, 0]
        masked = fits[rows].float().masked_fill(~allowed[rows], float("-inf"))
        if not len(rows) or not at_random:
            return rows, masked.argmax(1) if len(rows) else rows
        return rows, torch.multinomial(masked.softmax(1), 1)[:, 0]

    of_clips, captions = draw(similarity[good], strange[good])
    of_captions, others = draw(similarity.T[chosen], strange.T[chosen])
    return torch.cat([good[of_clips], others]), torch.cat([captions, chosen[of_captions]])
