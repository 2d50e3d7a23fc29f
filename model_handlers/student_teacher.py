"""The student as a teacher: the directory that `reelscribe train student` wrote, captioning clips like any other model.

    clips | RunInference(StudentTeacher("student", StudentSettings("models/student/v1", inputs="V-S-M")))
    StudentSettings("models/student/v1", inputs="V")           # the same weights, which read no text

What shapes a caption stands in the directory: how many frames are seen, how texts are read (`student_inputs.json`), and
how words are searched for (`generation_config.json`, where there is one). Two teachers of one directory have one copy
of its weights on a device.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from model_handlers import answers, bucket
from model_handlers.checkpoints import FILES, check, is_hub_id
from model_handlers.devices import Device
from model_handlers.frames import clip_frames
from model_handlers.pretrained import load_model
from model_handlers.prompts import Inputs
from model_handlers.resident import Raw, ResidentHandler
from model_handlers.settings import Settings, check_sees
from model_handlers.sighted import until_end
from model_handlers.student_files import CONFIG, INDEX, RECORD, SEARCH, TRAINED, check_files, count_b, read_values
from model_handlers.student_inputs import FILE, TEXT, Reading, Sample, StudentInputs, Texts
from model_handlers.weights import WeightsError
from transforms.records import Clip

if TYPE_CHECKING:
    import torch

#: `student_config.MODEL_TYPE`, whose module imports Transformers.
MODEL_TYPE = "reelscribe-student"
#: Of the record.
SCHEMA_VERSION = 1
#: Of the directory's generation configuration; it never samples, as two runs shall say the same.
SEARCHED = (
    *("num_beams", "max_new_tokens", "min_new_tokens", "length_penalty", "early_stopping"),
    *("repetition_penalty", "no_repeat_ngram_size"),
)
#: The network's own, where the directory says nothing.
MAX_NEW_TOKENS = 64
#: What the directory decides unless the settings say it.
OF_DIRECTORY = ("frames", "max_new_tokens", "text_tokens")


@dataclasses.dataclass(frozen=True)
class StudentSettings(Settings):
    """How a student is loaded and asked.

    Attributes:
      inputs: V-S-M reads whatever text a clip has; V leaves it out.
      frames, max_new_tokens, text_tokens: 0 is as the directory has them. Frames can't be other than those it was
        trained on.
    """

    inputs: Inputs = "V-S-M"
    frames: int = 0
    max_new_tokens: int = 0
    text_tokens: int = 0

    def __post_init__(self) -> None:
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(Settings)}
        # Nought is no number of frames for other models, but what stands beside it is checked as theirs.
        told = {name: 1 if _is_nought(shared[name]) else shared[name] for name in OF_DIRECTORY}
        Settings(**{**shared, **told})

    def checked(self) -> Self:
        """These settings, if what they name is a student, as far as this machine can tell.

        Raises:
          ValueError: they ask for what no student can. WeightsError: the directory holds none that this release reads.
        """
        if self.prompt:
            raise ValueError("prompt can't be chosen for a student, which was trained on its own; leave it out")
        folder, names = _seen_from_here(self.weights, self.revision)
        if folder:
            check_frames(self, check_student(self.weights, folder))
            check_files(self.weights, folder, names)
        return self

    def parameters_b(self) -> float:
        """Billions of weights, where they are on this machine."""
        folder = os.path.expanduser(self.weights)
        return count_b(folder) if os.path.isdir(folder) else 0.0

    def prompt_id(self) -> str:
        """The wording of texts, where it reads any; the wording of the directory's own is in its digest."""
        return f"{'unasked' if self.inputs == 'V' else TEXT.prompt_id}/{self.inputs}/{self.wording()}"


def _is_nought(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value == 0


def _seen_from_here(weights: str, revision: str) -> tuple[str, list[str]]:
    """The directory with a student's small files, and the names of all; empty where they are not to be had here."""
    if not weights or is_hub_id(weights):
        return "", []
    check(weights, revision)
    if weights.startswith("gs://"):
        names: list[str] = []

        def is_small(name: str) -> bool:
            names.append(name)
            return name in (CONFIG, FILE, RECORD, INDEX)

        return bucket.fetch_folder(weights, is_small), names
    folder = os.path.expanduser(weights)
    return (folder, os.listdir(folder)) if os.path.isdir(folder) else ("", [])


def check_student(weights: str, folder: str) -> Reading:
    """How the student in a directory reads clips.

    Args:
      weights: what the user calls it. folder: where its files are.

    Raises:
      WeightsError: it holds no student, or one of a newer release.
    """
    kind = read_values(weights, folder, CONFIG).get("model_type")
    if kind != MODEL_TYPE:
        raise WeightsError(f"{weights} holds a model of type {kind}, no student; {TRAINED}")
    values = read_values(weights, folder, FILE)
    known = {field.name for field in dataclasses.fields(Reading)}
    newer = f"{weights} was written by another release of reelscribe"
    if os.path.isfile(os.path.join(folder, RECORD)):
        version = read_values(weights, folder, RECORD).get("schema_version")
        if version != SCHEMA_VERSION:
            told = f"{RECORD} has the schema version {version}, this one reads {SCHEMA_VERSION}"
            raise WeightsError(f"{newer}: {told}; use that release")
    if unknown := sorted(set(values) - known):
        raise WeightsError(f"{newer}: {FILE} says {unknown[0]}, which this one can't read; use that release")
    if values.get("prompt_id") != TEXT.prompt_id:
        told = f"its texts are worded as {values.get('prompt_id')}, those of this one as {TEXT.prompt_id}"
        raise WeightsError(f"{newer}: {told}; use that release, or train it again")
    try:
        return Reading(**values)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{weights}/{FILE} can't be used: {error}; take it from the training run again") from error


def check_frames(settings: StudentSettings, reading: Reading) -> None:
    """Raise `ValueError` where the settings ask for another number of frames than there were in training."""
    if settings.frames and settings.frames != reading.frames:
        raise ValueError(f"frames must be {reading.frames}, as {settings.weights} was trained, not {settings.frames}")


def texts_of(clip: Clip, inputs: str) -> Texts:
    """The clip's texts that the inputs let through."""
    seen = inputs.split("-")
    written = {"title": clip.title, "description": clip.description} if "M" in seen else {}
    return Texts(**written, subtitles=clip.subtitles if "S" in seen else None)


def search_of(told: Mapping[str, Any], settings: StudentSettings, room: int | None) -> dict[str, Any]:
    """How words are searched for.

    Args:
      told: what `generation_config.json` says. room: tokens that the language model has left for a caption; None: any.

    Raises:
      ValueError: the settings ask for more than fit. WeightsError: the file says what cannot be meant.
    """
    search = {name: told[name] for name in SEARCHED if told.get(name) is not None}
    for name in ("num_beams", "max_new_tokens"):
        if not isinstance(value := search.get(name, 1), int) or value < 1:
            raise WeightsError(f"{settings.weights}/{SEARCH}: {name} must be a whole number from 1 up, not {value!r}")
    asked = settings.max_new_tokens
    if room is not None and asked > room:
        raise ValueError(f"max_new_tokens must be at most {room} for {settings.weights}, not {asked}")
    most = asked or search.get("max_new_tokens", MAX_NEW_TOKENS)
    return {**search, "do_sample": False, "max_new_tokens": most if room is None else min(most, room)}


class Student:
    """A student on its device; see `resident.Network`.

    Args:
      settings: which one, and what it reads. device: where it computes.

    Raises:
      WeightsError: no student, or files that are missing. ValueError: settings that do not fit it.
    """

    def __init__(self, settings: StudentSettings, device: Device):
        from model_handlers.student_network import register

        register()
        folder = _fetched(settings)
        reading = check_student(settings.weights, folder)
        self._device, self._sees, self._asked = device, settings.inputs, reading.frames
        with _called(settings.weights, folder):
            self.model = load_model("AutoModel", Settings(folder), device)
            inputs = StudentInputs.load(folder)
        config = self.model.config
        limit = getattr(config.text_config.get_text_config(), "max_position_embeddings", None)
        room = None if limit is None else limit - config.prefix
        told = read_values(settings.weights, folder, SEARCH) if os.path.isfile(os.path.join(folder, SEARCH)) else {}
        self.search = search_of(told, settings, room)
        check_frames(settings, reading)
        places = config.max_text_tokens
        if settings.text_tokens > places:
            raise ValueError(f"text_tokens must be at most {places} for {settings.weights}, not {settings.text_tokens}")
        most = min(settings.text_tokens or reading.text_tokens, places)
        self.inputs = StudentInputs(inputs.tokenizer, dataclasses.replace(inputs.reading, text_tokens=most))

    def prepare(self, request: Clip) -> dict[str, torch.Tensor]:
        """The clip's frames and texts as tensors, a batch of one."""
        seen = clip_frames(request, self._asked).frames
        return self.inputs.batch([Sample(seen, texts_of(request, self._sees))])

    def forward(self, prepared: Sequence[Mapping[str, torch.Tensor]]) -> Raw:
        batch = {name: tensor.to(self._device.name) for name, tensor in joined(prepared).items()}
        generated = self.model.generate(**batch, **self.search)
        end = self.inputs.tokenizer.eos_token_id
        tokens = sum(until_end(row, end).generated for row in generated.tolist())
        return Raw(self.inputs.words(generated), tokens)

    def finish(self, request: Clip, raw: str) -> str:
        return answers.clean(raw)


def _fetched(settings: StudentSettings) -> str:
    """The directory on this machine, copied from a bucket or the hub where it is there."""
    place = settings.place()
    if not place.revision:
        return place.path
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(place.path, revision=place.revision, allow_patterns=[f"*{kind}" for kind in FILES])
    except (OSError, ValueError) as error:
        told = " ".join(str(error).split())[:300]
        raise WeightsError(f"{settings.weights} can't be fetched from the hub: {told}") from error


@contextlib.contextmanager
def _called(weights: str, folder: str) -> Iterator[None]:
    """Call a copy in a cache what the user calls it, in what is told of it."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(str(error).replace(folder, weights)) from error


def joined(batches: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Batches of one as one batch, the texts padded on the right as `StudentInputs.batch` does."""
    import torch
    from torch.nn.functional import pad

    longest = max(batch["text_ids"].shape[1] for batch in batches)
    texts = {
        name: torch.cat([pad(batch[name], (0, longest - batch[name].shape[1])) for batch in batches])
        for name in ("text_ids", "text_mask")
    }
    return {"pixel_values": torch.cat([batch["pixel_values"] for batch in batches]), **texts}


class StudentTeacher(ResidentHandler[Clip, str]):
    """A student, with its frames and as much of a clip's text as its inputs name.

    Raises:
      ValueError: inputs without V.
    """

    settings: StudentSettings

    def __init__(self, name: str, settings: StudentSettings):
        super().__init__(name, settings)
        check_sees(name, settings)

    def network(self, device: Device) -> Student:
        return Student(self.settings, device)
