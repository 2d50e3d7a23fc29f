"""`reelscribe estimate` as a user runs it: on the record of a run that was really made, and as the docs show it."""

import json
import pathlib
import re
import shlex

import pytest
import yaml
from run_records import newest_run
from synthetic import make_video

from beam_pipeline.cli import main
from beam_pipeline.estimate_commands import measured_at
from transforms.files import write

ROOT = pathlib.Path(__file__).parents[1]
CPU = ["--worker", "cpu=n2-standard-8,vcpu=8,price=0.5"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two videos, one of them with words, through the real pipeline and two small teachers."""
    folder = tmp_path_factory.mktemp("estimated")
    (folder / "in").mkdir()
    for name, colours in (("a", ("red", "blue")), ("b", ("green",))):
        make_video(folder / "in" / f"{name}.mp4", shots=[(3.0, colour) for colour in colours], drift_px=3)
    (folder / "in" / "a.json").write_text(json.dumps({"title": "Red and blue"}))
    loose = {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0}
    config = {"extends": "lite", "stitching": loose, "teachers": ["lite-frame", "lite-text"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    argv = ["curate", "--input", str(folder / "in"), "--output", str(folder / "set")]
    assert main([*argv, "--config", str(folder / "config.yaml")]) == 0
    return folder / "set"


def run(capsys, *arguments):
    """The exit status, and what was printed."""
    status = main(["estimate", *map(str, arguments)])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_an_estimate_is_the_runs_own_seconds_times_the_hours(dataset, tmp_path, capsys):
    file = tmp_path / "estimate.json"
    asked = ["--from", dataset, "--hours", 10, *CPU, "--max-workers", 2, "--utilisation", 0.5, "--json", file]
    status, out, err = run(capsys, *asked)
    assert (status, err) == (0, "")
    record, found = newest_run(dataset), json.loads(file.read_text())
    of_video_s = record["counts"]["video_ms"] / 1000
    stages, teachers = record["stages"], record["stages"]["caption"]["teachers"]
    worked_s = sum(stages[stage]["seconds"] for stage in ("read", "split", "embed", "stitch", "score", "commit"))
    worked_s += sum(one["seconds"] for one in teachers.values())
    hours = worked_s / of_video_s * 10
    assert found["cpu_hours"] == pytest.approx(hours)
    assert found["wall_h"] == pytest.approx(hours / (2 * 8 * 0.5))
    assert found["cost"] == pytest.approx(hours / (8 * 0.5) * 0.5)
    assert found["amounts"]["clips"] == pytest.approx(record["counts"]["clips"] / of_video_s * 36_000)
    assert found["stored_bytes"]["reels"] == pytest.approx(record["bytes"]["reels"] / of_video_s * 36_000)
    assert [one["stage"] for one in found["stages"]][4:6] == ["caption/lite-frame", "caption/lite-text"]
    # What two tiny videos tell is said to be little.
    assert f"run {record['run_id']}: it measured 2 videos; 10 or more would be better" in found["weak"]
    assert "a weak basis:" in out.splitlines()


def test_within_hours_asks_for_the_workers_that_take_them(dataset, tmp_path, capsys):
    def asked(*more):
        file = tmp_path / "estimate.json"
        assert run(capsys, "--from", dataset, "--hours", 1000, *CPU, "--json", file, *more)[0] == 0
        return json.loads(file.read_text())

    within = asked("--within", 5)
    (pool,) = within["pools"]
    assert asked("--max-workers", pool["workers"])["wall_h"] == within["wall_h"] <= 5
    assert asked("--max-workers", pool["workers"] - 1)["wall_h"] > 5


def test_a_dataset_in_a_bucket_tells_the_same(dataset, gcs, capsys):
    record = newest_run(dataset)
    place = f"gs://bucket/set/runs/{record['run_id']}.json"
    write(place, (dataset / "runs" / f"{record['run_id']}.json").read_bytes())
    asked = ["--hours", 1, *CPU, "--max-workers", 1]
    for source in ("gs://bucket/set", place):
        assert run(capsys, "--from", source, *asked) == run(capsys, "--from", dataset, *asked)
    status, _, err = run(capsys, "--from", "gs://bucket/set/runs/other.json", *asked)
    assert (status, err.count("\n")) == (2, 1)


def test_a_later_run_that_did_nothing_is_no_basis_but_the_earlier_one_is(dataset, capsys):
    first = newest_run(dataset)["run_id"]
    config = dataset.parent / "config.yaml"
    argv = ["curate", "--input", str(dataset.parent / "in"), "--output", str(dataset), "--config", str(config)]
    assert main(argv) == 0
    assert newest_run(dataset)["run_id"] != first
    assert [run.run_id for run in measured_at(str(dataset))] == [first]
    idle = dataset / "runs" / f"{newest_run(dataset)['run_id']}.json"
    status, _, err = run(capsys, "--from", idle, "--hours", 1, *CPU, "--max-workers", 1)
    assert (status, "split no video" in err, err.count("\n")) == (2, True, 1)


def test_another_profile_is_refused_until_its_rates_are_entered(dataset, tmp_path, capsys):
    asked = ["--from", dataset, "--hours", 1, *CPU, "--max-workers", 1, "--profile", "lite"]
    status, _, err = run(capsys, *asked)
    assert (status, err.count("\n")) == (2, 1)
    named = (
        "caption/lite-frames, caption/lite-motion, caption/lite-scene, caption/lite-hedged, caption/lite-frames-text"
    )
    assert f"no rate for {named} (run " in err
    assert "had none). Measure it: reelscribe curate" in err
    others = ["lite-frames", "lite-motion", "lite-scene", "lite-hedged", "lite-frames-text"]
    rates = tmp_path / "rates.yaml"
    rates.write_text(yaml.safe_dump({"teachers": {name: {"cpu_s": 0.5} for name in others}}))
    status, out, _ = run(capsys, *asked, "--rates", rates)
    assert status == 0
    assert "  - rates of lite-frames, lite-motion, lite-scene, lite-hedged, lite-frames-text: rates.yaml" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-workers", "1"], "how much video is it? Say --hours N, or --videos N and --mean-length SECONDS"),
        (
            ["--hours", "1"],
            "say either --max-workers N, to be told the hours, or --within HOURS, to be told the workers",
        ),
        (["--hours", "1", "--max-workers", "1", "--within", "1"], "say either --max-workers N"),
        (["--mean-length", "9", "--max-workers", "1"], "--mean-length goes with --videos N"),
        (["--hours", "1", "--max-workers", "1"], "what kind of workers, at what price? Add --worker POOL=MACHINE"),
        (["--hours", "1", "--max-workers", "1", *CPU], "what is the job to do? Say --from DIR"),
        (["--hours", "1", "--max-workers", "1", *CPU, "--from", "nowhere"], "--from nowhere: there is no run in it"),
        (["--hours", "1", "--max-workers", "1", *CPU, "--from", "no.json"], "no.json is no record of a run"),
        (
            ["--hours", "1", "--max-workers", "1", *CPU, "--profile", "lyte"],
            "there is no profile 'lyte'; did you mean 'lite'?",
        ),
        (["--hours", "nan", "--max-workers", "1"], "argument --hours: 'nan' is not a number above 0"),
        (["--hours", "1", "--within", "1", "--utilisation", "70"], "'70' is not a share between 0 and 1"),
    ],
)
def test_bad_usage_is_told_in_a_line(arguments, message, capsys):
    status, out, err = run(capsys, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_rate_that_no_stage_asks_for_is_refused(dataset, tmp_path, capsys):
    (tmp_path / "rates.yaml").write_text("teachers: {lite-fram: {cpu_s: 1}}")
    asked = ["--from", dataset, "--hours", 1, *CPU, "--max-workers", 1, "--rates", tmp_path / "rates.yaml"]
    status, _, err = run(capsys, *asked)
    assert status == 2
    assert "--rates has 'lite-fram', which the job does not do; did you mean 'lite-frame'?" in err


def shown():
    """The commands of docs/sizing.md, each with the output that is shown below it."""
    text = (ROOT / "docs" / "sizing.md").read_text("utf-8")
    for block in re.findall(r"^```\n\$ (.*?)^```$", text, re.DOTALL | re.MULTILINE):
        # A command goes on in the next line after a backslash; what is left out is dots.
        command, output = re.split(r"(?<!\\)\n", block, maxsplit=1)
        yield command.replace("\\\n", " "), output


@pytest.mark.parametrize(("command", "output"), list(shown()))
def test_the_figures_of_the_docs_are_what_their_commands_print(command, output, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    program, *arguments = shlex.split(command)
    assert program == "reelscribe"
    assert main(arguments) == 0
    pattern = "".join(".*" if line == "...\n" else re.escape(line) for line in output.splitlines(keepends=True))
    assert re.fullmatch(pattern, capsys.readouterr().out, re.DOTALL)


def test_the_docs_show_both_ways_to_ask():
    asked = [command for command, _ in shown()]
    assert [("--within" in command, "--max-workers" in command) for command in asked] == [(False, True), (True, False)]
