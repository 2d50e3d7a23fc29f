"""What Dataflow reads of a Flex Template: its metadata, and its specification, which names the images.

    python -m beam_pipeline.template_spec curate --image LAUNCHER --worker-image WORKER > reelscribe-curate.json
    python -m beam_pipeline.template_spec curate --metadata > templates/curate.json

The forms are those of google.dataflow.v1beta3.ContainerSpec and TemplateMetadata. The specification is written here and
not by `gcloud dataflow flex-template build`, which drops what the metadata says of streaming.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from beam_pipeline.template_parameters import COMMANDS, Parameter, parameters_of
from beam_pipeline.usage import Parser, UsageError, complain

_DESCRIPTIONS = {
    "curate": "Turns long videos in Cloud Storage into a dataset of short clips, each with the best of several "
    "teachers' captions. The same template on the same dataset goes on where an earlier job stopped.",
    "watch": "Turns videos into clips with captions as they come into a bucket, until the job is drained.",
}


def metadata(command: str) -> dict[str, Any]:
    """The metadata of a command's template, as JSON says a TemplateMetadata."""
    told: dict[str, Any] = {
        "name": f"reelscribe-{command}",
        "description": _DESCRIPTIONS[command],
        "streaming": command == "watch",
    }
    if command == "watch":
        # Joins count the parts of a video in state: in the other mode a part may be counted twice, and one be missed.
        told |= {"supportsExactlyOnce": True, "supportsAtLeastOnce": False}
    parameters = [_command_parameter(command), *(_as_json(parameter) for parameter in parameters_of(command))]
    return {**told, "parameters": parameters}


def container_spec(command: str, image: str, worker_image: str) -> dict[str, Any]:
    """The specification of a command's template, as JSON says a ContainerSpec.

    Args:
      image: of the launcher. worker_image: of the workers.
    """
    environment: dict[str, Any] = {
        "sdkContainerImage": worker_image,
        # Both templates have one launcher: whoever launches without our own command need not tell it which this is.
        "additionalPipelineOptions": [f"command={command}"],
    }
    if command == "watch":
        environment["enableStreamingEngine"] = True
    return {
        "image": image,
        "sdkInfo": {"language": "PYTHON"},
        "metadata": metadata(command),
        "defaultEnvironment": environment,
    }


def _command_parameter(command: str) -> dict[str, Any]:
    return {
        "name": "command",
        "label": "Command",
        "helpText": "Which command of reelscribe this template runs.",
        "isOptional": True,
        "paramType": "ENUM",
        "regexes": [f"^{command}$"],
        "enumOptions": [{"value": command, "label": command}],
        "defaultValue": command,
        "hiddenUi": True,
    }


def _as_json(parameter: Parameter) -> dict[str, Any]:
    told = {
        "name": parameter.name,
        "label": parameter.form.label,
        "helpText": _sentence(parameter.told),
        "groupName": parameter.form.group,
        "isOptional": not parameter.required,
        "paramType": parameter.kind,
        "regexes": [parameter.regex],
    }
    if parameter.options:
        told["enumOptions"] = [{"value": one, "label": one} for one in parameter.options]
    if parameter.default:
        told["defaultValue"] = parameter.default
    return told


def _sentence(told: str) -> str:
    begins_with_a_word = told.partition(" ")[0].isalpha()
    return f"{told[0].upper() if begins_with_a_word else told[0]}{told[1:]}."


def main(argv: Sequence[str] | None = None) -> int:
    """Print a template's specification, or its metadata alone; return the exit status."""
    parser = Parser(prog="python -m beam_pipeline.template_spec", description="Print a template's specification.")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--image", metavar="IMAGE", help="of the launcher, with its registry and its tag or digest")
    parser.add_argument("--worker-image", metavar="IMAGE", help="of the workers")
    parser.add_argument("--metadata", action="store_true", help="print the metadata alone; needs no image")
    try:
        args = parser.parse_args(argv)
        print(json.dumps(_asked(args), indent=2))
    except UsageError as error:
        return complain(str(error), 2)
    return 0


def _asked(args: argparse.Namespace) -> dict[str, Any]:
    if args.metadata:
        return metadata(args.command)
    if not (args.image and args.worker_image):
        raise UsageError("the specification needs --image and --worker-image; --metadata needs neither")
    return container_spec(args.command, args.image, args.worker_image)


if __name__ == "__main__":
    sys.exit(main())
