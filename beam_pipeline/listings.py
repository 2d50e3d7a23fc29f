"""What can be chosen: the text of `reelscribe profiles` and `reelscribe teachers`."""

from __future__ import annotations

import itertools
import textwrap

from beam_pipeline.config import load_config, profile_names, profile_values
from beam_pipeline.rules import RULES
from model_handlers import catalogue
from model_handlers.catalogue import Entry
from model_handlers.measures import catalogue as measures


def profiles_text() -> str:
    """Each profile with its models, and each set of splitting rules."""
    lines = ["PROFILES (--profile)"]
    for name in profile_names():
        values, config = profile_values(name), load_config(name, complete=False)
        lines += [f"\n{name}: {values['summary']}"]
        lines += _wrapped(f"splitting {config.rules}, embedder {config.embedder.name}, selector {config.selector.name}")
        lines += _wrapped("teachers " + ", ".join(teacher.name for teacher in config.teachers))
    lines += ["\nSPLITTING RULES (--splitting)"]
    lines += [f"\n{name}: {rules.summary}" for name, rules in RULES.items()]
    lines += ["\nMEASURES (--measure A,B or all; those that need weights: measures: {NAME: ...} in --config FILE.yaml)"]
    lines += [f"\n{name}: {summary}" for name, summary in measures.SUMMARIES.items()]
    return "\n".join(lines)


def teachers_text() -> str:
    """The whole catalogue, with what a user should know before choosing."""
    sections = (
        ("TEACHERS", catalogue.TEACHERS),
        ("EMBEDDERS", catalogue.EMBEDDERS),
        ("SELECTORS", catalogue.SELECTORS),
    )
    lines = ["Inputs: V(ision), S(ubtitles), M(etadata: title and description).", *_paper_lines()]
    for title, entries in sections:
        lines.append(f"\n{title}")
        for entry in entries.values():
            lines += ["", *_entry_lines(entry)]
    return "\n".join(lines)


#: Those of the paper's models that Transformers can load as they are.
_THEMSELVES = ("BLIP-2 opt-2.7b", "BLIP-2 opt-6.7b", "BLIP-2 flan-t5-xl", "Unmasked Teacher")


def _paper_lines() -> list[str]:
    """What plays the part of each of the paper's models."""
    kinds = (catalogue.EMBEDDERS, catalogue.TEACHERS, catalogue.SELECTORS)
    lines = ["\nTHE PAPER'S MODELS"]
    for entry in itertools.chain.from_iterable(kind.values() for kind in kinds):
        if entry.stands_for:
            how = "itself" if entry.stands_for in _THEMSELVES else "an heir; the model itself is not in Transformers"
            lines.append(f"    {entry.stands_for:24} {entry.name} ({how})")
    told = (
        "The originals can be teachers, too: serve them by their authors' code behind an OpenAI-compatible endpoint, "
        "and name it as the teacher `endpoint`. Which texts each of the five that read any was given stands in the "
        "paper as a drawing alone; here each gets all of them but Video-LLaMA, pretrained, which gets none."
    )
    return [*lines, "", *_wrapped(told)]


def _entry_lines(entry: Entry) -> list[str]:
    needs = f", inputs {entry.inputs}{' (text needed)' if entry.needs_text else ''}"
    lines = [f"{entry.name}{needs}, {entry.licence}", *_wrapped(entry.summary)]
    if entry.parameters_b:
        size = f"{entry.parameters_b:g} B parameters, about {entry.memory_gb:.0f} GB on a GPU"
        gate = ", asks for an account that agreed to the licence" if entry.gated else ""
        lines += _wrapped(f"{size}, {entry.download_gb:g} GB to download{gate}")
    if entry.restricted:
        lines += _wrapped(f"restricted: {entry.restricted}")
    return [*lines, *_wrapped(f"{entry.model} {entry.revision}".strip())]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
