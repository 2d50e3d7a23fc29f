"""What of a launch is decided without asking anybody: Beam's options, and the names of jobs."""

import argparse
import datetime
import re

import pytest

from beam_pipeline.launch_request import FIELDS, REFUSED, Options, job_name_of, read_options
from beam_pipeline.usage import UsageError
from transforms.dataflow_jobs import NAME


def test_every_field_that_an_option_goes_into_is_one_of_the_services():
    from google.cloud.dataflow_v1beta3.types import FlexTemplateRuntimeEnvironment

    fields = set(FlexTemplateRuntimeEnvironment.meta.fields)
    assert {field for field, _ in FIELDS.values()} - fields == set()
    assert FIELDS.keys() & REFUSED.keys() == set()


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ("gs://datasets/talks", r"reelscribe-curate-talks-[0-9a-f]{4}-20260131-235959"),
        ("gs://datasets/My Talks (new)/", r"reelscribe-curate-my-talks-new-[0-9a-f]{4}-20260131-235959"),
        ("gs://datasets/" + "a" * 300, r"reelscribe-curate-a{24}-[0-9a-f]{4}-20260131-235959"),
        ("gs://datasets/视频", r"reelscribe-curate-[0-9a-f]{4}-20260131-235959"),
    ],
)
def test_a_derived_name_is_one_that_dataflow_takes(output, name):
    derived = job_name_of("curate", output, datetime.datetime(2026, 1, 31, 23, 59, 59))
    assert re.fullmatch(name, derived)
    assert NAME.fullmatch(derived)


def test_what_was_not_given_is_left_to_the_template():
    assert read_options([], "launch curate", []) == Options()


def test_every_refused_option_is_one_of_beams_and_is_refused():
    from apache_beam.options import pipeline_options

    parser = argparse.ArgumentParser(conflict_handler="resolve", add_help=False)
    for options in pipeline_options.PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    flags = {action.dest: action for action in parser._actions}
    assert REFUSED.keys() - flags.keys() == set()
    for dest in REFUSED:
        action = flags[dest]
        given = [action.option_strings[-1]] if action.nargs == 0 else [f"{action.option_strings[-1]}=default"]
        with pytest.raises(UsageError, match=" is not for a launch: "):
            read_options(given, "launch curate", [])
