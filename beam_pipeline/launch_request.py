"""What a launch asks of Dataflow: Beam's options in the fields that the service has for them, in one request.

    options = read_options(["--max_num_workers=8", "--experiments=upload_graph"], "launch curate", own_flags)
    request = request_of(Launch("my-project", "us-central1", "nightly", "gs://b/templates/t.json", parameters), options)

Options without a field of their own travel as `name=value` to the launcher, which hands them to Beam.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from beam_pipeline.usage import Parser, UsageError, check_beam_flags
from transforms.dataflow_jobs import NAME

#: Beam's options that the service has a field for: the field, and what becomes of a value.
FIELDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "num_workers": ("num_workers", int),
    "max_num_workers": ("max_workers", int),
    "zone": ("zone", str),
    "worker_region": ("worker_region", str),
    "worker_zone": ("worker_zone", str),
    "service_account_email": ("service_account_email", str),
    "temp_location": ("temp_location", str),
    "staging_location": ("staging_location", str),
    "machine_type": ("machine_type", str),
    "disk_size_gb": ("disk_size_gb", int),
    "experiments": ("additional_experiments", list),
    "network": ("network", str),
    "subnetwork": ("subnetwork", str),
    "labels": ("additional_user_labels", lambda given: dict(_label(one) for one in given)),
    "dataflow_kms_key": ("kms_key_name", str),
    "use_public_ips": ("ip_configuration", lambda public: "WORKER_IP_PUBLIC" if public else "WORKER_IP_PRIVATE"),
    "enable_streaming_engine": ("enable_streaming_engine", bool),
    "flexrs_goal": ("flexrs_goal", lambda goal: f"FLEXRS_{goal}"),
    "sdk_container_image": ("sdk_container_image", str),
    "autoscaling_algorithm": (
        "autoscaling_algorithm",
        lambda name: f"AUTOSCALING_ALGORITHM_{'BASIC' if name == 'THROUGHPUT_BASED' else name}",
    ),
}

_IN_THE_IMAGES = "the template's images hold all code"
#: Beam's options that a launch has no use for, and why.
REFUSED: Mapping[str, str] = {
    "streaming": "curate is batch and watch is streaming",
    "template_location": "--template names the template",
    "dataflow_job_file": "--dry-run prints what is asked for",
    "no_auth": "the launcher works as its service account",
    "no_wait_until_finish": "without --wait nothing is waited for",
    "create_from_snapshot": "the template's launch cannot start from a snapshot",
    "worker_harness_container_image": "it is --sdk_container_image by now",
    **dict.fromkeys(
        (
            "requirements_file",
            "requirements_cache",
            "requirements_cache_only_sources",
            "setup_file",
            "beam_plugins",
            "extra_packages",
            "files_to_stage",
            "save_main_session",
            "sdk_location",
            "pickle_library",
            "prebuild_sdk_container_engine",
            "prebuild_sdk_container_base_image",
        ),
        _IN_THE_IMAGES,
    ),
}

#: Whose options Dataflow knows; all others are for other runners.
_CLASSES = (
    "GoogleCloudOptions",
    "WorkerOptions",
    "StandardOptions",
    "StreamingOptions",
    "DebugOptions",
    "ProfilingOptions",
    "SetupOptions",
)
_LABEL_KEY, _LABEL_VALUE = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")
_NOT_OF_A_NAME = re.compile(r"[^a-z0-9]+")
_LONGEST_NAME, _LONGEST_FOLDER = 63, 24


@dataclasses.dataclass(frozen=True)
class Launch:
    """What is launched: a template with its parameters, under a job's name.

    Attributes:
      template: gs:// address of its specification.
      update: the streaming job of that name is replaced. renamed: its transforms that have another name now.
      launcher_machine_type: of the machine that builds the job graph; "" takes the service's.
    """

    project: str
    region: str
    job_name: str
    template: str
    parameters: Mapping[str, str]
    update: bool = False
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    launcher_machine_type: str = ""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of Beam's.

    Attributes:
      fields: of FlexTemplateRuntimeEnvironment, as JSON would say them with the names of its fields.
      others: `name=value`, for the launcher.
      endpoint: of the service, None for its own.
    """

    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    others: tuple[str, ...] = ()
    endpoint: str | None = None


def read_options(flags: Sequence[str], command: str, own: Sequence[str]) -> Options:
    """Read flags of Beam's.

    Args:
      command: that they were given to. own: the flags of that command, for advice.

    Raises:
      UsageError: there is no such option, Dataflow has no use for it, or two contradict each other.
    """
    from apache_beam.options import pipeline_options

    check_beam_flags(flags, command, own)
    parser = Parser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for name in _CLASSES:
        getattr(pipeline_options, name)._add_argparse_args(parser)
    flag_of, joined = {}, set()
    for action in parser._actions:
        # By name: Beam keeps the class to itself.
        joined |= {action.dest} if type(action).__name__ == "_CommaSeparatedListAction" else set()
        action.default = argparse.SUPPRESS  # What was not given is the template's to choose.
        flag_of[action.dest] = next((one for one in action.option_strings if one[2:] == action.dest), "")
        flag_of[action.dest] = flag_of[action.dest] or action.option_strings[-1]
    given, foreign = parser.parse_known_args(list(flags))
    if foreign:
        raise UsageError(f"{foreign[0].partition('=')[0]} is for another runner; the template's is Dataflow's")
    values = vars(given)
    if str(values.pop("runner", "DataflowRunner")).lower() not in ("dataflowrunner", "dataflow"):
        raise UsageError("--runner is Dataflow's where a template is launched; leave it out")
    for dest in values:
        if dest in REFUSED:
            raise UsageError(f"{flag_of[dest]} is not for a launch: {REFUSED[dest]}")
    endpoint = values.pop("dataflow_endpoint", None)
    fields = {FIELDS[dest][0]: FIELDS[dest][1](value) for dest, value in values.items() if dest in FIELDS}
    _check(values)
    rest = {dest: ",".join(value) if dest in joined else value for dest, value in values.items() if dest not in FIELDS}
    others = [one for dest, value in rest.items() for one in _other(flag_of[dest][2:], value)]
    return Options(fields, tuple(others), endpoint)


def _other(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"{name}={str(value).lower()}"]
    if isinstance(value, list):
        return [f"{name}={one}" for one in value]
    return [f"{name}={json.dumps(value) if isinstance(value, dict) else value}"]


def _label(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not (sign and _LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value)):
        raise UsageError(f"{text!r} is no label; write --labels=KEY=VALUE in small letters, digits, - and _")
    return key, value


def _check(values: Mapping[str, Any]) -> None:
    """Refuse options that contradict each other, and places that workers cannot reach."""
    for one, other in (("worker_region", "worker_zone"), ("zone", "worker_zone"), ("zone", "worker_region")):
        if one in values and other in values:
            raise UsageError(f"--{one} and --{other} both say where workers stand; keep one of them")
    for dest in ("temp_location", "staging_location"):
        if not str(values.get(dest, "gs://")).startswith("gs://"):
            raise UsageError(f"--{dest} must be in Cloud Storage, like gs://BUCKET/FOLDER, not {values[dest]!r}")
    for dest in ("num_workers", "max_num_workers", "disk_size_gb"):
        if values.get(dest, 1) < 1:
            raise UsageError(f"--{dest} must be a number from 1 up, not {values[dest]}")
    most = values.get("max_num_workers", values.get("num_workers", 0))
    if values.get("num_workers", 0) > most:
        raise UsageError(f"--num_workers={values['num_workers']} is more than --max_num_workers={most}")


def job_name_of(command: str, output: str, now: datetime.datetime) -> str:
    """Derive a job's name: of the command, the dataset's folder and the second; it tells nothing else."""
    folder = _NOT_OF_A_NAME.sub("-", output.rstrip("/").rpartition("/")[2].lower())[:_LONGEST_FOLDER].strip("-")
    # Folders of one name in several buckets, launched in the same second.
    place = hashlib.sha256(output.encode()).hexdigest()[:4]
    return "-".join(part for part in ("reelscribe", command, folder, place, f"{now:%Y%m%d-%H%M%S}") if part)


def check_job_name(name: str) -> str:
    """Return a job's name if Dataflow takes it. Raises UsageError if not."""
    if not NAME.fullmatch(name):
        told = f"small letters, digits and -, a letter first, at most {_LONGEST_NAME}"
        raise UsageError(f"--job-name {name!r} is no name of a job: {told}")
    return name


def request_of(launch: Launch, options: Options) -> Any:
    """Build the LaunchFlexTemplateRequest."""
    from google.cloud.dataflow_v1beta3 import types

    fields = dict(options.fields)
    if options.others:
        fields["additional_pipeline_options"] = list(options.others)
    if launch.launcher_machine_type:
        fields["launcher_machine_type"] = launch.launcher_machine_type
    return types.LaunchFlexTemplateRequest(
        project_id=launch.project,
        location=launch.region,
        launch_parameter=types.LaunchFlexTemplateParameter(
            job_name=launch.job_name,
            container_spec_gcs_path=launch.template,
            parameters=dict(launch.parameters),
            environment=types.FlexTemplateRuntimeEnvironment(fields),
            update=launch.update,
            transform_name_mappings=dict(launch.renamed),
        ),
    )


def as_json(request: Any) -> str:
    """A request as the service's reference writes it, without what is left open."""
    from google.protobuf import json_format

    told = json_format.MessageToDict(type(request).pb(request))
    return json.dumps(told, indent=2, sort_keys=True)
