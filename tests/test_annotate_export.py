"""Questions for people: that they are blind, that they are the same again, and that there is something to look at."""

import csv
import json
import pathlib
import shutil
from xml.etree import ElementTree

import pytest
from annotated_dataset import TEACHERS, annotation, tasks_of, write_export, write_judged
from exported_dataset import entomb
from PIL import Image

from beam_pipeline.annotate_choices import unseal
from beam_pipeline.annotate_clips import AskError, AskOptions
from beam_pipeline.annotate_export import export_questions
from beam_pipeline.annotate_forms import inert, studio_labels
from beam_pipeline.cli import main
from transforms.files import read
from transforms.judgements import drop_annotations, judgements_of
from transforms.lease import WriterLease


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return str(write_judged(tmp_path_factory.mktemp("annotate") / "set"))


@pytest.fixture
def filmed(dataset, tmp_path):
    """The same with a file for every clip."""
    folder = tmp_path / "filmed"
    shutil.copytree(dataset, folder)
    write_judged_files(folder)
    return folder


def write_judged_files(folder):
    import pyarrow as pa
    from deltalake import write_deltalake

    from transforms.schemas import CLIPS
    from transforms.tables import read_table

    rows = read_table(folder, "clips").to_pylist()
    rows = [{**row, "clip_file": f"media/{row['clip_id']}.mp4"} for row in rows]
    write_deltalake(str(folder / "clips"), pa.Table.from_pylist(rows, CLIPS), mode="overwrite")
    (folder / "media").mkdir()
    for row in rows:
        (folder / row["clip_file"]).write_bytes(row["clip_id"].encode())


def exported(dataset, output, **options):
    told = export_questions(str(dataset), str(output), AskOptions(**{"form": "label-studio", "clips": 100, **options}))
    return output, told


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_task_shows_each_caption_once_and_all_bad_last(dataset, tmp_path):
    output, told = exported(dataset, tmp_path / "ask")
    tasks = {task["data"]["clip_id"]: task["data"] for task in tasks_of(output)}
    assert told["counts"] == {
        "questions": 12, "shown": "image", "with_files": 0, "without_pictures": 0, "eligible": 12, "of_one_caption": 1,
        "absent": 0,
    }  # fmt: skip
    assert len(tasks) == 12
    assert "plain-0-4000" not in tasks
    task = tasks["v0-5000-9000"]
    captions = task.pop("captions")
    key = task.pop("key")
    assert task == {"clip_id": "v0-5000-9000", "image": "/data/local-files/?d=ask/media/v0-5000-9000.jpg"}
    assert captions[-1] == {"alias": "0", "value": "All of them are bad"}
    assert [one["alias"] for one in captions[:-1]] == ["1", "2"]
    assert {one["value"] for one in captions[:-1]} == {"two men cook pasta", "nothing but 1 birds"}
    shown = {one.caption: one.teachers for one in unseal(key).choices}
    assert shown == {"two men cook pasta": TEACHERS[:2], "nothing but 1 birds": TEACHERS[2:]}
    assert [one.caption for one in unseal(key).choices] == [one["value"] for one in captions[:-1]]


@pytest.mark.parametrize("form", ["label-studio", "csv", "jsonl"])
def test_no_file_names_a_teacher(dataset, tmp_path, form):
    extra = tmp_path / "student.csv"
    extra.write_text("clip_id,caption\nv0-0-4000,my own words\n", "utf-8")
    output, _ = exported(dataset, tmp_path / "ask", form=form, extras={"student": str(extra)})
    assert (
        sorted(path.suffix for path in output.iterdir() if path.is_file())
        == {
            "label-studio": [".json", ".json", ".md", ".xml"],
            "csv": [".csv", ".json"],
            "jsonl": [".json", ".jsonl"],
        }[form]
    )
    for name, content in contents(output).items():
        assert not any(word in content + name.encode() for word in (b"teacher", b"student")), name


def test_the_same_seed_gives_the_same_bytes_whatever_the_order_of_the_files(dataset, tmp_path):
    first, _ = exported(dataset, tmp_path / "a" / "ask", clips=5, seed=4)
    turned = tmp_path / "turned"
    shutil.copytree(dataset, turned)
    from deltalake import write_deltalake

    from transforms.tables import read_table

    rows = read_table(turned, "clips")
    for at in range(rows.num_rows - 1, -1, -1):
        mode = "append" if at < rows.num_rows - 1 else "overwrite"
        write_deltalake(str(turned / "clips"), rows.slice(at, 1), mode=mode)
    second, _ = exported(turned, tmp_path / "b" / "ask", clips=5, seed=4)
    ours, theirs = contents(first), contents(second)
    for found in (ours, theirs):
        told = json.loads(found.pop("annotate.json"))
        assert (told["settings"]["seed"], told["counts"]["questions"]) == (4, 5)
    assert ours == theirs
    other, _ = exported(dataset, tmp_path / "c" / "ask", clips=5, seed=5)
    assert [one["data"]["clip_id"] for one in tasks_of(other)] != [one["data"]["clip_id"] for one in tasks_of(first)]


def test_clips_without_a_file_are_seen_by_frames_of_the_reel(dataset, tmp_path):
    output, _ = exported(dataset, tmp_path / "ask", frames=6)
    picture = Image.open(output / "media" / "v0-0-4000.jpg")
    assert picture.size == (4 * 324 - 4, 2 * 184 - 4)  # Six frames of 64x36, as 320x180, in rows of four.


def test_clips_with_files_are_seen_by_these(filmed, tmp_path):
    output, told = exported(filmed, tmp_path / "ask", form="csv")
    assert (told["counts"]["shown"], told["counts"]["with_files"]) == ("video", 12)
    assert (output / "media" / "v1-0-4000.mp4").read_bytes() == b"v1-0-4000"


def test_one_clip_without_a_file_makes_all_be_shown_by_frames(filmed, tmp_path):
    import pyarrow as pa
    from deltalake import write_deltalake

    from transforms.schemas import CLIPS
    from transforms.tables import read_table

    rows = read_table(filmed, "clips").to_pylist()
    rows[0]["clip_file"] = None
    write_deltalake(str(filmed / "clips"), pa.Table.from_pylist(rows, CLIPS), mode="overwrite")
    output, told = exported(filmed, tmp_path / "ask")
    assert (told["counts"]["shown"], told["counts"]["with_files"]) == ("image", 11)
    assert {path.suffix for path in (output / "media").iterdir()} == {".jpg"}


def test_links_leave_the_files_where_they_are(filmed, tmp_path):
    output, _ = exported(filmed, tmp_path / "ask", link=True)
    assert not (output / "media").exists()
    assert {task["data"]["video"] for task in tasks_of(output)} == {
        f"/data/local-files/?d=filmed/media/v{video}-{start}-{start + 4000}.mp4"
        for video in range(4)
        for start in (0, 5000, 10000)
    }
    assert "`filmed/media`" in (output / "README.md").read_text("utf-8")
    table, _ = exported(filmed, tmp_path / "table", link=True, form="jsonl")
    lines = [json.loads(line) for line in (table / "annotate.jsonl").read_text("utf-8").splitlines()]
    assert all(pathlib.Path(line["media"]).read_bytes() == line["clip_id"].encode() for line in lines)


def test_links_to_files_that_are_not_there_are_refused_in_one_line(dataset, tmp_path, capsys):
    command = ["annotate", "export", dataset, "--to", "csv", "--output", str(tmp_path / "ask"), "--clips", "3"]
    assert main([*command, "--media", "link"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("reelscribe: 3 of 3 clips have no file to link to; leave --media out")
    assert not (tmp_path / "ask").exists()


def test_clips_whose_reel_is_gone_are_left_out_and_counted(tmp_path):
    folder = write_judged(tmp_path / "set")
    (folder / "reels" / "v1.arrow").unlink()
    output, told = exported(folder, tmp_path / "ask")
    assert (told["counts"]["questions"], told["counts"]["without_pictures"]) == (9, 3)
    assert not any(task["data"]["clip_id"].startswith("v1-") for task in tasks_of(output))
    shutil.rmtree(folder / "reels")
    with pytest.raises(AskError, match="nothing to look at"):
        exported(folder, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_student_stands_among_the_teachers_on_the_clips_it_captioned(dataset, tmp_path):
    extra = tmp_path / "student.csv"
    extra.write_text("clip_id,caption\nv0-0-4000,my own words\nv1-0-4000,Two men cook pasta.\nnowhere,x\n", "utf-8")
    output, told = exported(dataset, tmp_path / "ask", extras={"student": str(extra)})
    tasks = [unseal(task["data"]["key"]) for task in tasks_of(output)]
    assert {task.clip_id: task.extras for task in tasks} == {"v0-0-4000": ("student",), "v1-0-4000": ("student",)}
    whose = {task.clip_id: next(one.teachers for one in task.choices if "student" in one.teachers) for task in tasks}
    assert whose == {"v0-0-4000": ("student",), "v1-0-4000": (TEACHERS[0], "student")}
    assert told["counts"]["without_extra"] == 11
    assert told["settings"]["extras"] == 1


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("teacher-git", "clip_id,caption\nv0-0-4000,x\n", "teacher-git is a teacher of the dataset"),
        ("student", "clip,caption\nv0-0-4000,x\n", "has not the columns clip_id and caption"),
        ("student", "clip_id,caption\nv,x\nv,y\n", "has two captions of v"),
        ("student", "clip_id,caption\nv,x\n", "none of its clips is in the dataset; 13 clips"),
    ],
)
def test_captions_of_another_model_that_cannot_stand_are_refused(dataset, tmp_path, capsys, name, text, why):
    extra = tmp_path / f"{name}.csv"
    extra.write_text(text, "utf-8")
    command = ["annotate", "export", dataset, "--to", "csv", "--output", str(tmp_path / "ask"), "--clips", "3"]
    assert main([*command, "--extra", str(extra)]) == 2
    assert why in capsys.readouterr().err


def test_a_table_for_spreadsheets_runs_no_formula(dataset, tmp_path):
    output, _ = exported(dataset, tmp_path / "ask", form="csv")
    with open(output / "annotate.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "clip_id", "media", "caption_1", "caption_2", "caption_3", "choice", "better_caption", "annotator", "key",
    ]  # fmt: skip
    cells = {cell for row in rows for cell in row.values()}
    assert "'=SUM(1) on a screen" in cells
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)


def test_dollar_signs_name_no_field_of_label_studio():
    # Its editor replaces what /\$[\w[\].{}]+/ finds in a choice by the task's field of that name.
    import re

    for caption in ("a $5 bill", "$table", "pay $$5", "${x} $[0] $.y"):
        assert re.search(r"\$[\w\[\].{}]+", inert(caption)) is None
        assert inert(caption).replace("\u2060", "") == caption
    assert inert("5 $ and $") == "5 $ and $"


def test_the_configuration_is_what_label_studios_schema_asks_for():
    # Unique names, toName naming an object tag with a value; Choices with name, toName and value or children.
    for kind in ("video", "image"):
        view = ElementTree.fromstring(studio_labels(kind))
        assert [(tag.tag, tag.attrib) for tag in view if tag.tag != "Header"] == [
            (kind.capitalize(), {"name": "clip", "value": f"${kind}"}),
            (
                "Choices",
                {"name": "best", "toName": "clip", "value": "$captions", "choice": "single", "required": "true"},
            ),
            ("TextArea", {"name": "better", "toName": "clip", "rows": "2", "maxSubmissions": "1", "editable": "true"}),
        ]
        assert view.tag == "View"


def test_where_every_good_caption_is_asked_for_boxes_can_be_ticked(dataset, tmp_path):
    best, _ = exported(dataset, tmp_path / "best")
    output, told = exported(dataset, tmp_path / "ask", choose="every-good")
    view = ElementTree.fromstring((output / "labels.xml").read_text("utf-8"))
    control = {"name": "good", "toName": "clip", "value": "$captions", "choice": "multiple", "required": "true"}
    assert [tag.attrib for tag in view if tag.tag == "Choices"] == [control]
    assert next(tag.attrib["value"] for tag in view if tag.tag == "Header") == (
        "Tick every caption that describes the clip well."
    )
    assert told["settings"]["choose"] == "every-good"
    for one, other in zip(tasks_of(output), tasks_of(best), strict=True):
        asked, before = unseal(one["data"]["key"]), unseal(other["data"]["key"])
        assert (asked.choose, before.choose) == ("every-good", "best")
        assert (asked.clip_id, asked.choices) == (before.clip_id, before.choices), "the same clips, in the same order"
        assert one["data"]["captions"] == other["data"]["captions"]


def test_a_limit_of_clips_a_source_holds_and_what_is_taken_down_is_not_shown(dataset, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(dataset, folder)
    entomb(folder, "v2")
    output, told = exported(folder, tmp_path / "ask", max_clips_per_source=2)
    sources = [task["data"]["clip_id"].split("-")[0] for task in tasks_of(output)]
    assert sorted(sources) == ["v0", "v0", "v1", "v1", "v3", "v3"]
    assert told["counts"]["eligible"] == 6


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--to", "labelstudio"], "there is no form 'labelstudio'; did you mean 'label-studio'?"),
        (["--to", "csv", "--choose", "every"], "--choose: there is no 'every'; did you mean 'every-good'?"),
        (["--to", "csv", "--min-score", "0.9"], "there are no clips to ask about"),
        (["--to", "csv", "--subset", "nowhere.parquet"], "nowhere.parquet is no Parquet file"),
        (["--to", "csv", "--clip", "3"], "unknown argument '--clip'; did you mean '--clips'?"),
    ],
)
def test_bad_usage_is_one_line_that_says_what_to_do(dataset, tmp_path, capsys, arguments, why):
    command = ["annotate", "export", dataset, "--output", str(tmp_path / "ask"), "--clips", "3"]
    assert main([*command, *arguments]) == 2
    told = capsys.readouterr().err
    assert why in told
    assert told.count("\n") == 1


def test_a_word_that_is_neither_export_nor_import_is_told_with_the_nearest(capsys):
    assert main(["annotate", "exprot", "set"]) == 2
    told = "reelscribe: there is no annotate command 'exprot'; did you mean 'export'?\n"
    assert capsys.readouterr().err == told
    assert main(["evaluate", "caption", "set"]) == 2
    assert "there is no evaluation 'caption'; did you mean 'captions'?" in capsys.readouterr().err


def test_the_command_tells_the_strata_and_refuses_a_folder_that_is_there(dataset, tmp_path, capsys):
    command = ["annotate", "export", dataset, "--to", "jsonl", "--output", str(tmp_path / "ask"), "--clips", "6"]
    assert main(command) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["6 clips out of 12, shown by frames side by side", "1 clips have but one caption"]
    assert told[-1] == str(tmp_path / "ask")
    assert main(command) == 2
    assert "add --overwrite to replace it" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_a_dataset_in_a_bucket_is_asked_about_and_takes_the_answers(gcs, filmed, tmp_path, capsys):
    for path in sorted(filmed.rglob("*")):
        if path.is_file():
            gcs.put(f"set/{path.relative_to(filmed)}", path.read_bytes())
    _, told = exported("gs://bucket/set", "gs://bucket/ask", clips=2)
    tasks = json.loads(read("gs://bucket/ask/tasks.json"))
    clip_id = tasks[0]["data"]["clip_id"]
    assert told["counts"]["questions"] == 2
    assert tasks[0]["data"]["video"] == f"gs://bucket/ask/media/{clip_id}.mp4"
    assert read(tasks[0]["data"]["video"]) == clip_id.encode()
    linked, _ = exported("gs://bucket/set", tmp_path / "ask", clips=2, link=True)
    assert tasks_of(linked)[0]["data"]["video"] == f"gs://bucket/set/media/{clip_id}.mp4"
    answers = write_export(tmp_path / "export.json", tasks, [[annotation(one, 7, TEACHERS[0])] for one in tasks])
    for line in ("judgements  2 new", "judgements  2 unchanged"):
        assert main(["annotate", "import", "gs://bucket/set", answers]) == 0
        assert capsys.readouterr().out.splitlines()[0] == line
    with WriterLease("gs://bucket/set", owner="takedown-1"):
        assert drop_annotations("gs://bucket/set", [clip_id.split("-")[0]]) >= 1
    assert clip_id not in {one.clip_id for one in judgements_of("gs://bucket/set")}
