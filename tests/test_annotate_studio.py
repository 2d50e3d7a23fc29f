"""Label Studio itself takes the questions, has them judged, and its exports come back: in an environment of its own."""

import collections
import json
import pathlib
import subprocess
import sys

import pytest
from annotated_dataset import write_judged

from beam_pipeline.annotate_answers import read_answers
from beam_pipeline.annotate_choices import unseal
from beam_pipeline.annotate_clips import AskOptions
from beam_pipeline.annotate_export import export_questions
from beam_pipeline.annotate_import import import_answers
from transforms.judgements import judgements_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STUDIO = ["label-studio>=1.20,<2"]
SCRIPT = "studio_round_trip.py"
EXPORTS = ("JSON.json", "JSON_MIN.json", "CSV.csv")


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """The Python of an environment that has Label Studio; it pins much, so none of ours can hold it."""
    folder = tmp_path_factory.mktemp("studio")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    made = subprocess.run(
        [str(python), "-m", "pip", "install", "-q", *STUDIO], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"label-studio cannot be installed here: {made.stderr.strip().splitlines()[-1]}")
    return str(python)


@pytest.fixture(scope="module")
def judged(studio, tmp_path_factory):
    """A dataset asked about in both forms, and what Label Studio exported of what people answered."""
    folder = tmp_path_factory.mktemp("judged")
    dataset, command = str(write_judged(folder / "set")), [studio, str(pathlib.Path(__file__).with_name(SCRIPT))]
    for choose in ("best", "every-good"):
        asked, told = folder / f"ask-{choose}", folder / choose
        told.mkdir()
        export_questions(dataset, str(asked), AskOptions("label-studio", clips=100, choose=choose))
        command += [str(asked), str(told)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_label_studios_own_exports_are_read_as_what_its_people_said(judged):
    dataset, exports = str(judged / "set"), judged / "best"
    whole, least, table = (read_answers(str(exports / name)) for name in EXPORTS)
    assert (len(whole.answers), whole.cancelled, whole.unanswered, whole.broken) == (23, 1, 0, ())
    assert [(len(one.answers), one.broken) for one in (least, table)] == [(23, ())] * 2

    def said(read):
        return {
            (one.task.clip_id, one.annotator): (one.chosen, one.better_caption, one.lead_time_s, one.annotated_at)
            for one in read.answers
        }

    assert said(least) == said(whole)
    assert said(table) == said(whole)
    assert {choice for choice, *_ in said(whole).values()} == {0, 1, None}
    assert sorted(better for _, better, *_ in said(whole).values() if better) == [
        "anna@example.org's own words", "bob@example.org's own words",
    ]  # fmt: skip
    first = import_answers(dataset, [str(exports / "JSON.json")])
    assert (first.stored.new, first.clips, first.annotators, first.problems) == (23, 12, 2, ())
    again = import_answers(dataset, [str(exports / "JSON_MIN.json"), str(exports / "CSV.csv")])
    assert (again.stored.unchanged, again.stored.new, again.problems) == (23, 0, ())
    assert all(one.choices == unseal_of(judged / "ask-best", one.clip_id) for one in judgements_of(dataset))


def test_several_captions_that_were_ticked_are_read_from_each_of_its_exports(judged):
    dataset, exports = str(judged / "set"), judged / "every-good"
    whole, least, table = (read_answers(str(exports / name)) for name in EXPORTS)
    # Anna ticked two of each; Bob one of six and none of six, of which one was skipped and one contradicts itself.
    assert (len(whole.answers), whole.cancelled, whole.unanswered, whole.broken) == (22, 1, 0, ())
    tasks = json.loads((judged / "ask-every-good" / "tasks.json").read_text("utf-8"))
    assert whole.contradictory == least.contradictory == table.contradictory == (tasks[1]["data"]["clip_id"],)

    def said(read):
        return {(one.task.clip_id, one.annotator): (one.chosen, one.good) for one in read.answers}

    assert collections.Counter(said(whole).values()) == {
        (None, frozenset({0, 1})): 12,
        (None, frozenset({1})): 5,
        (None, frozenset()): 5,
    }
    assert said(least) == said(table) == said(whole)
    done = import_answers(dataset, [str(exports / "JSON.json")])
    assert done.stored.new == 22
    assert [(one.what.split(",")[0], one.count) for one in done.problems] == [("answers that all captions are bad", 1)]
    again = import_answers(dataset, [str(exports / "JSON_MIN.json"), str(exports / "CSV.csv")])
    assert (again.stored.unchanged, again.stored.new) == (22, 0)


def unseal_of(output, clip_id):
    """The choices of the question about a clip."""
    tasks = json.loads((output / "tasks.json").read_text("utf-8"))
    return next(unseal(task["data"]["key"]).choices for task in tasks if task["data"]["clip_id"] == clip_id)
