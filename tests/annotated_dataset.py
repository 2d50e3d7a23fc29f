"""A dataset to be judged: three teachers, two of whom say the same of some clips, and answers to questions about it."""

from __future__ import annotations

import csv
import json
import pathlib
from typing import Any

from report_dataset import candidate, clip, video, write_dataset, write_reel

from beam_pipeline.annotate_choices import unseal

TEACHERS = ("teacher-blip", "teacher-git", "teacher-text")
SCENES = ("a boat on a lake", "two men cook pasta", "a $5 bill lies on a $table", "=SUM(1) on a screen")
WHEN = "2026-03-09T22:16:08.728353Z"


def candidates(scene: str, number: int, scores: tuple[float, ...] = (0.75, 0.5, 0.25)) -> list[dict[str, Any]]:
    """One caption says what the next one does in other letters, where the number is odd."""
    second = f"{scene.capitalize()}." if number % 2 else f"{scene} and number {number}"
    said = zip(TEACHERS, (scene, second, f"nothing but {number} birds"), scores, strict=True)
    return [candidate(*one) for one in said]


def write_judged(folder: pathlib.Path, videos: int = 4, clips_each: int = 3, reels: bool = True) -> pathlib.Path:
    """Clips `v0-0-4000`, `v0-5000-9000` ..., and one more, `plain-0-4000`, of one caption alone."""
    films = [video(f"v{number}", 20.0) for number in range(videos)]
    clips = []
    for number in range(videos):
        for part in range(clips_each):
            said = candidates(SCENES[(number + part) % len(SCENES)], part, (0.75, 0.5 + 0.01 * number, 0.25))
            clips.append(clip(f"v{number}", part * 5.0, part * 5.0 + 4, said))
    only = [candidate(name, "all the same", 0.5) for name in TEACHERS]
    write_dataset(folder, videos=[*films, video("plain", 5.0)], clips=[*clips, clip("plain", 0.0, 4.0, only)])
    for number in range(videos) if reels else ():
        write_reel(folder, f"v{number}", 20.0, (64, 36))
    return folder


def tasks_of(output: pathlib.Path) -> list[dict[str, Any]]:
    """The tasks of a project of Label Studio."""
    return json.loads((output / "tasks.json").read_text("utf-8"))


def number_of(key: str, teacher: str | None) -> int:
    """What a question's choice by this teacher is called; 0 for none."""
    choices = unseal(key).choices
    return next((at for at, one in enumerate(choices, 1) if teacher in one.teachers), 0)


def annotation(
    task: dict[str, Any], by: Any, teacher: str | None, *, better: str | None = None, at: str = WHEN, **more: Any
) -> dict[str, Any]:
    """An annotation as Label Studio writes it into its JSON export."""
    chosen = str(number_of(task["data"]["key"], teacher))
    return ticked(task, by, [chosen], "best", better=better, at=at, **more)


def ticked(
    task: dict[str, Any], by: Any, chosen: list[str], name: str = "good", *, better: str | None = None, at: str = WHEN,
    **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """The same for choices by their numbers."""
    result = [{"from_name": name, "to_name": "clip", "type": "choices", "value": {"choices": chosen}}]
    if better:
        result.append({"from_name": "better", "to_name": "clip", "type": "textarea", "value": {"text": [better]}})
    told = {"id": 1, "completed_by": by, "result": result, "was_cancelled": False, "lead_time": 4.25}
    return {**told, "created_at": at, "updated_at": at, **more}


def write_export(path: pathlib.Path, tasks: list[dict[str, Any]], annotations: list[list[dict[str, Any]]]) -> str:
    """Label Studio's JSON export of these tasks with these annotations each."""
    told = [
        {"id": number, **task, "annotations": theirs, "meta": {}, "project": 1}
        for number, (task, theirs) in enumerate(zip(tasks, annotations, strict=True), 1)
    ]
    path.write_text(json.dumps(told), encoding="utf-8")
    return str(path)


def fill_in(path: pathlib.Path, choices: dict[str, str], delimiter: str = ",", **columns: str) -> str:
    """Fill the table's choices in, by clip_id, as a spreadsheet would; `columns` go into every row."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(path, "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "choice": choices.get(row["clip_id"], ""), **columns})
    return str(path)
