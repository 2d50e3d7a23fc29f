"""A better selector on a dataset that is there: other scores and other choices, and no teacher is asked again."""

import json
import pathlib

import numpy as np
import pytest
import tiny_dual
import yaml
from run_records import newest_run
from synthetic import make_video

from beam_pipeline.cli import main
from beam_pipeline.verify import verify
from model_handlers.trained import Calibration
from transforms.tables import read_table

CURVE = Calibration("temperature", "score", 8.0, -0.5)
TEACHERS = ["lite-frame", "lite-motion", "lite-hedged"]


def write_version(folder: pathlib.Path, like: pathlib.Path | None = None, **changes: object) -> pathlib.Path:
    """A trained version: a tiny CLIP of random weights, that of another version where one is given."""
    if like is None:
        tiny_dual.make_clip(folder)
    else:
        folder.mkdir()
        for path in like.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
    record = {
        "schema_version": 1,
        "selector": "clip-vit-h",
        "base": {},
        "trained_on": {"examples": {"train": 40}},
        "metrics": {},
        "calibration": None,
        "abstain_below": None,
    }
    (folder / "selector.json").write_text(json.dumps({**record, **changes}))
    return folder


def curate(folder: pathlib.Path, selector: object, **values: object) -> dict:
    """Curate with this selector; the record of the run."""
    stitching = {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0}
    path = folder / "config.yaml"
    told = {"extends": "lite", "stitching": stitching, "teachers": TEACHERS, "selector": selector, **values}
    path.write_text(yaml.safe_dump(told))
    arguments = ["--input", str(folder / "in"), "--output", str(folder / "out"), "--config", str(path)]
    assert main(["curate", *arguments]) == 0
    assert verify(folder / "out") == []
    return newest_run(folder / "out")


def asked(run: dict) -> dict[str, int]:
    """What models were asked for in a run, and what was there already."""
    names = ["split reels_reused", "caption captions", "caption reused", "score clips", "score reused"]
    return {name: run["counts"].get(name, 0) for name in names}


def clips(folder: pathlib.Path) -> list[dict]:
    return read_table(folder / "out", "clips").sort_by("clip_id").to_pylist()


def scores(folder: pathlib.Path) -> list[list[float]]:
    return [[one["matching_score"] for one in row["captions"]] for row in clips(folder)]


def chosen(row: dict) -> tuple[str, float]:
    best = max(row["captions"], key=lambda one: one["matching_score"])
    return best["caption"], best["matching_score"]


@pytest.fixture(scope="module")
def curated(tmp_path_factory):
    """Three clips of two videos, chosen by ConSE; then by an uncalibrated version, then by a calibrated one."""
    folder = tmp_path_factory.mktemp("rescoring")
    (folder / "in").mkdir()
    make_video(folder / "in" / "a.mp4", shots=[(2.0, "red"), (2.0, "blue")], drift_px=3)
    make_video(folder / "in" / "b.mp4", shots=[(2.0, "green")], drift_px=3)
    plain = write_version(folder / "v1")
    found = []
    for selector in (
        "conse",
        plain,
        write_version(folder / "v2", plain, calibration=CURVE.as_json(), abstain_below=0.999),
    ):
        named = (
            selector
            if isinstance(selector, str)
            else {"name": "clip-vit-h", "weights": str(selector), "dtype": "float32"}
        )
        run = curate(folder, named)
        found.append((run, clips(folder), scores(folder)))
    return folder, found


def test_a_trained_selector_scores_again_and_no_teacher_is_asked(curated):
    _, found = curated
    first, *others = [asked(run) for run, _, _ in found]
    assert first == {
        "split reels_reused": 0,
        "caption captions": 9,
        "caption reused": 0,
        "score clips": 3,
        "score reused": 0,
    }
    again = {"split reels_reused": 2, "caption captions": 0, "caption reused": 9, "score clips": 3, "score reused": 0}
    assert others == [again, again]
    assert all("embed" not in run["seconds"] and "caption" not in run["seconds"] for run, _, _ in found[1:])


def test_what_stands_then_is_what_the_new_selector_chose(curated):
    _, found = curated
    texts = [[[one["caption"] for one in row["captions"]] for row in rows] for _, rows, _ in found]
    assert texts[0] == texts[1] == texts[2]
    for _, rows, _ in found:
        assert [(row["caption"], row["matching_score"]) for row in rows] == [chosen(row) for row in rows]
    by_conse, by_clip = ([row["caption"] for row in found[at][1]] for at in (0, 1))
    assert by_conse != by_clip


def test_calibrated_scores_are_probabilities_in_the_order_of_the_raw_ones(curated):
    _, found = curated
    raw, said = np.array(found[1][2]), np.array(found[2][2])
    np.testing.assert_allclose(said, np.vectorize(CURVE.probability)(raw), atol=1e-6)
    assert [row["caption"] for row in found[1][1]] == [row["caption"] for row in found[2][1]]
    assert [[row["abstained"] for row in rows] for _, rows, _ in found[1:]] == [[False] * 3, [True] * 3]
    assert found[2][0]["config"]["selector_training"]["trained_on"] == {"examples": {"train": 40}}


def test_another_threshold_scores_nothing_again(curated):
    folder, found = curated
    named = {"name": "clip-vit-h", "weights": str(folder / "v2"), "dtype": "float32"}
    run = curate(folder, named, abstain_below=None)
    assert (asked(run)["score reused"], asked(run)["score clips"]) == (3, 0)
    assert "score" not in run["seconds"]
    assert scores(folder) == found[2][2]
    assert [row["abstained"] for row in clips(folder)] == [False] * 3


def test_a_version_evaluates_itself_beside_others_on_the_clips_of_a_file(curated, tmp_path, capsys):
    folder, _ = curated
    rows = clips(folder)
    judged = tmp_path / "people.csv"
    judged.write_text("clip_id,chosen_teachers\n" + "".join(f"{row['clip_id']},{TEACHERS[0]}\n" for row in rows))
    (tmp_path / "test.txt").write_text(f"# the test part\n{rows[0]['clip_id']}\n{rows[2]['clip_id']}  # the last\n\n")
    named = f"clip-vit-h={folder / 'v2'}"
    given = ["--annotations", str(judged), "--clips", str(tmp_path / "test.txt"), "--selector", f"conse,{named}"]
    places = ["--json", str(tmp_path / "s.json"), "--html", str(tmp_path / "s.html")]
    assert main(["evaluate", "selection", str(folder / "out"), *given, *places]) == 0
    told = capsys.readouterr().out
    written = json.loads((tmp_path / "s.json").read_text("utf-8"))
    assert (written["clips"], list(written["rows"])) == (2, ["the dataset's", "conse", named])
    assert f"only the 2 clips that {tmp_path / 'test.txt'} names" in written["notes"]
    assert written["calibration"][named]["captions"]["captions"] == len(
        {(row["clip_id"], one["caption"]) for row in (rows[0], rows[2]) for one in row["captions"]}
    )
    # Abstains below .999, as its record says.
    assert written["rows"][named]["abstained"]["value"] == 1.0
    assert any(line.startswith(named) for line in told.splitlines())
    assert (tmp_path / "s.html").read_text("utf-8").count("<svg") == 2


def test_retrieval_takes_a_version_and_the_clips_of_a_file_too(curated, tmp_path):
    folder, _ = curated
    rows = clips(folder)
    (tmp_path / "test.txt").write_text(f"{rows[0]['clip_id']}\n{rows[2]['clip_id']}\ngone-0-1000\n")
    named = f"clip-vit-h={folder / 'v1'}"
    given = ["--clips", str(tmp_path / "test.txt"), "--selector", named, "--json", str(tmp_path / "r.json")]
    assert main(["evaluate", "retrieval", str(folder / "out"), *given]) == 0
    written = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert (written["clips"], list(written["rows"])) == (2, [named])
    told = f"only the clips that {tmp_path / 'test.txt'} names: 2 of its 3 are in the dataset with a caption"
    assert told in written["notes"]


def test_videos_have_no_clips_that_a_file_could_name(curated, tmp_path, capsys):
    folder, _ = curated
    (tmp_path / "c.json").write_text(json.dumps([{"file": "a.mp4", "caption": "red"}]))
    given = ["--captions", str(tmp_path / "c.json"), "--clips", str(tmp_path / "test.txt")]
    assert main(["evaluate", "retrieval", str(folder / "in"), *given]) == 2
    assert capsys.readouterr().err.endswith(
        "names clips of a dataset, and " + str(folder / "in") + " is none; leave it out\n"
    )


@pytest.mark.parametrize(
    ("kind", "arguments", "told"),
    [
        ("selection", ["--selector", "clip-vit-h=/nowhere"], "cannot load clip-vit-h=/nowhere: there is no directory"),
        ("selection", ["--selector", "clip-vit-x=/nowhere"], "there is no selector 'clip-vit-x'; did you mean"),
        ("selection", ["--selector", "conse=v1"], "nothing of conse can be changed, not even weights"),
        ("selection", ["--selector", "xclip-base={folder}/v1"], "holds a trained clip-vit-h, not xclip-base; write"),
        ("selection", ["--clips", "{other}"], "nobody has judged any of the 1 clips that"),
        ("retrieval", ["--clips", "{other}"], "none of the 1 clips that"),
        ("selection", ["--clips", "{empty}"], "names no clip; write one clip_id a line"),
        ("selection", ["--clips", "{odd}"], "names 'a b', which is no clip_id; write one a line"),
        ("selection", ["--clips", "{folder}/nothing.txt"], "cannot read"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(curated, tmp_path, capsys, kind, arguments, told):
    folder, _ = curated
    for name, text in {"other": "x-1-2\n", "empty": "# nothing\n", "odd": "a b\n"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "people.csv").write_text(f"clip_id,chosen_teachers\n{clips(folder)[0]['clip_id']},lite-frame\n")
    names = {"folder": folder, **{name: tmp_path / name for name in ("other", "empty", "odd")}}
    people = ["--annotations", str(tmp_path / "people.csv")] if kind == "selection" else []
    given = [one.format(**names) for one in arguments]
    assert main(["evaluate", kind, str(folder / "out"), *people, *given]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
