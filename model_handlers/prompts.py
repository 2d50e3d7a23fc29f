"""What teachers are asked: templates out of prompts.yaml, filled with a clip's text, cut to what the model can read.

    asked = fit(prompt("video-sentence"), clip, "V-S-M", count_tokens, 2048, special_tokens=special_tokens)
    chat = asked.messages([{"type": "video"}])       # for processor.apply_chat_template
    asked.text, asked.prompt_id, asked.dropped       # for models without one; provenance; sentences that did not fit

The paper hands subtitles, title and description over and asks for a faithful summary in one sentence (section 3.2 of
arXiv 2402.19479); the wording here is ours. The texts are other people's: the model is told so, and nothing in them can
end their quotation, open a turn of the chat, or stand for a picture.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.resources
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import yaml

from model_handlers.inert_yaml import read_inert
from model_handlers.long_captions import joined, sentences
from model_handlers.nearest import nearest
from model_handlers.quoting import harmless
from transforms.records import Clip

#: What a teacher sees: V(ision), S(ubtitles), M(etadata: title and description).
Inputs = Literal["V", "V-S", "V-M", "V-S-M", "S-M"]

SLOTS = ("title", "description", "subtitles", "tags")
_SLOTS_OF = {"S": ("subtitles",), "M": ("title", "description")}
FENCE = '"""'
#: Stands where sentences were dropped.
GAP = "[...]"
_SLOT_LINE = re.compile(r"\s*\{(\w+)\}\s*")
_ANY_SLOT = re.compile(r"\{(\w+)\}")


class PromptError(ValueError):
    """A prompt that is unknown, cannot be meant, or has no place for what it is given; one line with the right name."""


class PromptTooLong(ValueError):
    """A request that exceeds its budget even without any text; the message names the budget."""


class NothingToTell(ValueError):
    """A clip without text or tags, for a model that sees no picture."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One template.

    Attributes:
      prompt_id: name and version; a user's file adds a digest of the wording, so that it changes with it.
      system: the system message, if any.
      request: without text; may hold {tags}. request_with_text: with slots on lines of their own.
      introductions: what stands before the text of each slot.
    """

    prompt_id: str
    system: str | None
    request: str
    request_with_text: str
    introductions: Mapping[str, str]

    @property
    def slots(self) -> set[str]:
        """Those it has lines for."""
        return set(_ANY_SLOT.findall(f"{self.request} {self.request_with_text}"))

    def check(self, inputs: str) -> None:
        """Raise `PromptError` unless the prompt has a line for whatever `inputs` hand over."""
        if inputs not in get_args(Inputs):
            raise PromptError(f"there are no inputs {inputs!r}; {nearest(inputs, get_args(Inputs))}")
        for letter, wanted in _SLOTS_OF.items():
            if letter in inputs.split("-") and not self.slots.intersection(wanted):
                lines = " or ".join(f"{{{slot}}}" for slot in wanted)
                raise PromptError(f"the inputs {inputs} need a line {lines} in the prompt {self.prompt_id}")


@dataclasses.dataclass(frozen=True)
class Asked:
    """A prompt as it goes to a model. `dropped`: sentences that did not fit, a dropped title counting as one."""

    prompt_id: str
    system: str | None
    request: str
    dropped: int

    @property
    def text(self) -> str:
        """All of it, for models without a chat template; this is what the budget is for."""
        return f"{self.system}\n\n{self.request}" if self.system else self.request

    def messages(self, seen: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
        """The chat for `apply_chat_template`.

        Args:
          seen: the content parts of the picture, [{"type": "video"}]; they stand before the words. Without any the
            contents are plain strings, as templates of text-only models want them.
        """
        chat = [(role, words) for role, words in (("system", self.system), ("user", self.request)) if words]
        if not seen:
            return [{"role": role, "content": words} for role, words in chat]
        pictures = {"user": [dict(part) for part in seen]}
        return [
            {"role": role, "content": [*pictures.get(role, []), {"type": "text", "text": words}]}
            for role, words in chat
        ]


@dataclasses.dataclass(frozen=True)
class _Texts:
    """A clip's texts as they may be quoted: clean, in sentences; what is absent is empty."""

    title: str
    description: tuple[str, ...]
    subtitles: tuple[str, ...]
    tags: str

    @property
    def count(self) -> int:
        return len(self.subtitles) + len(self.description) + bool(self.title)

    def without(self, dropped: int) -> dict[str, str]:
        """The slots' texts after `dropped` sentences went: subtitles first, then the description, then the title."""
        spoken = min(dropped, len(self.subtitles))
        written = min(dropped - spoken, len(self.description))
        title = self.title if dropped - spoken - written == 0 else ""
        description, subtitles = _hollowed(self.description, written), _hollowed(self.subtitles, spoken)
        return {"title": title, "description": description, "subtitles": subtitles}


def fit(
    prompt: Prompt,
    clip: Clip,
    inputs: Inputs,
    count_tokens: Callable[[str], int],
    budget: int,
    *,
    tags: Sequence[str] = (),
    special_tokens: Iterable[str] = (),
) -> Asked:
    """Fill a prompt with as much of the clip's text as the budget holds.

    What is too long loses whole sentences: of the subtitles from the middle outwards, the first one last; then of the
    description likewise; then the title. The order is fixed, so the number to drop is found by halving: the tokenizer
    is asked about log2(sentences) + 2 times.

    Args:
      inputs: which texts are handed over; without V the model sees no picture, and needs one of them.
      count_tokens: of a string; called with `Asked.text`.
      budget: tokens that system message and request may have together. What the picture, the chat template and the
        answer take goes off beforehand.
      tags: what a recogniser saw, surest first, for prompts with {tags}.
      special_tokens: of the tokenizer and the processor; none of them survives in a text.

    Raises:
      PromptError: the prompt has no line for what it is given.
      NothingToTell: the model sees no picture, and there is nothing else.
      PromptTooLong: the budget does not hold the request without any text.
    """
    prompt.check(inputs)
    if tags and "tags" not in prompt.slots:
        raise PromptError(f"the prompt {prompt.prompt_id} has no line {{tags}} for the {len(tags)} tags")
    texts = _texts(clip, _handed(inputs).intersection(prompt.slots), tags, tuple(special_tokens))
    blind = not texts.tags and ("V" not in inputs.split("-") or "tags" in _ANY_SLOT.findall(prompt.request))
    if blind and not texts.count:
        raise NothingToTell(f"{prompt.prompt_id} has neither text nor tags of this clip, and its model sees no picture")

    def ask(dropped: int) -> Asked:
        kept = texts.without(dropped)
        template = prompt.request_with_text if any(kept.values()) else prompt.request
        request = _fill(template, {**kept, "tags": texts.tags}, prompt.introductions)
        return Asked(prompt.prompt_id, prompt.system, request, dropped)

    if count_tokens((whole := ask(0)).text) <= budget:
        return whole
    # `short` drops enough, `long` does not; a blind model keeps the last of its text.
    long, short = 0, texts.count - blind
    if (least := count_tokens(ask(short).text)) > budget:
        raise PromptTooLong(
            f"the prompt {prompt.prompt_id} has {least} tokens at its shortest, but its budget is {budget};"
            " choose a model with a longer context, fewer frames or a shorter prompt"
        )
    while short - long > 1:
        middle = (long + short) // 2
        if count_tokens(ask(middle).text) <= budget:
            short = middle
        else:
            long = middle
    return ask(short)


def prompt(name: str, file: str | None = None) -> Prompt:
    """The prompt called `name`, of the user's file or built in; `PromptError` with the nearest right name."""
    known = load_prompts(file)
    if name not in known:
        raise PromptError(f"there is no prompt {name!r}; {nearest(name, known)}")
    return known[name]


def load_prompts(file: str | None = None) -> dict[str, Prompt]:
    """The built-in prompts by name, and those of a YAML file in the same form, which go before them.

    Raises:
      PromptError: the file is unreadable, or a prompt in it cannot be meant.
    """
    return {**_built_in(), **(_read(file) if file else {})}


@functools.cache
def _built_in() -> dict[str, Prompt]:
    text = (importlib.resources.files("model_handlers") / "prompts.yaml").read_text("utf-8")
    return {name: _build(name, values, digest=False) for name, values in yaml.safe_load(text).items()}


def _read(file: str) -> dict[str, Prompt]:
    try:
        values = read_inert(pathlib.Path(file).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PromptError(f"cannot read the prompts in {file}: {' '.join(str(error).split())}") from error
    if not isinstance(values, Mapping) or not values:
        raise PromptError(f"{file} must be a mapping of prompt names to prompts, as model_handlers/prompts.yaml is")
    return {str(name): _build(str(name), prompt_values, digest=True) for name, prompt_values in values.items()}


_KEYS = ("version", "system", "request", "request_with_text", "introductions")


def _build(name: str, values: Any, *, digest: bool) -> Prompt:
    """A prompt out of its YAML; `PromptError` says what is wrong with it."""
    where = f"the prompt {name!r}"
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,60}", name):
        raise PromptError(f"{where} needs a name of small letters, digits and dashes")
    if not isinstance(values, Mapping):
        raise PromptError(f"{where} must be a mapping with the keys {', '.join(_KEYS)}")
    _known(values, _KEYS, "key", where)
    introductions = values.get("introductions") or {}
    if not isinstance(introductions, Mapping):
        raise PromptError(f"introductions of {where} must be a mapping of slots to words")
    _known(introductions, SLOTS, "slot", where)
    texts: dict[str, Any] = {key: values.get(key) for key in ("request", "request_with_text")}
    texts |= {f"introduction of {slot}": words for slot, words in introductions.items()}
    if values.get("system") is not None:
        texts["system"] = values["system"]
    for key, words in texts.items():
        if not isinstance(words, str) or not words.strip():
            raise PromptError(f"{where} needs words under {key}, not {words!r}")
    version = values.get("version")
    if type(version) is not int or version < 1:
        raise PromptError(f"{where} needs a version, 1 or more, not {version!r}; a new wording is a new version")
    slots = _slots(texts["request_with_text"], where)
    if wrong := _slots(texts["request"], where) - {"tags"}:
        raise PromptError(f"request of {where} goes out without text and can't hold {{{min(wrong)}}}")
    slots |= _slots(texts["request"], where)
    if unmatched := slots ^ set(introductions):
        raise PromptError(f"{where} needs both a line {{{min(unmatched)}}} and its introduction")
    wording = [texts.get("system"), texts["request"], texts["request_with_text"], dict(introductions), FENCE, GAP]
    suffix = hashlib.sha256(json.dumps(wording, sort_keys=True).encode()).hexdigest()[:8]
    prompt_id = f"{name}-{version}-{suffix}" if digest else f"{name}-{version}"
    return Prompt(prompt_id, texts.get("system"), texts["request"], texts["request_with_text"], dict(introductions))


def _slots(template: str, where: str) -> set[str]:
    """The slots of a template, each of which has one line for itself."""
    named = _ANY_SLOT.findall(template)
    _known(named, SLOTS, "slot", where)
    alone = [match.group(1) for line in template.splitlines() if (match := _SLOT_LINE.fullmatch(line))]
    for slot in named:
        if alone.count(slot) != 1 or named.count(slot) != 1:
            raise PromptError(f"{{{slot}}} must stand once in a template of {where}, on a line of its own")
    return set(named)


def _known(names: Iterable[Any], known: Sequence[str], what: str, where: str) -> None:
    for name in names:
        if name not in known:
            raise PromptError(f"there is no {what} {name!r} in {where}; {nearest(name, known)}")


def _fill(template: str, texts: Mapping[str, str], introductions: Mapping[str, str]) -> str:
    """The template with its slots filled; the line of an absent one vanishes with its introduction."""
    lines = []
    for line in template.splitlines():
        if not (slot := _SLOT_LINE.fullmatch(line)):
            lines.append(line)
        elif text := texts[slot.group(1)]:
            lines.append(f"{introductions[slot.group(1)].strip()}\n{FENCE}\n{text}\n{FENCE}")
    # Texts stand on one line each, so that only blank lines of the template meet here.
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _hollowed(parts: Sequence[str], dropped: int) -> str:
    """The text without `dropped` sentences from its middle outwards, and a mark where they were."""
    left = len(parts) - dropped
    if not (dropped and left):
        return joined(parts[:left])
    head = (left + 1) // 2
    return " ".join(filter(None, [joined(parts[:head]), GAP, joined(parts[head + dropped :])]))


def _handed(inputs: str) -> set[str]:
    """The slots that inputs fill."""
    letters = inputs.split("-")
    return {slot for letter, slots in _SLOTS_OF.items() if letter in letters for slot in slots}


def _texts(clip: Clip, handed: set[str], tags: Sequence[str], special_tokens: tuple[str, ...]) -> _Texts:
    def read(slot: str) -> tuple[str, ...]:
        return _sentences(getattr(clip, slot), special_tokens) if slot in handed else ()

    named = filter(None, (joined(_sentences(tag, special_tokens)) for tag in tags))
    return _Texts(" ".join(read("title")), read("description"), read("subtitles"), ", ".join(named))


# A title and a description come again with every clip of their video and every teacher.
@functools.lru_cache(maxsize=64)
def _sentences(text: str | None, special_tokens: tuple[str, ...]) -> tuple[str, ...]:
    found = sentences(harmless(text or "", special_tokens))
    return tuple(found) if any(map(str.isalnum, "".join(found))) else ()
