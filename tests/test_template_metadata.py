"""The templates' metadata: made from the commands' parsers, and what Dataflow's own types take."""

import json
import pathlib
import re

import pytest

from beam_pipeline import template_spec
from beam_pipeline.template_parameters import ABSENT, FORMS, arguments, parameters_of, parser_of, written
from beam_pipeline.template_spec import container_spec, metadata
from beam_pipeline.usage import UsageError

TEMPLATES = pathlib.Path(__file__).parents[1] / "templates"
COMMANDS = ("curate", "watch")
SUBSCRIPTION = "projects/my-project/subscriptions/uploads"

EVERYTHING = {
    "curate": [
        *["--input=gs://uploads/talks/", "--input=gs://uploads/a,b*.mp4", "--output=gs://datasets/talks"],
        *["--profile=modern", "--config=gs://bucket/mine.yaml", "--commercial-only", "--detector=transnet", "--fast"],
        *["--splitting=paper", "--reels=drop", "--measure=blur,motion", "--measure=watermark", "--filter=blur=..0.6"],
        *["--filter=category=!sports,news", "--filter=harmful_text=false", "--video-filter=height=480.."],
        *["--write-clips=copy", "--dedupe", "--limit=100"],
    ],
    "watch": [f"--subscription={SUBSCRIPTION}", "--output=gs://datasets/talks", "--commit-within=7.5"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_metadata_in_templates_is_what_the_parsers_say(command, capsys):
    assert template_spec.main([command, "--metadata"]) == 0
    assert (TEMPLATES / f"{command}.json").read_text("utf-8") == capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_metadata_is_what_dataflows_own_type_takes(command):
    from google.cloud.dataflow_v1beta3.types import TemplateMetadata

    read = TemplateMetadata.from_json(json.dumps(metadata(command)), ignore_unknown_fields=False)
    assert read.name == f"reelscribe-{command}"
    assert (read.streaming, read.supports_exactly_once) == ((command == "watch"),) * 2
    assert (read.supports_at_least_once, read.default_streaming_mode) == (False, "")
    names = [parameter.name for parameter in read.parameters]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch("[a-z][a-z_]*", name)] == []
    for parameter in read.parameters:
        assert "" not in (parameter.label, parameter.help_text), parameter.name
        assert all(regex.startswith("^") and regex.endswith("$") for regex in parameter.regexes), parameter.name
        if parameter.default_value:
            assert re.fullmatch(parameter.regexes[0], parameter.default_value), parameter.name


@pytest.mark.parametrize("command", COMMANDS)
def test_each_flag_of_a_command_is_a_parameter_or_absent_with_a_reason(command):
    flags = {action.dest for action in parser_of(command)._actions}
    names = {parameter.name for parameter in parameters_of(command)}
    assert names | (flags & ABSENT.keys()) == flags
    assert names & ABSENT.keys() == set()


def test_no_form_and_no_reason_is_about_a_flag_that_is_gone():
    flags = {action.dest for command in COMMANDS for action in parser_of(command)._actions}
    assert (FORMS.keys() | ABSENT.keys()) - flags == set()


def test_what_a_batch_template_needs_is_its_input_and_its_output_and_a_watch_takes_one_of_two_inputs():
    needed = {one: [parameter.name for parameter in parameters_of(one) if parameter.required] for one in COMMANDS}
    assert needed == {"curate": ["input", "output"], "watch": ["output"]}
    assert {"input", "subscription"} <= {parameter.name for parameter in parameters_of("watch")}


def test_switches_choices_and_numbers_have_the_kinds_that_the_console_knows():
    kinds = {parameter.name: parameter.kind for command in COMMANDS for parameter in parameters_of(command)}
    assert {name for name, kind in kinds.items() if kind == "BOOLEAN"} == {"commercial_only", "fast", "dedupe"}
    assert {name for name, kind in kinds.items() if kind == "NUMBER"} == {"limit", "poll", "commit_within"}
    assert {name for name, kind in kinds.items() if kind == "ENUM"} == {"reels", "write_clips"}
    assert kinds["output"] == "GCS_WRITE_FOLDER"
    assert kinds["config"] == "GCS_READ_FILE"
    assert kinds["subscription"] == "PUBSUB_SUBSCRIPTION"


TAKEN = [
    ("input", "gs://uploads/", True),
    ("input", "gs://uploads/talks/**/*.mp4,gs://more/list.jsonl", True),
    ("input", "uploads", False),
    ("input", "/videos", False),
    ("input", "gs://uploads/a\ngs://b", False),
    ("input", "", False),
    ("output", "gs://datasets/talks", True),
    ("output", "gs://datasets", True),
    ("output", "gs://Datasets/talks", False),
    ("output", "dataset", False),
    ("config", "gs://bucket/mine.yaml", True),
    ("config", "mine.yaml", False),
    ("profile", "lite", True),
    ("profile", "mine.yaml", False),
    ("profile", "gs://bucket/mine.yaml", True),
    ("limit", "12", True),
    ("limit", "0", False),
    ("limit", "-1", False),
    ("fast", "true", True),
    ("fast", "yes", False),
    ("reels", "drop", True),
    ("reels", "dropped", False),
    ("measure", "blur,motion", True),
    ("measure", "blur motion", False),
    ("filter", "blur=..0.6,category=!a,b", True),
    ("filter", "blur", False),
    ("subscription", SUBSCRIPTION, True),
    ("subscription", "uploads", False),
    ("poll", "0.5", True),
    ("poll", "0.0", False),
    ("poll", "soon", False),
    ("commit_within", "30", True),
]


@pytest.mark.parametrize(("name", "value", "taken"), TAKEN)
def test_a_parameter_takes_what_its_flag_can_mean_and_nothing_else(name, value, taken):
    known = {parameter.name: parameter for parameter in (*parameters_of("watch"), *parameters_of("curate"))}
    assert bool(re.fullmatch(known[name].regex, value)) is taken
    assert (known[name].fault(value) == "") is taken


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_command_was_told_comes_back_from_its_parameters(command):
    args = parser_of(command).parse_args(EVERYTHING[command])
    again = parser_of(command).parse_args(arguments(parameters_of(command), written(command, args)))
    assert again == args


@pytest.mark.parametrize(
    ("given", "told"), [("1000000", "1000000"), ("1e6", "1000000"), ("0.00001", "0.00001"), ("45.0", "45")]
)
def test_numbers_have_no_exponents(given, told):
    wanted = ["--input=gs://uploads/", "--output=gs://datasets/talks", f"--poll={given}"]
    assert written("watch", parser_of("watch").parse_args(wanted))["poll"] == told


def test_parameters_are_written_as_people_would():
    args = parser_of("curate").parse_args(EVERYTHING["curate"])
    assert written("curate", args) == {
        "input": "gs://uploads/talks/,gs://uploads/a,b*.mp4",
        "output": "gs://datasets/talks",
        "profile": "modern",
        "config": "gs://bucket/mine.yaml",
        "commercial_only": "true",
        "detector": "transnet",
        "fast": "true",
        "splitting": "paper",
        "reels": "drop",
        "measure": "blur,motion,watermark",
        "filter": "blur=..0.6,category=!sports,news,harmful_text=false",
        "video_filter": "height=480..",
        "write_clips": "copy",
        "dedupe": "true",
        "limit": "100",
    }


def test_a_false_switch_is_no_flag():
    assert arguments(parameters_of("curate"), {"fast": "false", "dedupe": "true"}) == ["--dedupe"]


def test_a_value_that_its_list_would_part_is_refused():
    args = parser_of("curate").parse_args(["--input=gs://abc/", "--output=gs://def/", "--filter=category=a,b=c"])
    with pytest.raises(UsageError, match=r"^--filter cannot be given to a template: .*--config file$"):
        written("curate", args)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"inputs": "gs://abc/"}, "there is no parameter 'inputs'; did you mean 'input'"),
        (
            {"output": "here"},
            "--output must be in Cloud Storage, like gs://BUCKET/NAME, not 'here': workers see no other",
        ),
        ({"output": "gs://x"}, "--output 'gs://x' names no bucket; write gs://BUCKET/NAME"),
        ({"reels": "no"}, "--reels must be keep or drop, not 'no'"),
    ],
)
def test_parameters_that_cannot_be_meant_are_told_in_a_line(values, told):
    with pytest.raises(UsageError, match="^" + re.escape(told)):
        arguments(parameters_of("curate"), values)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_specification_is_what_dataflows_own_type_takes_and_names_both_images(command, capsys):
    from google.cloud.dataflow_v1beta3.types import ContainerSpec, SDKInfo

    images = ["--image", "r.example/launcher@sha256:1", "--worker-image", "r.example/worker@sha256:2"]
    assert template_spec.main([command, *images]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == container_spec(command, images[1], images[3])
    read = ContainerSpec.from_json(json.dumps(told), ignore_unknown_fields=False)
    assert (read.image, read.default_environment.sdk_container_image) == (images[1], images[3])
    assert read.sdk_info.language == SDKInfo.Language.PYTHON
    assert list(read.default_environment.additional_pipeline_options) == [f"command={command}"]
    assert read.default_environment.enable_streaming_engine is (command == "watch")
    hidden = [parameter.name for parameter in read.metadata.parameters if parameter.hidden_ui]
    assert hidden == ["command"]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["curate"], "the specification needs --image and --worker-image"),
        (["redrive", "--metadata"], "argument command: invalid choice: 'redrive'"),
    ],
)
def test_a_specification_that_cannot_be_made_is_refused_in_a_line(argv, told, capsys):
    assert template_spec.main(argv) == 2
    out, complaint = capsys.readouterr()
    assert out == ""
    assert complaint.startswith(f"reelscribe: {told}")
    assert complaint.count("\n") == 1
