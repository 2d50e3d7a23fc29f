"""The catalogue: every embedder, teacher, selector and measure by name, with what to know before choosing it.

    catalogue.teacher("lite-frame").build()
    catalogue.teacher("blip2-opt-2.7b").changed(weights="/models/blip2-opt-2.7b").build()

Importing the catalogue imports no model and no torch; `build` makes a handler, and the handler loads on the worker. The
small models that come with packages stand here; those that Transformers loads, in `hub_models.yaml`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from apache_beam.ml.inference.base import ModelHandler

from model_handlers import embedders, hub, lite_projection, selection, sentences, teachers, vision
from model_handlers.base import ElementwiseHandler
from model_handlers.checkpoints import OBJECTS
from model_handlers.measures.measurer import Measurer
from model_handlers.measures.view import Measure
from model_handlers.nearest import nearest
from model_handlers.settings import Inputs, Settings
from model_handlers.trained import Trained, read_trained
from model_handlers.weights import WeightsError


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Distances between unit vectors at which the stitching rules decide; they belong to one embedder.

    transition: a shot whose two boundary frames are farther apart is a transition or a fade (paper: 1.0).
    stitch: neighbours at most this far apart belong to one event (paper: 0.6).
    still: an event whose first and last frame are nearer than this does not move (paper: 0.15).
    redundant: an event whose mean is within this of an earlier one repeats it (paper: 0.3).
    duplicate: clips of different videos that are nearer show the same footage; None: nobody has measured it.
    """

    transition: float
    stitch: float
    still: float
    redundant: float
    duplicate: float | None = None


#: The paper's, for ImageBind (section 3.1); its image encoder is CLIP ViT-H/14, frozen.
PAPER_THRESHOLDS = Thresholds(transition=1.0, stitch=0.6, still=0.15, redundant=0.3)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One model of the catalogue.

    Attributes:
      name: what profiles and `captions.teacher` say.
      model, revision: the checkpoint; every candidate caption carries both.
      licence: of the weights.
      summary: one line: what it does, and how weak it is.
      factory: makes the handler: without arguments, or of a name and settings where the entry has settings.
      inputs: what a teacher sees: V(ision), S(ubtitles), M(etadata: title and description).
      needs_text: without subtitles or metadata it is skipped, not failed.
      prompt_id: names the wording; a new wording is a new id, and so a new fingerprint.
      thresholds: of an embedder.
      abstain_below: of a selector: when even the best score is lower, it finds no candidate good.
      settings: how the model is loaded and asked; None where nothing of that can be chosen.
      restricted: why the weights may not be used for any purpose; empty where they may.
      gated: the hub asks for an account that has agreed to the licence.
      parameters_b: billions of parameters. download_gb: what the hub would send.
      stands_for: the paper's model whose part it plays.
      like: the catalogue's name of what it was changed from, where it has another name now.
      made_by: the command that makes its weights, of an entry that has none of its own.
      trained: what `reelscribe train selector` wrote beside the weights, of a selector whose weights it wrote.
    """

    name: str
    model: str
    revision: str
    licence: str
    summary: str
    factory: Callable[..., ModelHandler]
    inputs: Inputs = "V"
    needs_text: bool = False
    prompt_id: str = ""
    thresholds: Thresholds | None = None
    abstain_below: float | None = None
    settings: Settings | None = None
    restricted: str = ""
    gated: bool = False
    parameters_b: float = 0.0
    download_gb: float = 0.0
    stands_for: str = ""
    like: str = ""
    made_by: str = ""
    trained: Trained | None = None

    def build(self) -> ModelHandler:
        """Its handler, with nothing loaded yet."""
        return self.factory(self.name, self.settings) if self.settings else self.factory()

    @property
    def listed_name(self) -> str:
        """Its name in the catalogue, whatever a configuration calls it."""
        return self.like or self.name

    @property
    def memory_gb(self) -> float:
        """GPU memory that it takes in 16 bits, with some for pictures and generation, in GiB; a guide, not a bound."""
        return round(self.parameters_b * 1e9 * 2 / 2**30 * 1.1 + 1.5, 1) if self.parameters_b else 0.0

    @property
    def identity(self) -> list[str]:
        """What its answers depend on. Files that are known by their digest are the same wherever they lie."""
        place = "" if self.revision.startswith("sha256 ") else self.model
        return [self.name, place, self.revision, self.prompt_id]

    def changed(self, name: str = "", **changes: Any) -> Self:
        """This entry under another name, or with other settings; what it then is gets written down with each caption.

        Raises:
          ValueError: a setting that cannot be meant. WeightsError: no such weights.
        """
        if self.settings is None:
            raise ValueError(f"nothing of {self.name} can be changed, not even {next(iter(changes), 'its name')}")
        if "weights" in changes and changes["weights"] != self.settings.weights:
            # Neither the commit nor the digest of other weights is theirs.
            changes = {"revision": "", "sha256": "", **changes}
        settings = dataclasses.replace(self.settings, **changes).checked()
        revision = settings.version()
        settings = dataclasses.replace(settings, seen=revision if revision.startswith(OBJECTS) else "")
        return dataclasses.replace(
            self,
            name=name or self.name,
            like=self.like or (self.name if name not in ("", self.name) else ""),
            model=settings.weights,
            revision=revision,
            parameters_b=settings.parameters_b() or self.parameters_b,
            settings=settings,
            inputs=settings.inputs,
            needs_text="V" not in settings.inputs.split("-"),
            prompt_id=settings.prompt_id(),
        )

    def with_training(self, base: str) -> Self:
        """This selector with the threshold and the record of its training, where its weights come from one.

        Args:
          base: the catalogue's name of what it is a version of.

        Raises:
          WeightsError: the record can't be used, or is of another selector.
        """
        if self.settings is None:
            return self
        trained = read_trained(self.settings.weights)
        if trained is None:
            return self
        if trained.selector != base:
            right = f"write {{name: {trained.selector}, weights: {self.settings.weights}}}"
            raise WeightsError(f"{self.settings.weights} holds a trained {trained.selector}, not {base}; {right}")
        return dataclasses.replace(self, trained=trained, abstain_below=trained.abstain_below)


def look_up(kind: str, entries: Mapping[str, Entry], name: str) -> Entry:
    """The entry called `name`, or a `ValueError` that names the nearest right one."""
    if name in entries:
        return entries[name]
    raise ValueError(f"there is no {kind} {name!r}; {nearest(name, sorted(entries))}")


def restrictions(entries: Iterable[Entry]) -> str:
    """Which of them restrict what their answers may be used for, and why; empty when none does."""
    restricted = {entry.name: entry.restricted for entry in entries if entry.restricted}
    return "; ".join(f"{name}: {why}" for name, why in restricted.items())


def embedder(name: str) -> Entry:
    """The embedder called `name`; `ValueError` with the nearest right name when there is none."""
    return look_up("embedder", EMBEDDERS, name)


def teacher(name: str) -> Entry:
    """The teacher called `name`; `ValueError` with the nearest right name when there is none."""
    return look_up("teacher", TEACHERS, name)


def selector(name: str) -> Entry:
    """The selector called `name`; `ValueError` with the nearest right name when there is none."""
    return look_up("selector", SELECTORS, name)


def measure(one: Measure) -> Entry:
    """A measure that has weights, as an entry: to be loaded beforehand, and for its licence."""
    return Entry(
        name=one.name,
        model=one.model,
        revision=one.revision,
        licence=one.licence,
        summary=one.summary,
        factory=functools.partial(Measurer, one.name, (one,)),
        restricted=one.restricted,
    )


_VISION = vision.MODEL
_BOTH = f"{vision.MODEL} + {sentences.MODEL}"
_BOTH_REVISION = f"{vision.REVISION}; {sentences.REVISION}"
_VISION_LICENCE, _BOTH_LICENCE = "Apache-2.0", "Apache-2.0, MIT"

EMBEDDERS: dict[str, Entry] = {
    "efficientnet-lite0": Entry(
        name="efficientnet-lite0",
        model=_VISION,
        revision=vision.REVISION,
        licence=_VISION_LICENCE,
        summary="1280-d pooled features of an ImageNet network; knows objects better than people and places",
        factory=functools.partial(embedders.EfficientNetEmbedder, "efficientnet-lite0"),
        # By benchmarks/calibrate_embedder.py --embedder efficientnet-lite0; the table stands in docs/calibration.md.
        # That for duplicates by benchmarks/duplicates.py, see docs/duplicates.md.
        thresholds=Thresholds(transition=1.09, stitch=0.88, still=0.30, redundant=0.63, duplicate=0.4),
    ),
}


def _lite(name: str, kind: type[ElementwiseHandler], summary: str, words: bool, **more: Any) -> Entry:
    """A lite teacher; `words` says whether its caption depends on the sentence encoder beside the vision model."""
    return Entry(
        name=name,
        model=_BOTH if words else _VISION,
        revision=_BOTH_REVISION if words else vision.REVISION,
        licence=_BOTH_LICENCE if words else _VISION_LICENCE,
        summary=summary,
        factory=functools.partial(kind, name),
        **{"prompt_id": f"{name}-1", **more},
    )


_TEACHERS = [
    _lite(
        "lite-frame",
        teachers.FrameTeacher,
        "names what one random frame from the middle shows; sees no people and no actions",
        False,
    ),
    _lite(
        "lite-frames",
        teachers.FramesTeacher,
        "lets twelve frames vote on what is there; sees no people and no actions",
        False,
    ),
    _lite(
        "lite-motion",
        teachers.MotionTeacher,
        "says what is there and how the camera moves; does not know what anybody does",
        False,
    ),
    _lite(
        "lite-scene",
        teachers.SceneTeacher,
        "retrieves the best of some 460 general sentences about scenes and activities; often near, seldom exact",
        True,
    ),
    _lite(
        "lite-hedged",
        teachers.HedgedTeacher,
        "climbs from labels to groups until it is sure enough; seldom wrong, seldom exact",
        False,
    ),
    _lite(
        "lite-text",
        teachers.TextTeacher,
        "quotes the title and the most central sentence of subtitles or description; does not look at the picture",
        True,
        inputs="S-M",
        needs_text=True,
    ),
    _lite(
        "lite-frames-text",
        teachers.FramesTextTeacher,
        "joins the retrieved scene with the sentence of the text that fits the picture best",
        True,
        inputs="V-S-M",
        needs_text=True,
    ),
]
TEACHERS: dict[str, Entry] = {entry.name: entry for entry in _TEACHERS}

SELECTORS: dict[str, Entry] = {
    "conse": Entry(
        name="conse",
        model=_BOTH,
        revision=_BOTH_REVISION,
        licence=_BOTH_LICENCE,
        summary="ConSE: label probabilities of twelve frames against the caption's sentence vector; knows 1000 objects",
        factory=functools.partial(selection.ConseSelector, "conse"),
        prompt_id="conse-1",
        # One Flickr8k picture in ten lies below, and their best captions are half as near to what people wrote (.15
        # against .30); see docs/lite.md.
        abstain_below=0.75,
    ),
    "lite-projection": Entry(
        name="lite-projection",
        # Of what it starts from; a profile names what it became.
        model=_BOTH,
        revision=_BOTH_REVISION,
        licence=_BOTH_LICENCE,
        summary="ConSE with residuals learned from people's choices; `reelscribe train selector` makes its weights",
        factory=lite_projection.LiteProjectionSelector,
        prompt_id=Settings().prompt_id(),
        settings=Settings(),
        made_by="reelscribe train selector DATASET --output models/selector",
    ),
}


def _of_hub(kind: str) -> dict[str, Entry]:
    entries = {}
    for model in hub.models(kind):
        settings, about = model.settings, dict(model.about)
        limits = about.pop("thresholds", None)
        entries[model.name] = Entry(
            name=model.name,
            model=settings.weights or "named by the profile",
            revision=settings.revision or ("named by the profile" if settings.weights else ""),
            factory=model.family.handler,
            inputs=settings.inputs,
            prompt_id=settings.prompt_id(),
            settings=settings,
            thresholds=Thresholds(**limits) if limits else None,
            **about,
        )
    return entries


EMBEDDERS |= _of_hub("embedders")
TEACHERS |= _of_hub("teachers")
SELECTORS |= _of_hub("selectors")
