"""A dataset curated by a student alone, then by a student beside others: made, made again, and made by another one."""

import json
import pathlib
import shutil

import pytest
import yaml
from run_records import newest_run
from synthetic import make_video
from wordy_student import make_wordy

from beam_pipeline.annotate_clips import read_extra
from beam_pipeline.cli import main
from beam_pipeline.verify import verify
from benchmarks import picture_speaker
from benchmarks.student import clips_of
from benchmarks.student import main as student_benchmark
from benchmarks.student import options_of as benchmark_options
from model_handlers import catalogue
from transforms.tables import current_videos, read_table

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LOOSE = {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0}
TITLE = "Falcon garden island"
#: What a run did: reels used again, captions written and used again, clips scored and scores used again.
COUNTS = ("split reels_reused", "caption captions", "caption reused", "score clips", "score reused")


def curate(folder: pathlib.Path, name: str, **values: object) -> dict:
    """Curate with this configuration; what the run did, and what the dataset then holds."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"stitching": LOOSE, **values}))
    out = folder / "out"
    assert main(["curate", "--input", str(folder / "in"), "--output", str(out), "--config", str(path)]) == 0
    assert verify(out) == []
    record = newest_run(out)
    return {
        "record": record,
        "did": tuple(record["counts"].get(count, 0) for count in COUNTS),
        "clips": read_table(str(out), "clips").sort_by("clip_id").to_pylist(),
        "videos": current_videos(str(out)),
        "card": (out / "README.md").read_text("utf-8"),
    }


def texts(clips: list[dict], teacher: str) -> list[str]:
    return [one["caption"] for one in said(clips, teacher)]


def said(clips: list[dict], teacher: str) -> list[dict]:
    return [one for clip in clips for one in clip["captions"] if one["teacher"] == teacher]


@pytest.fixture(scope="module")
def curated(tmp_path_factory, one_thread):
    """Three clips of two videos, one with a title: by a student alone, twice; beside others; beside them by another."""
    folder = tmp_path_factory.mktemp("student")
    (folder / "in").mkdir()
    make_video(folder / "in" / "told.mp4", shots=[(2.0, "red"), (2.0, "blue")], drift_px=3)
    (folder / "in" / "told.json").write_text(json.dumps({"title": TITLE}))
    make_video(folder / "in" / "mute.mp4", shots=[(2.0, "green")], drift_px=3)
    first, second = (str(make_wordy(folder / name, seed)) for seed, name in enumerate(("v1", "v2")))
    alone = {"name": "student", "weights": first}
    seen = {"name": "student-seen", "like": "student", "inputs": "V", "licence": "MIT", "commercial": True}
    runs = {name: curate(folder, name, extends="student", teachers=[alone]) for name in ("first", "again")}
    for name, weights in (("beside", first), ("second beside", second)):
        mine = [{**alone, "weights": weights}, {**seen, "weights": first}]
        runs[name] = curate(folder, name, extends="lite", teachers=["lite-frame", "lite-text", *mine])
    return folder, runs


def test_a_student_alone_captions_every_clip_and_the_selector_scores_what_it_said(curated):
    folder, runs = curated
    entry = catalogue.teacher("student").changed(weights=str(folder / "v1"))
    clips = runs["first"]["clips"]
    assert len(clips) == 3 and runs["first"]["did"] == (0, 3, 0, 3, 0)
    for clip in clips:
        (caption,) = clip["captions"]
        assert {name: caption[name] for name in ("teacher", "model", "revision", "prompt_id")} == {
            "teacher": "student",
            "model": str(folder / "v1"),
            "revision": entry.revision,
            "prompt_id": entry.prompt_id,
        }
        assert (clip["caption"], clip["teacher"], clip["margin"]) == (caption["caption"], "student", None)
        assert -1.0 <= clip["matching_score"] == caption["matching_score"] <= 1.0
        # The threshold of the profile's selector.
        assert clip["abstained"] == (clip["matching_score"] < 0.75)
    assert [model["name"] for model in runs["first"]["record"]["models"]] == ["efficientnet-lite0", "student", "conse"]


def test_the_same_student_finds_nothing_to_do(curated):
    _, runs = curated
    assert runs["again"]["videos"] == runs["first"]["videos"]
    assert (runs["again"]["record"]["counts"]["unchanged"], runs["again"]["did"]) == (2, (0, 0, 0, 0, 0))


def test_beside_others_it_is_a_candidate_and_the_captions_that_it_had_stay(curated):
    _, runs = curated
    clips = runs["beside"]["clips"]
    names = ["lite-frame", "lite-text", "student", "student-seen"]
    told = [[name for name in names if name != "lite-text" or clip["title"]] for clip in clips]
    assert [[one["teacher"] for one in clip["captions"]] for clip in clips] == told
    # Its own three were there; lite-frame and student-seen made three each, lite-text two.
    assert runs["beside"]["did"] == (2, 8, 3, 3, 0)
    assert texts(clips, "student") == texts(runs["first"]["clips"], "student")
    for clip in clips:
        best = max(clip["captions"], key=lambda one: one["matching_score"])
        assert (clip["teacher"], clip["caption"]) == (best["teacher"], best["caption"])


def test_a_title_leads_the_one_that_reads_it_elsewhere_and_where_there_is_none_both_say_the_same(curated):
    _, runs = curated
    same: dict[str | None, set[bool]] = {}
    for clip in runs["beside"]["clips"]:
        same.setdefault(clip["title"], set()).add(texts([clip], "student") == texts([clip], "student-seen"))
    assert same[None] == {True} and False in same[TITLE]


def test_another_student_costs_its_own_captions_and_the_scores_and_nothing_else(curated):
    folder, runs = curated
    run = runs["second beside"]
    assert run["did"] == (2, 3, 8, 3, 0) and "embed" not in run["record"]["seconds"]
    before, after = runs["beside"]["clips"], run["clips"]
    for name in ("lite-frame", "lite-text", "student-seen"):
        assert texts(before, name) == texts(after, name)
    changed = zip(texts(before, "student"), texts(after, "student"), strict=True)
    assert all(one != two for one, two in changed)
    entry = catalogue.teacher("student").changed(weights=str(folder / "v2"))
    assert {one["revision"] for one in said(after, "student")} == {entry.revision}


def test_the_card_names_what_is_known_of_its_licence(curated):
    _, runs = curated
    rows = [line for line in runs["second beside"]["card"].splitlines() if line.startswith("| student")]
    assert [[cell.strip() for cell in row.strip("|").split("|")][::3] for row in rows] == [
        ["student", "that of what it was made of"],
        ["student-seen", "MIT"],
    ]


def test_the_doctor_finds_it_and_tells_what_nobody_said_of_its_licence(curated, capsys):
    folder, _ = curated
    main(["doctor", "--config", str(folder / "first.yaml")])
    told = " ".join(capsys.readouterr().out.split())
    entry = catalogue.teacher("student").changed(weights=str(folder / "v1"))
    assert f"ok model student loads: {folder / 'v1'}, {entry.revision}; licence that of what it was made of" in told
    assert "ok gpu memory about 2 GB for student in 16 bits" in told
    assert "warn licences student: nothing says what the licences of its language model" in told


def test_the_weights_of_a_student_are_counted_with_those_of_parts_that_it_only_names(tmp_path):
    from model_handlers.student_network import register

    whole = make_wordy(tmp_path / "whole")
    entry = catalogue.teacher("student").changed(weights=str(whole))
    register()
    counted = sum(one.numel() for one in transformers.AutoModel.from_pretrained(whole).state_dict().values())
    assert entry.parameters_b == pytest.approx(counted / 1e9, rel=0.01)
    part = tmp_path / "part"
    shutil.copytree(whole, part)
    told = json.loads((part / "config.json").read_text())
    parts = {"language": {"weights": str(whole)}}
    (part / "config.json").write_text(json.dumps({**told, "save_frozen": False, "references": parts}))
    entry = catalogue.teacher("student").changed(weights=str(part))
    assert entry.parameters_b == pytest.approx(2 * counted / 1e9, rel=0.01)


def test_the_doctor_tells_half_a_copy_of_a_student(curated, tmp_path, capsys):
    folder, _ = curated
    shutil.copytree(folder / "v1", tmp_path / "v1")
    with open(tmp_path / "v1" / "model.safetensors", "r+b") as file:
        file.truncate(10_000)
    mine = {"extends": "student", "teachers": [{"name": "student", "weights": str(tmp_path / "v1")}]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    assert main(["doctor", "--config", str(tmp_path / "mine.yaml")]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "fail configuration" in told and "model.safetensors is cut short or no safetensors" in told


def test_a_language_model_is_made_of_a_datasets_captions(curated, tmp_path, capsys):
    folder, runs = curated
    said = {one["caption"] for clip in runs["second beside"]["clips"] for one in clip["captions"]}
    assert {text for texts in picture_speaker.captions_of(str(folder / "out")) for text in texts} == said
    asked = [str(folder / "out"), "--output", str(tmp_path / "llm"), "--steps", "1"]
    assert picture_speaker.main(asked) == 0
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "llm").config.max_position_embeddings == 128
    capsys.readouterr()
    assert picture_speaker.main(asked) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert picture_speaker.main([str(tmp_path), "--output", str(tmp_path / "other")]) == 2
    assert "is no dataset" in capsys.readouterr().err


def test_an_evaluation_measures_it_beside_the_others(curated, tmp_path, capsys):
    pytest.importorskip("pycocoevalcap", reason="the extra `evaluate` is not installed")
    folder, runs = curated
    told, out = tmp_path / "told.json", str(folder / "out")
    references = tmp_path / "references.json"
    titled = [clip for clip in runs["second beside"]["clips"] if clip["title"]]
    references.write_text(json.dumps({one["clip_id"]: [one["captions"][2]["caption"]] for one in titled}))
    asked = ["evaluate", "captions", out, "--references", str(references), "--metrics", "ROUGE-L"]
    assert main([*asked, "--json", str(told)]) == 0
    measured = json.loads(told.read_text())["rows"]["student"]
    assert (measured["clips"], measured["ROUGE-L"]["value"]) == (2, pytest.approx(1.0))


def test_an_estimate_counts_it_like_any_other(curated, tmp_path, capsys):
    folder, runs = curated
    record, told = tmp_path / "record.json", tmp_path / "told.json"
    record.write_text(json.dumps(runs["first"]["record"]))
    asked = ["--from", str(record), "--config", str(folder / "first.yaml"), "--hours", "1", "--json", str(told)]
    assert main(["estimate", *asked, "--worker", "cpu=n2-standard-8,vcpu=8,price=0.5", "--max-workers", "1"]) == 0
    capsys.readouterr()
    assert "caption/student" in [stage["stage"] for stage in json.loads(told.read_text())["stages"]]


def test_the_benchmark_sets_a_student_beside_the_ensemble_by_the_scores_that_the_dataset_would_have(
    curated, tmp_path, capsys
):
    folder, runs = curated
    by_first = {clip["clip_id"]: clip["matching_score"] for clip in runs["first"]["clips"]}
    # `student-seen` is this student, of which there is one less in the ensemble.
    others = {
        clip["clip_id"]: {one["teacher"]: one["matching_score"] for one in clip["captions"][:-1]}
        for clip in runs["second beside"]["clips"]
    }
    limit = sorted(by_first.values())[1] - 1e-4
    (tmp_path / "references.json").write_text(json.dumps({clip_id: ["a red wall"] for clip_id in by_first}))
    asked = [str(folder / "out"), "--student", str(folder / "v1"), "--rounds", "2", "--keep-score", str(limit)]
    asked += ["--references", str(tmp_path / "references.json"), "--metrics", "ROUGE-L"]
    asked += ["--price-per-hour", "7.2", "--write-captions", str(tmp_path / "people")]
    capsys.readouterr()
    assert student_benchmark([*asked, "--json", str(tmp_path / "told.json")]) == 0
    told = json.loads((tmp_path / "told.json").read_text())
    rows, texted = told["rows"], sum("lite-text" in scores for scores in others.values())
    assert [(name, row["clips"], len(row["seconds"])) for name, row in rows.items()] == [
        ("the chosen", 3, 2),
        ("lite-frame", 3, 2),
        ("lite-text", texted, 2),
        ("student", 3, 2),
        ("the student", 3, 2),
        ("the student, no text", 3, 2),
    ]
    assert rows["the student"]["kept"] == 2 and rows["the student"]["cost"] == [1.0, 1.0]
    assert rows["the chosen"]["kept"] == sum(max(scores.values()) >= limit for scores in others.values())
    for name in ("the chosen", "student"):
        best = {key: scores.get(name, max(scores.values())) for key, scores in others.items()}
        wins = [by_first[clip_id] > best[clip_id] for clip_id in by_first]
        assert rows[name]["preferred"]["value"] == pytest.approx(sum(wins) / 3, abs=1e-6)
    spent = [sum(rows[name]["seconds"][turn] for name in ("lite-frame", "lite-text", "student")) for turn in (0, 1)]
    assert rows["the chosen"]["seconds"] == pytest.approx(spent)
    assert rows["the student"]["kept_cost"] == pytest.approx(rows["the student"]["kept_seconds"] * 0.002)
    for file, name in (("student.csv", "the student"), ("student-no-text.csv", "the student, no text")):
        assert len(read_extra(str(tmp_path / "people" / file))) == rows[name]["clips"]
    # Where there is no text both say the same, which counts half.
    assert rows["the student, no text"]["preferred"]["value"] * 3 % 1 == pytest.approx(0.5, abs=1e-5)
    assert all(set(row["metrics"]) == {"ROUGE-L"} for row in rows.values())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [line.split(" | ")[0] for line in lines] == ["| captions", "| ---", *(f"| {name}" for name in rows)]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], {"held-out-1", "held-out-2"}),
        (["--learned-too"], None),
        (["--only", "mine.txt"], {"mine"}),
    ],
)
def test_the_benchmark_draws_from_the_clips_that_a_training_held_out_unless_told(
    tmp_path, monkeypatch, flags, expected
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "test_clips.txt").write_text("held-out-1\nheld-out-2\n")
    (tmp_path / "mine.txt").write_text("mine\n\n")
    found, note = clips_of(benchmark_options(["out", "--student", "v1", *flags]))
    assert found == expected and (expected is None) == ("too good" in note)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--teachers", "lite-scene"], "the ensemble has no teacher 'lite-scene'; choose of lite-frame, lite-text"),
        (["--student", "nowhere"], "there is no directory nowhere"),
        (["--references", "empty.json"], "empty.json holds no references"),
        (["--only", "empty.json"], "out has no clip that was asked for"),
    ],
)
def test_the_benchmark_tells_in_one_line_what_it_cannot_use(curated, tmp_path, monkeypatch, capsys, change, told):
    folder, _ = curated
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.json").write_text("{}")
    capsys.readouterr()
    assert student_benchmark([str(folder / "out"), "--student", str(folder / "v1"), *change]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


def test_the_catalogue_and_the_profiles_list_it(capsys):
    assert main(["teachers"]) == 0
    assert "student, inputs V-S-M, that of what it was made of" in capsys.readouterr().out
    assert main(["profiles"]) == 0
    assert "student: the student that you trained, in place of the ensemble" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--profile", "student"], ["--profile", "student", "--commercial-only"]])
def test_the_profile_alone_says_that_weights_are_needed_and_how_to_name_them(flags, tmp_path, capsys):
    assert main(["curate", "--input", str(tmp_path), "--output", str(tmp_path / "set"), *flags]) == 2
    told = capsys.readouterr().err
    assert "{name: student, weights: ...}" in told and told.count("\n") == 1


def test_what_is_no_student_stops_the_job_before_it_starts_in_one_line(tmp_path, capsys):
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "config.json").write_text('{"model_type": "llama"}')
    config = tmp_path / "mine.yaml"
    config.write_text(f"extends: student\nteachers: [{{name: student, weights: {tmp_path / 'llm'}}}]\n")
    asked = ["curate", "--input", str(tmp_path), "--output", str(tmp_path / "set"), "--config", str(config)]
    assert main(asked) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path / 'llm'} holds a model of type llama, no student" in told and told.count("\n") == 1
