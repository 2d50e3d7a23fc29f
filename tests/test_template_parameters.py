import argparse

import pytest

from beam_pipeline.job_arguments import curate_arguments, watch_arguments
from beam_pipeline.template_parameters import arguments_of
from beam_pipeline.usage import Parser, UsageError


def parser(add=curate_arguments) -> argparse.ArgumentParser:
    made = Parser(allow_abbrev=False)
    add(made)
    return made


@pytest.mark.parametrize(
    ("parameter", "own"),
    [
        ("--input=gs://a/b/,gs://c/*.mp4", ["--input=gs://a/b/", "--input=gs://c/*.mp4"]),
        ("--input=gs://a/one film.mp4", ["--input=gs://a/one film.mp4"]),
        ("--output=gs://a/b,c", ["--output=gs://a/b,c"]),
        ("--limit=10", ["--limit=10"]),
        ("--limit=", []),
        ("--fast=true", ["--fast"]),
        ("--fast=False", []),
        ("--fast=", []),
        ("--commercial_only=true", ["--commercial-only"]),
        ("--write-clips=copy", ["--write-clips=copy"]),
        ("--write_clips=copy", ["--write-clips=copy"]),
        ("--measure=blur, motion", ["--measure=blur", "--measure=motion"]),
        ("--filter=blur=..0.6; category=!people,food", ["--filter=blur=..0.6", "--filter=category=!people,food"]),
    ],
)
def test_a_parameter_is_what_the_command_line_says(parameter, own):
    assert arguments_of(parser(), [parameter]) == (own, [])
    read = parser().parse_args(["--input", "x", "--output", "y", *own])
    assert isinstance(read, argparse.Namespace)


def test_what_the_command_does_not_know_is_beam_s_just_as_it_was():
    given = ["--runner=DataflowRunner", "--poll=3", "--experiments=a,b", "--no_auth", "--job_name=x"]
    assert arguments_of(parser(), given) == ([], given)
    assert arguments_of(parser(watch_arguments), given) == (
        ["--poll=3"],
        ["--runner=DataflowRunner", "--experiments=a,b", "--no_auth", "--job_name=x"],
    )


def test_values_read_from_parameters_are_those_of_the_flags():
    own, _ = arguments_of(
        parser(), ["--input=a,b", "--output=c", "--filter=blur=..0.6;motion=1..", "--measure=blur,motion"]
    )
    read = parser().parse_args(own)
    flags = [
        "--input",
        "a",
        "b",
        "--output",
        "c",
        "--filter",
        "blur=..0.6",
        "--filter",
        "motion=1..",
        "--measure",
        "blur,motion",
    ]
    assert read == parser().parse_args(flags)


def test_a_switch_that_is_neither_true_nor_false_is_refused():
    with pytest.raises(UsageError, match="--fast is true or false, not 'yes'"):
        arguments_of(parser(), ["--fast=yes"])
