"""Where every good caption was asked for: answers of several numbers, and what they say beside those about the best."""

import json
import re

import pytest
from annotated_dataset import TEACHERS, annotation, fill_in, tasks_of, ticked, write_export, write_judged

from beam_pipeline.annotate_clips import AskOptions
from beam_pipeline.annotate_export import export_questions
from beam_pipeline.annotate_import import import_answers
from beam_pipeline.cli import main
from transforms.judgements import judgements_of

BLIP = TEACHERS[0]


@pytest.fixture
def dataset(tmp_path):
    return str(write_judged(tmp_path / "set"))


@pytest.fixture
def tasks(dataset, tmp_path):
    """What was asked about the best caption."""
    export_questions(dataset, str(tmp_path / "best"), AskOptions("label-studio", clips=100))
    return tasks_of(tmp_path / "best")


def good_ones(dataset):
    return {one.clip_id: one.good for one in judgements_of(dataset)}


@pytest.mark.parametrize("form", ["csv", "jsonl", "label-studio"])
def test_several_numbers_are_every_good_caption(dataset, tmp_path, form, capsys):
    export_questions(dataset, str(tmp_path / "ask"), AskOptions(form, clips=100, choose="every-good"))
    filled = {
        "v0-0-4000": "1,3", "v1-0-4000": "0", "v2-0-4000": " 2 ; 3, ", "v3-0-4000": "3.0", "v1-10000-14000": "2,2 1",
        "v0-5000-9000": "0,1", "v1-5000-9000": "1,9", "v2-5000-9000": "1 and 2", "v3-5000-9000": "",
    }  # fmt: skip
    if form == "csv":
        path = fill_in(tmp_path / "ask" / "annotate.csv", filled)
    elif form == "jsonl":
        rows = map(json.loads, (tmp_path / "ask" / "annotate.jsonl").read_text("utf-8").splitlines())
        filled |= {"v0-0-4000": [1, 3], "v3-0-4000": 3}
        path = str(tmp_path / "answers.jsonl")
        lines = [json.dumps({**row, "choice": filled.get(row["clip_id"])}) for row in rows]
        (tmp_path / "answers.jsonl").write_text("\n".join(lines), "utf-8")
    else:
        tasks = tasks_of(tmp_path / "ask")
        numbers = {clip_id: re.findall(r"[0-9a-z]+", told.replace(".0", "")) for clip_id, told in filled.items()}
        said = [[ticked(task, 7, numbers.get(task["data"]["clip_id"], []))] for task in tasks]
        path = write_export(tmp_path / "e.json", tasks, said)
    assert main(["annotate", "import", dataset, path]) == 0
    told = capsys.readouterr().out.splitlines()
    assert good_ones(dataset) == {
        "v0-0-4000": {0, 2}, "v1-0-4000": frozenset(), "v2-0-4000": {1, 2}, "v3-0-4000": {2}, "v1-10000-14000": {0, 1},
    }  # fmt: skip
    assert told[0] == "judgements  5 new"
    assert told[2] == "labels      5 by majority, 1 of them `all bad`; ties 0"
    assert told[4:] == [
        "problem     answers that do not go with their key, changed or none of ours, left out: 2 "
        f"(such as {next(one for one in asked_of(tmp_path / 'ask') if one in ('v1-5000-9000', 'v2-5000-9000'))})",
        "problem     answers that all captions are bad, and that some are good, left out: 1 (such as v0-5000-9000)",
    ]
    again = import_answers(dataset, [path])
    assert (again.stored.unchanged, again.stored.new) == (5, 0)


def asked_of(folder):
    """The clips of a folder of questions, in the order in which they are asked about."""
    if (folder / "tasks.json").exists():
        return [task["data"]["clip_id"] for task in tasks_of(folder)]
    if (folder / "annotate.csv").exists():
        return [line.partition(",")[0] for line in (folder / "annotate.csv").read_text("utf-8-sig").splitlines()]
    return [json.loads(line)["clip_id"] for line in (folder / "annotate.jsonl").read_text("utf-8").splitlines()]


def test_several_numbers_are_no_answer_where_the_best_was_asked_for(dataset, tasks, tmp_path):
    twice = ticked(tasks[0], 7, ["1", "2"], "best")
    done = import_answers(dataset, [write_export(tmp_path / "e.json", tasks[:1], [[twice]])])
    assert (done.stored.new, [one.count for one in done.problems]) == (0, [1])


def test_good_captions_are_told_apart_from_the_best_in_agreement_and_in_what_was_judged(
    dataset, tasks, tmp_path, capsys
):
    best = [[annotation(task, by, BLIP) for by in (7, 8)] for task in tasks]
    command = ["annotate", "export", dataset, "--to", "label-studio", "--choose", "every-good", "--clips", "100"]
    assert main(["annotate", "import", dataset, write_export(tmp_path / "b.json", tasks, best)]) == 0
    assert main([*command, "--skip-judged", "--output", str(tmp_path / "ask")]) == 0
    again = tasks_of(tmp_path / "ask")
    assert len(again) == 12, "nobody said which are good"
    good = [[ticked(task, 7, ["1", "2"]), ticked(task, 8, ["1"])] for task in again]
    capsys.readouterr()
    assert main(["annotate", "import", dataset, write_export(tmp_path / "g.json", again, good)]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("agreement")]
    # Of 32 captions, two or three a clip, people differ on the second one of each of 12 clips. 36 of 64 marks are
    # good: by chance half of the pairs would differ, and 12 of 32 do.
    assert told == [
        "agreement   100.0% of pairs, Krippendorff's alpha 1.000, on 12 clips that two or more judged",
        "agreement   62.5% of pairs, Krippendorff's alpha 0.250, on 32 captions, each good or bad, that two or more "
        "judged",
    ]
    assert main([*command, "--skip-judged", "--output", str(tmp_path / "third")]) == 2
