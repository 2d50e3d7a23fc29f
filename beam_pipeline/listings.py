"""What can be chosen: the text of `reelscribe profiles` and `reelscribe teachers`."""

from __future__ import annotations

import textwrap

from beam_pipeline.config import RULES, load_config, profile_names, profile_values
from model_handlers import catalogue
from model_handlers.catalogue import Entry


def profiles_text() -> str:
    """Each profile with its models, and each set of splitting rules."""
    lines = ["PROFILES (--profile)"]
    for name in profile_names():
        values, config = profile_values(name), load_config(name)
        lines += [f"\n{name}: {values['summary']}"]
        lines += _wrapped(f"splitting {config.rules}, embedder {config.embedder.name}, selector {config.selector.name}")
        lines += _wrapped("teachers " + ", ".join(teacher.name for teacher in config.teachers))
    lines += ["\nSPLITTING RULES (--splitting)"]
    lines += [f"\n{name}: {rules.summary}" for name, rules in RULES.items()]
    lines += ["\nMEASURES (measures: {NAME: WEIGHTS} in --config FILE.yaml)"]
    lines += [f"\n{name}: {summary}" for name, summary in catalogue.MEASURES.items()]
    return "\n".join(lines)


def teachers_text() -> str:
    """The whole catalogue, with what a user should know before choosing."""
    sections = (
        ("TEACHERS", catalogue.TEACHERS),
        ("EMBEDDERS", catalogue.EMBEDDERS),
        ("SELECTORS", catalogue.SELECTORS),
    )
    lines = ["Inputs: V(ision), S(ubtitles), M(etadata: title and description)."]
    for title, entries in sections:
        lines.append(f"\n{title}")
        for entry in entries.values():
            lines += ["", *_entry_lines(entry)]
    return "\n".join(lines)


def _entry_lines(entry: Entry) -> list[str]:
    needs = f", inputs {entry.inputs}{' (text needed)' if entry.needs_text else ''}"
    return [
        f"{entry.name}{needs}, {entry.licence}",
        *_wrapped(entry.summary),
        *_wrapped(f"{entry.model} {entry.revision}"),
    ]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent="    ", subsequent_indent="    ")
