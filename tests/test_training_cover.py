"""Which teachers a dataset needs: the greedy choice by hand, the optimum by trying, the command on a dataset."""

import itertools
import json

import numpy as np
import pytest
from annotated_dataset import TEACHERS, annotation, tasks_of, ticked, write_export, write_judged
from report_dataset import write_run

from beam_pipeline.annotate_choices import unseal
from beam_pipeline.annotate_import import import_answers
from beam_pipeline.cli import main
from beam_pipeline.evaluate_bootstrap import Interval, mean_of
from beam_pipeline.evaluate_judgements import of_rows
from beam_pipeline.training.cover import (
    Cost,
    JudgedClip,
    covering,
    greedy,
    of_judgements,
    of_labels,
    optimum,
    pool_of,
)
from beam_pipeline.training.cover_study import means_of, study_cover
from transforms.annotations import Label
from transforms.judgements import Choice

BLIP, GIT, TEXT = TEACHERS


def clips(*good, asked=None, every=True):
    """A clip for each word, whose letters are the teachers that cover it; a dash is nobody."""
    return [
        JudgedClip(f"c{at:03d}", frozenset(word.strip("-")), asked and frozenset(asked), every)
        for at, word in enumerate(good)
    ]


def order_of(judged, costs=None):
    pool = pool_of(judged)
    return "".join(pool[at] for at in greedy(covering(judged, pool), pool, costs or {}))


# a covers six of ten clips, b and c five each; b and c together nine, a with either seven.
GREEDY_IS_WORSE = ("ab", "ab", "ab", "ac", "ac", "ac", "b", "b", "c", "-")


@pytest.mark.parametrize(
    ("judged", "order"),
    [
        (("a", "b", "b"), "ba"),
        # c covers three clips alone, but after b, who covers four, it adds nothing, and a adds one.
        (("bc", "bc", "bc", "b", "a"), "bac"),
        (GREEDY_IS_WORSE, "abc"),
        (("-", "-"), ""),
    ],
)
def test_the_teacher_that_adds_most_comes_next(judged, order):
    assert order_of(clips(*judged)) == order


def test_of_equals_the_cheaper_comes_first_then_the_name():
    judged = clips("abcde", "f")
    assert order_of(judged) == "afbcde"
    costs = {"e": Cost(cpu_s=0.5), "c": Cost(cpu_s=2.0), "b": Cost(gpu_s=0.1), "d": Cost(gpu_s=0.2)}
    assert order_of(judged, costs) == "efcbda", "a GPU's second is dearer than any of a CPU, what nobody knows dearest"


def test_the_best_set_of_each_size_is_that_of_trying_all():
    rng = np.random.default_rng(5)
    for teachers in (1, 2, 7):
        covers = rng.random((60, teachers)) < rng.random(teachers) * 0.5
        found = optimum(covers)
        assert [len(chosen) for _, chosen in found] == list(range(1, teachers + 1))
        for size, (covered, chosen) in enumerate(found, 1):
            tried = [covers[:, list(some)].any(axis=1).sum() for some in itertools.combinations(range(teachers), size)]
            assert covered == max(tried) == covers[:, list(chosen)].any(axis=1).sum()


def test_twenty_teachers_are_tried_in_all_ways_and_more_are_not():
    covers = np.random.default_rng(1).random((1000, 21)) < 0.2
    assert len(optimum(covers[:, :20])) == 20
    assert optimum(covers) is None
    names = "abcdefghijklmnopqrstu"
    judged = [
        JudgedClip(str(at), frozenset(names[one] for one in np.flatnonzero(row))) for at, row in enumerate(covers)
    ]
    found = study_cover(judged, {})
    assert {step.best for step in found.steps} == {None}
    assert "the best possible is not told: of 21 teachers there are too many sets to try" in found.notes


def test_a_step_tells_what_is_covered_gained_and_possible():
    found = study_cover(clips(*GREEDY_IS_WORSE), {"a": Cost(0.5), "b": Cost(gpu_s=0.25)})
    told = [(one.teacher, one.alone.value, one.covered.value, one.gain.value, one.best) for one in found.steps]
    assert told == [
        ("a", 0.6, 0.6, 0.6, 0.6),
        ("b", 0.5, 0.8, pytest.approx(0.2), 0.9),
        ("c", 0.4, 0.9, pytest.approx(0.1), 0.9),
    ]
    assert [one.best_set for one in found.steps] == [("a",), ("b", "c"), ("a", "b", "c")]
    assert [one.cost_so_far for one in found.steps] == [Cost(0.5), Cost(0.5, 0.25), None]
    assert found.steps[1].cost_so_far.told() == "0.5 cpu + 0.25 gpu"
    covered = [True] * 8 + [False, False]
    assert found.steps[1].covered == mean_of(np.array(covered)), "the same interval as of any other figure"
    assert (found.clips, found.all_bad) == (10, 1)


def test_intervals_of_many_columns_are_those_of_each():
    values = np.random.default_rng(2).random((30, 3)) < 0.4
    for one, column in zip(means_of(values), values.T, strict=True):
        alone = mean_of(column)
        assert (one.value, one.low, one.high) == pytest.approx((alone.value, alone.low, alone.high))
    assert means_of(np.zeros((0, 2))) == [Interval(None)] * 2


@pytest.mark.parametrize(
    ("judged", "wanted", "chosen", "why"),
    [
        (("a",) * 150 + ("b",) * 49 + ("c",), None, "ab", "the next one, c, adds 0.5 points, less than 1"),
        (("a",) * 150 + ("b",) * 48 + ("c",) * 2, None, "abc", "all that there are"),
        (("a",) * 150 + ("b",) * 50, 1, "a", "as --teachers says"),
    ],
)
def test_a_teacher_that_adds_less_than_a_point_is_left_out(judged, wanted, chosen, why):
    found = study_cover(clips(*judged), {}, wanted=wanted)
    assert ("".join(found.chosen), found.why.partition(": ")[2]) == (chosen, why)
    assert found.profile_line == f"teachers: [{', '.join(chosen)}]"


def test_where_all_is_bad_there_is_nobody_to_take():
    found = study_cover(clips("-", "-", asked="ab"), {})
    assert (found.measured, found.chosen) == (False, ())
    assert "teachers: [" not in found.text()


def test_what_judgements_cannot_tell_is_told():
    judged = [*clips("a", "ab", asked="ab"), *clips("a", asked="a", every=False)]
    notes = study_cover(judged, {}).notes
    assert notes[2].startswith("of 1 clips people said only which caption is the best")
    assert notes[3] == "b stood to be chosen of 2 of the 3 clips, and covers no other"


def test_a_label_counts_for_all_who_said_its_good_captions():
    choices = (Choice("a dog", ("a", "b")), Choice("a cat", ("c",)), Choice("a cow", ("new",)))
    label = Label("v", "v", choices, 0, (2, 0, 2, 0), good=frozenset({0, 2}), is_every_good=True)
    assert of_labels([label]) == [
        JudgedClip("v", frozenset({"a", "b", "new"}), frozenset({"a", "b", "c", "new"}), True)
    ]
    assert of_labels([label], {"new"}) == [JudgedClip("v", frozenset("ab"), frozenset("abc"), True)]


def test_of_a_file_a_teacher_is_good_whom_more_than_half_chose():
    said = {"v1": ["a,b", "a", "c"], "v2": ["a", "b"], "v3": ["", "", "a"], "v4": ["", "a"]}
    rows = [
        {"clip_id": clip_id, "annotator": str(by), "chosen_teachers": names}
        for clip_id, theirs in said.items()
        for by, names in enumerate(theirs)
    ]
    assert of_judgements(of_rows(rows)) == ([JudgedClip("v1", frozenset("a")), JudgedClip("v3", frozenset())], 2)


@pytest.fixture(scope="module")
def judged_set(tmp_path_factory):
    """Twelve clips, of which blip's caption is good of nine, git's of those and one more, and text's of the last two.

    Where two said the same, both are good.
    """
    folder = tmp_path_factory.mktemp("cover")
    dataset = str(write_judged(folder / "set"))
    ask(dataset, folder / "ask")
    tasks = sorted(tasks_of(folder / "ask"), key=lambda task: task["data"]["clip_id"])
    said = [[ticked(task, 7, good_numbers(task, at))] for at, task in enumerate(tasks)]
    import_answers(dataset, [write_export(folder / "e.json", tasks, said)])
    return folder


def ask(dataset, output, *arguments):
    command = ["annotate", "export", dataset, "--to", "label-studio", "--choose", "every-good", "--clips", "100"]
    assert main([*command, "--output", str(output), *arguments]) == 0


def good_numbers(task, at):
    wanted = {BLIP} if at < 9 else {TEXT} if at > 9 else {GIT}
    choices = unseal(task["data"]["key"]).choices
    return [str(number) for number, one in enumerate(choices, 1) if wanted & set(one.teachers)]


def test_the_command_prints_the_table_and_the_line_of_a_profile(judged_set, tmp_path, capsys):
    places = ["--json", str(tmp_path / "c.json"), "--html", str(tmp_path / "c.html")]
    assert main(["train", "teachers-cover", str(judged_set / "set"), *places]) == 0
    told = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in told[:4]]
    assert " ".join(rows[0]) == "teacher alone so far gain best possible s a clip s so far"
    assert [(row[1], row[2]) for row in rows[1:]] == [(BLIP, "75.0"), (TEXT, "16.7"), (GIT, "33.3")]
    assert told[5:7] == [
        "3 of 3 teachers cover 100.0 % of the clips: all that there are", f"teachers: [{BLIP}, {TEXT}, {GIT}]",
    ]  # fmt: skip
    written = json.loads((tmp_path / "c.json").read_text("utf-8"))
    assert [round(step["covered"]["value"], 4) for step in written["steps"]] == [0.75, 0.9167, 1.0]
    assert (written["published"], written["steps"][0]["cost"]) == ({"1": 30.8, "8": 76.8, "31": 84.7}, None)
    assert any(one.startswith(f"nobody measured what a clip takes {BLIP}, {GIT}, {TEXT}") for one in written["notes"])
    page = (tmp_path / "c.html").read_text("utf-8")
    assert (page.count("<svg"), page.count("published: "), "<script" in page) == (2, 6, False)


def test_costs_are_those_that_were_entered_or_that_a_run_measured(judged_set, tmp_path, capsys):
    import shutil

    shutil.copytree(judged_set / "set", tmp_path / "set")

    def flow(seconds, **more):
        return {"in": 10, "out": 10, "failed": 0, "reused": 0, "seconds": seconds, **more}

    teachers = {
        BLIP: {"asked": 10, "reused": 0, "seconds": 5.0, "not_applicable": 0},
        TEXT: {"asked": 4, "reused": 0, "seconds": 1.0, "not_applicable": 6},
    }
    stages = {name: flow(1.0) for name in ("read", "split", "embed", "stitch", "score", "commit")}
    write_run(
        tmp_path / "set",
        status="done",
        started_at="2026-01-01T00:00:00+00:00",
        finished_at="2026-01-01T00:10:00+00:00",
        config={"teachers": [BLIP, TEXT], "embedder": "e", "selector": "s", "values": {}},
        counts={"clips": 10, "video_ms": 60_000},
        stages={**stages, "caption": flow(6.0, teachers=teachers)},
    )
    (tmp_path / "rates.yaml").write_text(f"teachers: {{{GIT}: {{gpu_s: 0.125}}, typo: {{cpu_s: 1}}}}\n", "utf-8")
    command = ["train", "teachers-cover", str(tmp_path / "set"), "--rates", str(tmp_path / "rates.yaml")]
    assert main([*command, "--json", str(tmp_path / "c.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1].strip() for line in lines[1:4]] == ["0.5 cpu", "0.6 cpu", "0.6 cpu + 0.125 gpu"]
    assert "seconds a clip, of one vCPU or one GPU, are of rates.yaml, run run-1" in lines
    assert any(line.startswith("run run-1 is a weak basis: it measured 1 minutes of video") for line in lines)
    assert f"{tmp_path}/rates.yaml has rates of typo, of whom nobody judged captions" in lines


def test_models_under_trial_count_as_teachers_and_may_be_left_out(tmp_path, capsys):
    dataset = str(write_judged(tmp_path / "set"))
    for name, captions in (("new", "mine"), ("other", "nothing")):
        rows = [f"v{video}-0-4000,{captions} {video}" for video in range(4)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["clip_id,caption", *rows]), "utf-8")
    ask(dataset, tmp_path / "ask", "--extra", str(tmp_path / "new.csv"), "--extra", str(tmp_path / "other.csv"))
    ask(dataset, tmp_path / "plain")
    for folder, wanted in (("ask", {"new", BLIP}), ("plain", {GIT})):
        tasks = tasks_of(tmp_path / folder)
        said = []
        for task in tasks:
            choices = unseal(task["data"]["key"]).choices
            numbers = [str(at) for at, one in enumerate(choices, 1) if wanted & set(one.teachers)]
            said.append([ticked(task, 7, numbers)])
        import_answers(dataset, [write_export(tmp_path / f"{folder}.json", tasks, said)])
    capsys.readouterr()
    assert main(["train", "teachers-cover", dataset]) == 0
    told = capsys.readouterr().out.splitlines()
    # Those that add nothing go by name.
    assert [line.split()[1:3] for line in told[1:6]] == [
        ["new", "100.0"], ["other", "0.0"], [BLIP, "100.0"], [GIT, "0.0"], [TEXT, "0.0"],
    ]  # fmt: skip
    assert "12 judgements are left out, as captions of new, other were not among them (--extras)" in told
    assert "new is no teacher of the dataset yet; name it as your configuration does" in told
    assert main(["train", "teachers-cover", dataset, "--extras", "none"]) == 0
    assert {line.split()[1] for line in capsys.readouterr().out.splitlines()[1:4]} == set(TEACHERS)
    assert main(["train", "teachers-cover", dataset, "--extras", "nwe"]) == 2
    assert "people judged no captions of 'nwe'; did you mean 'new'?" in capsys.readouterr().err


def test_judgements_of_the_best_caption_give_a_lower_bound_and_say_so(tmp_path, capsys):
    dataset = str(write_judged(tmp_path / "set"))
    command = ["annotate", "export", dataset, "--to", "label-studio", "--clips", "100"]
    assert main([*command, "--output", str(tmp_path / "ask")]) == 0
    tasks = tasks_of(tmp_path / "ask")
    said = [[annotation(task, 7, TEXT if at else None)] for at, task in enumerate(tasks)]
    import_answers(dataset, [write_export(tmp_path / "e.json", tasks, said)])
    capsys.readouterr()
    assert main(["train", "teachers-cover", dataset]) == 0
    told = capsys.readouterr().out
    assert f"teachers: [{TEXT}]\n" in told
    assert "of 12 clips people said only which caption is the best" in told


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (["teachers-cvoer", "SET"], 2, "there is no kind of training 'teachers-cvoer'; did you mean 'teachers-cover'?"),
        (["teachers-cover", "SET", "--teachers", "9"], 2, "--teachers 9: people judged captions of 3 alone"),
        (["teachers-cover", "SET", "--teacher", "9"], 2, "unknown argument '--teacher'; did you mean '--teachers'?"),
        (["teachers-cover", "SET", "--annotations", "none.csv"], 2, "cannot read none.csv"),
        (["teachers-cover", "SET", "--annotations", "SET"], 2, "Is a directory"),
        (["teachers-cover", "SET", "--rates", "none.yaml"], 2, "cannot read none.yaml"),
        (["teachers-cover", "NOWHERE"], 1, "is no dataset"),
    ],
)
def test_bad_usage_is_one_line(judged_set, tmp_path, capsys, arguments, status, why):
    places = {"SET": str(judged_set / "set"), "NOWHERE": str(tmp_path / "nowhere")}
    assert main(["train", *(places.get(word, word) for word in arguments)]) == status
    told = capsys.readouterr()
    assert (why in told.err, told.err.count("\n"), told.out) == (True, 1, "")


def test_a_dataset_that_nobody_judged_is_told_how_to_ask(tmp_path, capsys):
    dataset = str(write_judged(tmp_path / "set", videos=1, reels=False))
    assert main(["train", "teachers-cover", dataset]) == 2
    assert f"ask with `reelscribe annotate export {dataset} --choose every-good`" in capsys.readouterr().err


def test_a_file_of_judgements_serves_as_well(judged_set, tmp_path, capsys):
    rows = ["clip_id,annotator,chosen_teachers", 'c1,x,"a, b"', "c2,x,b", "c3,x,", "c4,x,c", "c4,y,a"]
    (tmp_path / "j.csv").write_text("\n".join(rows), "utf-8")
    command = ["train", "teachers-cover", str(judged_set / "set"), "--annotations", str(tmp_path / "j.csv")]
    assert main(command) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[1:3] for line in told[1:3]] == [["b", "66.7"], ["a", "33.3"]]
    assert told[4] == "1 of 2 teachers cover 66.7 % of the clips: the next one, a, adds 0.0 points, less than 1"
    assert "1 judged clips are left out, since people do not agree on them" in told
