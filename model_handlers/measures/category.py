"""What kind of thing a clip shows: the best of a set of categories, each told in words, without training.

    measure(Settings()).load()(view)                        # -> {"category": "animals", "category_score": 0.81}
    measure(Settings({"sports": "a photo of people doing sports", "other": "a photo"}, weights="models/clip"))

Two backends look at a few frames. `lite`, where no weights are named, is ConSE (`model_handlers.conse`): what
EfficientNet-Lite0 recognises, drawn towards real sentences, against the sentence vectors of each category. The other is
any two-tower checkpoint, asked as CLIP is (Radford et al., ICML 2021): the mean of the frames' unit vectors against the
mean of each category's prompts. A score is a probability among the given categories alone: they always sum to 1.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from model_handlers import conse, sentences, vision, wording
from model_handlers.measures.two_towers import check_frames, checkpoint, load_towers
from model_handlers.measures.view import ClipView, Look, Measure
from model_handlers.settings import Settings as Checkpoint

#: Each category with its prompts.
Labels = tuple[tuple[str, tuple[str, ...]], ...]

#: What a cosine of `lite` is multiplied by to be a logit: of 4, 6, 8, 10, 12, 15, 20 and 25 the one whose probabilities
#: were worth most on 97 Flickr8k pictures (mean logarithm); on 50 Panda-70M clips, too. See docs/measures-models.md.
LITE_SCALE = 15.0
PROMPT = "a photo of {}"
PACKAGED = "categories.yaml"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which categories, and who tells them.

    Attributes:
      labels: names with a prompt or several each, or names alone, whose prompt is then "a photo of NAME"; nothing for
        the packaged ones. Kept as a tuple of names with their prompts.
      weights, revision: a two-tower checkpoint, see `two_towers.checkpoint`; none for `lite`.
      frames: uniform ones of the clip. Up to 12 they are among those of the lite teachers, and cost nothing again.
      dtype: what a checkpoint computes in; see `devices.choose_device`.

    Raises:
      ValueError: a setting that cannot be meant.
    """

    labels: Mapping[str, str | Sequence[str]] | Sequence[str] | Labels | None = None
    weights: str = ""
    revision: str = ""
    frames: int = 4
    dtype: str = "auto-float16"

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", labels_of(packaged_labels() if self.labels is None else self.labels))
        check_frames(self.frames)
        if self.revision and not self.weights:
            raise ValueError("revision: is a hub model's commit; name the model under weights:")
        self.checkpoint()

    @property
    def names(self) -> tuple[str, ...]:
        """The categories, in their order."""
        return tuple(name for name, _ in labels_of(self.labels))

    @property
    def prompts(self) -> tuple[tuple[str, ...], ...]:
        """The prompts of each category."""
        return tuple(prompts for _, prompts in labels_of(self.labels))

    def checkpoint(self) -> Checkpoint:
        """How a checkpoint is loaded, if there is one."""
        return checkpoint(self.weights, self.revision, self.dtype)


@functools.cache
def packaged_labels() -> Mapping[str, Sequence[str]]:
    """The categories of web video in categories.yaml."""
    text = (importlib.resources.files("model_handlers") / "measures" / PACKAGED).read_text("utf-8")
    return yaml.safe_load(text)


def labels_of(value: Any) -> Labels:
    """Categories with their prompts, out of any form of `Settings.labels`.

    Raises:
      ValueError: they are fewer than two, one is named twice, or one is no text or has none.
    """
    if isinstance(value, str) or not isinstance(value, Mapping | Sequence):
        raise ValueError(f"labels must be names, or names with prompts, not {value!r}")
    pairs = value.items() if isinstance(value, Mapping) else [_pair(one) for one in value]
    labels = tuple((name, tuple(told) if isinstance(told, list | tuple) else (told,)) for name, told in pairs if told)
    names = [name for name, _ in labels]
    texts = [*names, *(prompt for _, prompts in labels for prompt in prompts)]
    if len(names) < 2 or len(names) != len(value):
        raise ValueError("labels needs two categories or more, each with a prompt: {sports: a photo of sports, ...}")
    if wrong := next((text for text in texts if not isinstance(text, str) or not text.strip()), None):
        raise ValueError(f"labels must be texts, not {wrong!r}; put quotation marks round yes, no and numbers")
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ValueError(f"labels names {twice!r} twice")
    return labels


def _pair(value: Any) -> tuple[str, Sequence[str]]:
    if isinstance(value, tuple):
        return value
    return value, PROMPT.format(str(value).replace("_", " "))


def measure(settings: Settings) -> Measure:
    """The measure `category`.

    Raises:
      WeightsError: there are no such weights.
    """
    return Measure(
        name="category",
        columns=("category", "category_score"),
        summary="the best of a set of categories told in words, and its probability among them",
        load=functools.partial(_load, settings),
        identity=(*_seen_by(settings), settings.labels, settings.frames),
        labels=settings.names,
    )


def _seen_by(settings: Settings) -> tuple[Any, ...]:
    if settings.weights:
        return (settings.checkpoint().version(), settings.dtype)
    vectors = conse.packaged_vectors()
    return ("lite", vision.REVISION, sentences.REVISION, vectors[0] if vectors else "")


def _load(settings: Settings) -> Look:
    tell = (_checkpoint if settings.weights else _lite)(settings)
    return functools.partial(look, tell, settings.names)


def look(tell: Callable[[ClipView], np.ndarray], names: Sequence[str], view: ClipView) -> dict[str, Any]:
    """The likeliest category of a clip. tell: gives the logit of each of `names`."""
    probabilities = softmax(tell(view))
    best = int(probabilities.argmax())
    return {"category": names[best], "category_score": float(probabilities[best])}


def _lite(settings: Settings) -> Callable[[ClipView], np.ndarray]:
    network, space = vision.load_vision(), conse.load_conse()
    # "A photo of" says nothing of the category, and would draw all of them to one side.
    told = [[part for prompt in prompts for part in wording.scored_sentences(prompt)] for prompts in settings.prompts]
    categories = np.stack([mean_direction(space.texts(parts)) for parts in told])

    def tell(view: ClipView) -> np.ndarray:
        seen = network.look(view.reel, view.uniform(settings.frames)).probabilities
        return LITE_SCALE * (categories @ space.recall(space.picture(seen)))

    return tell


def _checkpoint(settings: Settings) -> Callable[[ClipView], np.ndarray]:
    towers = load_towers(settings.checkpoint())
    categories = np.stack([mean_direction(towers.read(prompts)) for prompts in settings.prompts])

    def tell(view: ClipView) -> np.ndarray:
        return towers.scale * (categories @ mean_direction(towers.see(view, view.uniform(settings.frames))))

    return tell


def mean_direction(vectors: np.ndarray) -> np.ndarray:
    """The mean of vectors (n, width) at length 1, (width,)."""
    mean = vectors.mean(axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities out of logits (n,)."""
    raised = np.exp(logits - logits.max())
    return raised / raised.sum()
