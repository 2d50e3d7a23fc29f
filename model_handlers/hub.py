"""The models that Transformers loads or that another process serves, out of `hub_models.yaml`.

    for kind, name, family, settings, about in models(): ...

A family is a class of handlers with the settings it takes; nothing of Transformers is imported here.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import yaml
from apache_beam.ml.inference.base import ModelHandler

from model_handlers.chat_teacher import ChatTeacher
from model_handlers.dual_selectors import DualEncoderSelector
from model_handlers.endpoint_teacher import EndpointSettings, EndpointTeacher
from model_handlers.image_teachers import CaptionerTeacher, FlorenceTeacher, florence_task
from model_handlers.instruct_teacher import InstructTeacher
from model_handlers.settings import Settings
from model_handlers.student_teacher import StudentSettings, StudentTeacher
from model_handlers.text_teacher import TextChatTeacher
from model_handlers.tower_embedder import TowerEmbedder
from model_handlers.umt_selector import UmtSelector, UmtSettings
from model_handlers.video_selectors import VideoTextSelector
from model_handlers.vllm_teacher import VllmSettings, VllmTeacher


class FlorenceSettings(Settings):
    """Settings whose `prompt` names one of Florence-2's tasks."""

    def checked(self) -> Self:
        florence_task(self.prompt)
        return self

    def prompt_id(self) -> str:
        return f"florence-{self.prompt or 'detailed-caption'}/{self.inputs}/{self.wording()}"


@dataclasses.dataclass(frozen=True)
class Family:
    """A class of handlers and the settings it takes."""

    handler: Callable[[str, Any], ModelHandler]
    settings: type[Settings] = Settings


FAMILIES = {
    "captioner": Family(CaptionerTeacher),
    "instruct": Family(InstructTeacher),
    "florence": Family(FlorenceTeacher, FlorenceSettings),
    "student": Family(StudentTeacher, StudentSettings),
    "chat": Family(ChatTeacher),
    "text": Family(TextChatTeacher),
    "endpoint": Family(EndpointTeacher, EndpointSettings),
    "vllm": Family(VllmTeacher, VllmSettings),
    "tower": Family(TowerEmbedder),
    "dual": Family(DualEncoderSelector),
    "video-text": Family(VideoTextSelector),
    "umt": Family(UmtSelector, UmtSettings),
}


@dataclasses.dataclass(frozen=True)
class HubModel:
    """One model of the file. `about`: what `catalogue.Entry` says of it, licence and all."""

    name: str
    family: Family
    settings: Settings
    about: Mapping[str, Any]


def models(kind: str) -> Iterator[HubModel]:
    """The models of one kind: "teachers", "embedders" or "selectors"."""
    for name, values in _read()[kind].items():
        family = FAMILIES[values["family"]]
        known = {field.name for field in dataclasses.fields(family.settings)}
        settings = family.settings(**{key: value for key, value in values.items() if key in known})
        about = {key: value for key, value in values.items() if key not in {*known, "family"}}
        yield HubModel(name, family, settings, about)


@functools.cache
def _read() -> dict[str, dict[str, dict[str, Any]]]:
    return yaml.safe_load((importlib.resources.files("model_handlers") / "hub_models.yaml").read_text("utf-8"))
