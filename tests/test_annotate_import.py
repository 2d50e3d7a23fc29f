"""What people answered, read back from every form, checked, and stored once."""

import json
import shutil

import pytest
from annotated_dataset import (
    TEACHERS,
    WHEN,
    annotation,
    fill_in,
    number_of,
    tasks_of,
    write_export,
    write_judged,
)

from beam_pipeline.annotate_answers import AnswerError, read_answers
from beam_pipeline.annotate_choices import Task, unseal
from beam_pipeline.annotate_clips import AskOptions
from beam_pipeline.annotate_export import export_questions
from beam_pipeline.annotate_forms import Question, line, table
from beam_pipeline.annotate_import import import_answers
from beam_pipeline.cli import main
from transforms.annotations import annotations_of
from transforms.judgements import Choice, annotator_digest, judgements_of
from transforms.lease import WriterLease

BLIP, GIT, TEXT = TEACHERS


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A dataset, and what was asked about it."""
    folder = tmp_path_factory.mktemp("answers")
    dataset = str(write_judged(folder / "set"))
    for form in ("label-studio", "csv", "jsonl"):
        export_questions(dataset, str(folder / form), AskOptions(form, clips=100))
    return folder


@pytest.fixture
def dataset(asked, tmp_path):
    shutil.copytree(asked / "set", tmp_path / "set")
    return str(tmp_path / "set")


@pytest.fixture
def tasks(asked):
    return tasks_of(asked / "label-studio")


def test_label_studios_json_becomes_judgements(dataset, tasks, tmp_path):
    by_anna = {"id": 7, "email": "anna@example.org"}
    answers = [[annotation(task, by_anna, BLIP), annotation(task, 8, TEXT)] for task in tasks]
    answers[0] = [annotation(tasks[0], by_anna, None, better="  two   words ")]
    path = write_export(tmp_path / "export.json", tasks, answers)
    done = import_answers(dataset, [path])
    assert (done.stored.new, done.clips, done.annotators, done.problems) == (23, 12, 2, ())
    found = {(one.clip_id, one.annotator): one for one in judgements_of(dataset)}
    anna, other = annotator_digest(dataset, "anna@example.org"), annotator_digest(dataset, "8")
    first = found[tasks[0]["data"]["clip_id"], anna]
    assert (first.chosen, first.chosen_teachers, first.better_caption) == (None, (), "two words")
    assert (first.lead_time_s, first.annotated_at.isoformat()) == (4.25, "2026-03-09T22:16:08.728353+00:00")
    assert first.video_id == first.clip_id.split("-")[0]
    assert found["v0-5000-9000", anna].chosen_teachers == (BLIP, GIT)
    assert found["v0-5000-9000", other].chosen_teachers == (TEXT,)
    assert first.source == read_answers(path).source


def minimal(tasks, choices):
    """JSON-MIN as Label Studio writes it: results by their names among the task's fields."""
    rows = [
        {**task["data"], "id": 1, "best": choice, "annotator": 7, "annotation_id": 3, "created_at": WHEN,
         "updated_at": WHEN, "lead_time": 4.25, **({"better": "more"} if at == 0 else {})}
        for at, (task, choice) in enumerate(zip(tasks, choices, strict=True))
    ]  # fmt: skip
    # A task that nobody answered.
    return [*rows, {**tasks[0]["data"], "id": 9, "annotator": {}, "annotation_id": None, "lead_time": None}]


def test_all_forms_of_one_project_are_the_same_judgements(dataset, asked, tasks, tmp_path):
    choices = [str(number_of(task["data"]["key"], BLIP)) for task in tasks]
    rows = minimal(tasks, choices)
    (tmp_path / "min.json").write_text(json.dumps(rows), "utf-8")
    import csv

    with open(tmp_path / "studio.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, sorted({name for row in rows for name in row}), quoting=csv.QUOTE_NONNUMERIC)
        writer.writeheader()
        for row in rows:
            cells = {name: json.dumps(cell) if isinstance(cell, list | dict) else cell for name, cell in row.items()}
            writer.writerow({**cells, "annotator": "" if isinstance(row["annotator"], dict) else row["annotator"]})
    answers = [[annotation(task, 7, BLIP, better="more" if at == 0 else None)] for at, task in enumerate(tasks)]
    whole = write_export(tmp_path / "whole.json", tasks, answers)
    first = read_answers(whole).answers
    assert len(first) == 12
    assert read_answers(str(tmp_path / "min.json")).answers == first
    assert read_answers(str(tmp_path / "studio.csv")).answers == first
    assert read_answers(str(tmp_path / "min.json")).unanswered == 1
    import_answers(dataset, [whole])
    again = import_answers(dataset, [str(tmp_path / "min.json"), str(tmp_path / "studio.csv")])
    assert (again.stored.new, again.stored.unchanged, again.problems) == (0, 12, ())


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_that_was_filled_in_is_read_whatever_its_commas(dataset, asked, tmp_path, delimiter):
    shutil.copy(asked / "csv" / "annotate.csv", tmp_path / "anna.csv")
    path = fill_in(tmp_path / "anna.csv", {"v0-0-4000": "1", "v1-0-4000": "0", "v2-0-4000": " 2.0 "}, delimiter)
    done = import_answers(dataset, [path])
    assert (done.stored.new, done.unanswered, done.problems) == (3, 9, ())
    found = {one.clip_id: one for one in judgements_of(dataset)}
    assert {clip_id: one.chosen for clip_id, one in found.items()} == {
        "v0-0-4000": 0, "v1-0-4000": None, "v2-0-4000": 1,
    }  # fmt: skip
    assert {one.annotator for one in found.values()} == {annotator_digest(dataset, "file anna")}


def test_json_lines_are_read(dataset, asked, tmp_path):
    lines = [json.loads(line) for line in (asked / "jsonl" / "annotate.jsonl").read_text("utf-8").splitlines()]
    lines[0] |= {"choice": 2, "annotator": "anna", "better_caption": "mine"}
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    done = import_answers(dataset, [str(tmp_path / "answers.jsonl")])
    (one,) = judgements_of(dataset)
    assert (done.unanswered, one.clip_id, one.chosen, one.better_caption) == (11, lines[0]["clip_id"], 1, "mine")
    assert one.choices[1].caption == lines[0]["captions"][1]


def test_captions_that_hold_other_ends_of_lines_stay_whole(tmp_path):
    task = Task("v-0-4000", (Choice("one\u2028two\x85three", ("a",)), Choice('"=1;\t"', ("b",))))
    question = Question(task, "media/x.jpg")
    for name, text in (("a.jsonl", json.dumps(line(question), ensure_ascii=False)), ("a.csv", table([question]))):
        filled = text.replace('"choice": null', '"choice": 2').replace(',,,,"', ',2,,,"').replace(",,,,", ",2,,,")
        (tmp_path / name).write_text(filled, "utf-8")
        (answer,) = read_answers(str(tmp_path / name)).answers
        assert (answer.task, answer.chosen) == (task, 1)


@pytest.mark.parametrize(
    "result", [1.5, "x", [7, {"value": 3}], [{"value": {"choices": {}}, "from_name": "best"}], None]
)
def test_an_annotation_of_another_shape_costs_itself_alone(dataset, tasks, tmp_path, result):
    strange = annotation(tasks[0], {"id": [7]}, BLIP, result=result, lead_time="soon", updated_at=7)
    path = write_export(tmp_path / "export.json", tasks[:2], [[strange], [annotation(tasks[1], 7, BLIP)]])
    read = read_answers(path)
    assert [one.task.clip_id for one in read.answers] == [tasks[1]["data"]["clip_id"]]
    assert read.unanswered + len(read.broken) == 1


def test_the_same_file_twice_changes_nothing(dataset, tasks, tmp_path):
    path = write_export(tmp_path / "export.json", tasks, [[annotation(task, 7, BLIP)] for task in tasks])
    import_answers(dataset, [path])
    files = {path: path.read_bytes() for path in (tmp_path / "set" / "annotations").rglob("*") if path.is_file()}
    again = import_answers(dataset, [path, path])
    assert (again.stored.new, again.stored.unchanged, again.problems) == (0, 12, ())
    assert files == {
        path: path.read_bytes() for path in (tmp_path / "set" / "annotations").rglob("*") if path.is_file()
    }


def test_the_last_answer_of_an_annotator_counts(dataset, tasks, tmp_path):
    late = "2026-03-10T00:00:00Z"
    twice = [annotation(tasks[0], 7, TEXT, at=late), annotation(tasks[0], 7, BLIP)]
    done = import_answers(dataset, [write_export(tmp_path / "export.json", tasks[:1], [twice])])
    assert [str(one) for one in done.problems] == [
        f"answers given again by the same annotator, the last one counts: 1 (such as {tasks[0]['data']['clip_id']})"
    ]
    assert [one.chosen_teachers for one in judgements_of(dataset)] == [(TEXT,)]
    # An export of before changes nothing, one of later does.
    older = write_export(tmp_path / "older.json", tasks[:1], [[annotation(tasks[0], 7, BLIP)]])
    assert import_answers(dataset, [older]).stored.older == 1
    assert [one.chosen_teachers for one in judgements_of(dataset)] == [(TEXT,)]
    newer = write_export(
        tmp_path / "newer.json", tasks[:1], [[annotation(tasks[0], 7, None, at="2026-03-11T00:00:00Z")]]
    )
    assert import_answers(dataset, [newer]).stored.replaced == 1
    assert [one.chosen_teachers for one in judgements_of(dataset)] == [()]


def test_two_servers_that_number_their_people_alike_are_told_apart(dataset, tasks, tmp_path, capsys):
    for origin, teacher in (("paris", BLIP), ("lyon", TEXT)):
        path = write_export(tmp_path / f"{origin}.json", tasks[:1], [[annotation(tasks[0], 1, teacher)]])
        assert main(["annotate", "import", dataset, path, "--from", origin]) == 0
    assert capsys.readouterr().out.splitlines()[-3] == "in all      1 clips, by 2 annotators"
    assert {one.annotator: one.chosen_teachers[-1] for one in judgements_of(dataset)} == {
        annotator_digest(dataset, "paris 1"): number_teacher(tasks[0], BLIP),
        annotator_digest(dataset, "lyon 1"): TEXT,
    }


def number_teacher(task, teacher):
    """The last of those who said what this teacher said."""
    return next(one.teachers[-1] for one in unseal(task["data"]["key"]).choices if teacher in one.teachers)


def test_what_is_skipped_unanswered_or_broken_is_counted_and_left_out(dataset, tasks, tmp_path):
    skipped = annotation(tasks[0], 7, BLIP, was_cancelled=True)
    nothing = annotation(tasks[1], 7, BLIP, result=[])
    out_of_range = annotation(tasks[2], 7, BLIP)
    out_of_range["result"][0]["value"]["choices"] = ["9"]
    moved = {"data": {**tasks[3]["data"], "key": tasks[4]["data"]["key"]}}
    unknown = {"data": {**tasks[5]["data"], "key": "nonsense"}}
    answers = [[skipped], [nothing], [out_of_range], [annotation(moved, 7, BLIP)], [annotation(tasks[5], 7, BLIP)]]
    done = import_answers(dataset, [write_export(tmp_path / "export.json", [*tasks[:3], moved, unknown], answers)])
    assert (done.stored.new, done.cancelled, done.unanswered) == (0, 1, 1)
    assert [str(one) for one in done.problems] == [
        "answers that do not go with their key, changed or none of ours, left out: 3 "
        f"(such as {tasks[2]['data']['clip_id']})"
    ]


def test_clips_that_are_not_there_and_captions_that_are_not_any_more_are_told_apart(asked, tasks, tmp_path):
    smaller = write_judged(tmp_path / "other", videos=3, clips_each=2)
    import pyarrow as pa
    from deltalake import write_deltalake

    from transforms.schemas import CLIPS
    from transforms.tables import read_table

    rows = read_table(smaller, "clips").to_pylist()
    for row in rows:
        if row["clip_id"] == "v0-0-4000":
            row["captions"][2]["caption"] = "captioned anew"
    write_deltalake(str(smaller / "clips"), pa.Table.from_pylist(rows, CLIPS), mode="overwrite")
    path = write_export(tmp_path / "export.json", tasks, [[annotation(task, 7, BLIP)] for task in tasks])
    done = import_answers(str(smaller), [path])
    assert {(one.what, one.count) for one in done.problems} == {
        ("answers about clips that the dataset has not, left out", 6),
        ("answers about captions that the clip has no more, since it was captioned anew, kept", 1),
    }
    labels = {label.clip_id: label.is_current for label in annotations_of(smaller).labels}
    assert labels == {
        "v0-0-4000": False, "v0-5000-9000": True, "v1-0-4000": True, "v1-5000-9000": True, "v2-0-4000": True,
        "v2-5000-9000": True,
    }  # fmt: skip


def test_strict_stores_nothing_when_anything_is_wrong(dataset, tasks, tmp_path, capsys):
    good = [[annotation(task, 7, BLIP)] for task in tasks]
    broken = [{"data": {**tasks[0]["data"], "key": "nonsense"}}, *tasks[1:]]
    path = write_export(tmp_path / "export.json", broken, good)
    assert main(["annotate", "import", dataset, path, "--strict"]) == 1
    told = capsys.readouterr()
    assert told.err == "reelscribe: nothing was stored, as 1 problems were found and --strict is given\n"
    assert told.out == (
        "problem     answers that do not go with their key, changed or none of ours, left out: 1 "
        f"(such as {tasks[0]['data']['clip_id']})\n"
    )
    assert list(judgements_of(dataset)) == []
    assert main(["annotate", "import", dataset, path]) == 0
    assert len(list(judgements_of(dataset))) == 11


def test_the_command_tells_how_far_people_agree(dataset, tasks, tmp_path, capsys):
    answers = [
        [annotation(task, 7, BLIP), annotation(task, 8, BLIP if at < 9 else TEXT), annotation(task, 9, None)]
        for at, task in enumerate(tasks)
    ]
    assert main(["annotate", "import", dataset, write_export(tmp_path / "export.json", tasks, answers)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "judgements  36 new"
    assert told[1] == "in all      12 clips, by 3 annotators"
    # Of 36 votes 12 say "all bad", 3 the third teacher, 13 the first, 8 the first two: 9 agree, by chance it were 10.
    assert told[2] == ("agreement   25.0% of pairs, Krippendorff's alpha -0.038, on 12 clips that two or more judged")
    assert told[3] == "labels      9 by majority, 0 of them `all bad`; ties 3"


def test_a_second_round_asks_about_other_clips(dataset, tasks, tmp_path, capsys):
    import_answers(
        dataset, [write_export(tmp_path / "e.json", tasks[:9], [[annotation(one, 7, BLIP)] for one in tasks[:9]])]
    )
    command = ["annotate", "export", dataset, "--to", "label-studio", "--clips", "100", "--skip-judged", "--output"]
    assert main([*command, str(tmp_path / "second")]) == 0
    asked_now = {task["data"]["clip_id"] for task in tasks_of(tmp_path / "second")}
    assert asked_now == {task["data"]["clip_id"] for task in tasks[9:]}
    assert "9 clips were judged before" in capsys.readouterr().out.splitlines()
    rest = write_export(tmp_path / "r.json", tasks[9:], [[annotation(one, 7, BLIP)] for one in tasks[9:]])
    import_answers(dataset, [rest])
    assert main([*command, str(tmp_path / "third")]) == 2
    assert "--skip-judged: there is no other clip to ask about than the 12" in capsys.readouterr().err


def test_a_student_that_was_asked_about_is_kept_apart_from_the_teachers(dataset, tmp_path):
    extra = tmp_path / "student.csv"
    extra.write_text("clip_id,caption\nv0-0-4000,my own words\n", "utf-8")
    export_questions(dataset, str(tmp_path / "ask"), AskOptions("label-studio", 10, extras={"student": str(extra)}))
    (task,) = tasks_of(tmp_path / "ask")
    done = import_answers(dataset, [write_export(tmp_path / "e.json", [task], [[annotation(task, 7, "student")]])])
    assert "beside      1 judgements with another model's caption, which make no labels" in done.describe()
    assert annotations_of(dataset).labels == ()
    (label,) = annotations_of(dataset, extra="student").labels
    assert (label.chosen_teachers, label.is_current) == (("student",), True)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.json", "{", "can't be read as json"),
        ("a.json", "{}", "it must be a list of tasks"),
        ("a.json", "[7]", "'7' stands where an object should"),
        ("a.json", '[{"video": "v", "caption": "a dog"}]', "has no `key` as `annotate export` wrote it"),
        ("a.jsonl", "[]", "'[]' stands where an object should"),
        ("a.csv", "clip_id,choice\nv,1\n", "has not the columns `key` and `choice`"),
        ("a.xlsx", "", "is neither .json, .csv, .tsv nor .jsonl"),
        ("a.json", "[" * 100_000, "can't be read as json"),
        ("a.json", "[" + "9" * 5000 + "]", "can't be read as json"),
    ],
)
def test_a_file_without_answers_is_refused_in_one_line(dataset, tmp_path, capsys, name, content, why):
    (tmp_path / name).write_text(content, "utf-8")
    assert main(["annotate", "import", dataset, str(tmp_path / name)]) == 2
    told = capsys.readouterr().err
    assert why in told
    assert told.count("\n") == 1


def test_files_that_are_missing_or_in_another_encoding_are_refused(dataset, tmp_path):
    (tmp_path / "latin.csv").write_bytes("clip_id,key,choice\nv,ü,1\n".encode("latin-1"))
    with pytest.raises(AnswerError, match="no text in UTF-8; save it as CSV UTF-8"):
        read_answers(str(tmp_path / "latin.csv"))
    with pytest.raises(AnswerError, match="there is no file"):
        read_answers(str(tmp_path / "nothing.json"))
    with pytest.raises(AnswerError, match="is a folder"):
        read_answers(str(tmp_path))


def test_nothing_is_stored_while_a_run_writes_or_where_there_is_no_dataset(dataset, tasks, tmp_path, capsys):
    path = write_export(tmp_path / "export.json", tasks[:1], [[annotation(tasks[0], 7, BLIP)]])
    with WriterLease(dataset, owner="run-1"):
        assert main(["annotate", "import", dataset, path]) == 1
    assert "is being written by run-1" in capsys.readouterr().err
    assert main(["annotate", "import", str(tmp_path / "none"), path]) == 1
    assert "is no dataset" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_key_says_what_was_shown(tasks):
    assert [unseal(task["data"]["key"]).clip_id for task in tasks] == [task["data"]["clip_id"] for task in tasks]
