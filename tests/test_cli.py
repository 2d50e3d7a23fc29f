"""The command line as a user meets it: exit statuses, one-line errors, nearest right names."""

import re

import pytest

from beam_pipeline.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which command? curate, shots, verify, report"),
        (["curat"], "there is no command 'curat'; did you mean 'curate'?"),
        (["curate", "--output", "x"], "--input"),
        (["curate", "--input", "nope.mp4", "--output", "OUT"], "there is no file or directory 'nope.mp4'"),
        (["curate", "--input", "x", "--output", "OUT", "--profil", "lite"], "did you mean '--profile'?"),
        (
            ["curate", "--input", "x", "--output", "OUT", "--direct_num_worker=2"],
            "did you mean '--direct_num_workers'?",
        ),
        (["curate", "--input", "x", "--output", "OUT", "--profile", "light"], "did you mean 'lite'?"),
        (["curate", "--input", "x", "--output", "OUT", "--detector", "contnt"], "content"),
        (["curate", "--input", "x", "--output", "OUT", "--limit", "0"], "'0' is not a number from 1 up"),
        (["curate", "--input", "x", "--output", "OUT", "--max-failed-fraction", "2"], "not a number from 0 to 1"),
        (["curate", "--input", "x", "--output", "gs://bucket/x"], "--output is a local directory"),
        (["verify", "OUT", "--htm", "x"], "unknown argument '--htm'"),
        (["shots", "x.mp4", "--detector", "adaptiv"], "adaptive"),
        (["evaluate"], "which evaluation? splitting"),
        (["evaluate", "spliting", "x.mp4"], "there is no evaluation 'spliting'; did you mean 'splitting'?"),
        (["evaluate", "splitting"], "SRC"),
        (["evaluate", "splitting", "x.mp4", "--detektors", "hash"], "did you mean '--detectors'?"),
        (["calibrate", "x.mp4", "--html"], "--html"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(arguments, message, capsys, tmp_path):
    arguments = [str(tmp_path / "out") if word == "OUT" else word for word in arguments]
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("reelscribe: ")
    assert told.err.count("\n") == 1
    assert message in told.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["verify", "report"])
def test_a_directory_that_is_no_dataset_is_told_so(command, tmp_path, capsys):
    assert main([command, str(tmp_path)]) == 1
    assert f"{tmp_path} is no dataset" in capsys.readouterr().err


def test_help_names_the_commands_that_are_there_and_no_others(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    commands = re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE)
    assert commands == [
        "curate",
        "shots",
        "verify",
        "report",
        "evaluate",
        "calibrate",
        "doctor",
        "profiles",
        "teachers",
    ]


def test_profiles_names_the_profile_with_its_models_and_the_rules(capsys):
    assert main(["profiles"]) == 0
    told = capsys.readouterr().out
    for name in ("lite: ", "lite-frame", "efficientnet-lite0", "conse", "panda70m: ", "paper: ", "released: "):
        assert name in told


def test_teachers_says_of_each_what_it_sees_and_how_weak_it_is(capsys):
    from model_handlers import catalogue

    assert main(["teachers"]) == 0
    told = capsys.readouterr().out
    for entries in (catalogue.TEACHERS, catalogue.EMBEDDERS, catalogue.SELECTORS):
        for entry in entries.values():
            assert f"{entry.name}, inputs {entry.inputs}" in told
            assert entry.summary.split()[0] in told
