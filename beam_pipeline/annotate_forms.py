"""The forms in which people are asked: a project of Label Studio, a table for a spreadsheet, or JSON Lines.

    write_form("label-studio", folder, questions, Shown("video", place))

In all of them choices have numbers, in the order shown, and 0 says that all are bad. Where every good caption is asked
for, people tick boxes, or write several numbers with commas between them.

Label Studio shows a choice's `value` and stores its `alias`; what follows a dollar sign in a value it takes for a
field's name, as in "a $5 bill", hence `inert`.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import urllib.parse
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from beam_pipeline.annotate_choices import Task, seal
from beam_pipeline.export_panda70m import neutral
from transforms.new_folders import NewFolder

FORMS = ("label-studio", "csv", "jsonl")

ALL_BAD = "0"
#: What somebody reads who is asked, by what they may choose.
QUESTIONS = {
    "best": "Which caption describes the clip best?",
    "every-good": "Tick every caption that describes the clip well.",
}
#: Results of Label Studio are called by these names, by what people may choose.
RESULTS = {"best": "best", "every-good": "good"}
NONE_FITS = "All of them are bad"
OWN_WORDS = "A better caption in your own words, if you like"

#: Columns of the table besides the captions.
TABLE_COLUMNS = ("clip_id", "media", "choice", "better_caption", "annotator", "key")

_LOCAL = "/data/local-files/?d="
_WORD_JOINER = "\u2060"  # Takes no room, and is nothing that a field's name can begin with.


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """A task, and the path or address of what is to be seen."""

    task: Task
    media: str


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """What all questions of one export show.

    Attributes:
      kind: "video" or "image".
      title: what the folder is called below which media stand, or None where they have addresses of their own.
    """

    kind: str
    title: str | None


def write_form(form: str, folder: NewFolder, questions: Sequence[Question], shown: Shown, choose: str = "best") -> None:
    """Write the questions, all of which are to be answered alike, into the folder's files."""
    if form == "label-studio":
        files = {
            "tasks.json": json.dumps([studio_task(one, shown) for one in questions], ensure_ascii=False, indent=1),
            "labels.xml": studio_labels(shown.kind, choose),
            "README.md": studio_readme(shown),
        }
    elif form == "csv":
        files = {"annotate.csv": table(questions)}
    else:
        files = {"annotate.jsonl": "".join(f"{json.dumps(line(one), ensure_ascii=False)}\n" for one in questions)}
    for name, text in files.items():
        with folder.writing(name) as (file, entry):
            file.write(text.encode())
            entry["questions"] = len(questions)


def studio_task(question: Question, shown: Shown) -> dict[str, Any]:
    """A task as Label Studio imports it."""
    choices = [
        {"alias": str(number), "value": inert(choice.caption)}
        for number, choice in enumerate(question.task.choices, start=1)
    ]
    media = question.media
    if shown.title is not None:
        media = _LOCAL + urllib.parse.quote(f"{shown.title}/{media}")
    return {
        "data": {
            "clip_id": question.task.clip_id,
            shown.kind: media,
            "captions": [*choices, {"alias": ALL_BAD, "value": NONE_FITS}],
            "key": seal(question.task),
        }
    }


def inert(caption: str) -> str:
    """A caption that looks the same, in which Label Studio finds no field's name.

    >>> inert("a $5 bill") == "a $\u20605 bill"
    True
    """
    return re.sub(r"\$(?=[\w\[\].{}])", f"${_WORD_JOINER}", caption)


def studio_labels(kind: str, choose: str = "best") -> str:
    """The labelling configuration, as XML."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, kind.capitalize(), name="clip", value=f"${kind}")
    ElementTree.SubElement(view, "Header", value=QUESTIONS[choose])
    several = "multiple" if choose == "every-good" else "single"
    choices = {"name": RESULTS[choose], "toName": "clip", "value": "$captions", "choice": several, "required": "true"}
    ElementTree.SubElement(view, "Choices", choices)
    ElementTree.SubElement(view, "Header", value=OWN_WORDS)
    words = {"name": "better", "toName": "clip", "rows": "2", "maxSubmissions": "1", "editable": "true"}
    ElementTree.SubElement(view, "TextArea", words)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def studio_readme(shown: Shown) -> str:
    """Three lines: how to start, what to import, how to get it back."""
    if shown.title is None:
        reach = (
            "1. Start Label Studio; its project needs a Cloud Storage source (pre-signed URLs) that reaches the media."
        )
    else:
        reach = (
            "1. Start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
            f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=(the folder in which `{shown.title}` stands); add to the project, "
            f"under Settings > Cloud Storage, a local source with the full path of `{shown.title}/media`, unsynced."
        )
    return (
        f"{reach}\n"
        "2. Paste `labels.xml` under Settings > Labeling Interface > Code, and import `tasks.json`.\n"
        "3. Export as JSON, and run: `reelscribe annotate import DATASET EXPORTED.json`\n"
    )


def table(questions: Sequence[Question]) -> str:
    """A row a question; people fill in `choice`, and may fill in `better_caption` and `annotator`."""
    most = max((len(one.task.choices) for one in questions), default=0)
    captions = [f"caption_{number}" for number in range(1, most + 1)]
    sink = io.StringIO()
    # With a mark at its beginning, by which Excel knows that it is UTF-8.
    sink.write("\ufeff")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([*TABLE_COLUMNS[:2], *captions, *TABLE_COLUMNS[2:]])
    for one in questions:
        said = [neutral(choice.caption) for choice in one.task.choices]
        blank = [""] * (most - len(said))
        writer.writerow([neutral(one.task.clip_id), one.media, *said, *blank, "", "", "", seal(one.task)])
    return sink.getvalue()


def line(question: Question) -> dict[str, Any]:
    """An object a question, with nulls where people answer."""
    return {
        "clip_id": question.task.clip_id,
        "media": question.media,
        "captions": [choice.caption for choice in question.task.choices],
        "choice": None,
        "better_caption": None,
        "annotator": None,
        "key": seal(question.task),
    }
