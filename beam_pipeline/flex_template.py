"""The main of the Flex Templates: build the pipeline of `curate` or `watch`, hand it to the runner, and end.

    python main.py --command=curate --input=gs://uploads/ --output=gs://sets/talks --runner=DataflowRunner ...

Dataflow calls this on a small machine that is gone when the job runs. So the graph lists the inputs itself, its last
step finishes the dataset, and the writer's lease is left to the job. Parameters: see `template_parameters`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, StandardOptions

from beam_pipeline.config import Config
from beam_pipeline.finishing import FinishRun
from beam_pipeline.job import JobOptions, is_dataflow, pipeline_options
from beam_pipeline.job_arguments import changes_of
from beam_pipeline.job_commands import job_options, shaped, uploads_of
from beam_pipeline.pipeline import CurateVideos
from beam_pipeline.runs import RunRecord, new_run_id, root_cause
from beam_pipeline.streaming import CurateUploads, streaming_options
from beam_pipeline.template_parameters import ABSENT, COMMANDS, FORMS, arguments, parameters_of, parser_of
from beam_pipeline.usage import UsageError, beam_parser, complain, dataset_folder, load_config_of
from transforms.allowed import named_by
from transforms.dataflow_jobs import NAME, JobName, can_be_updated
from transforms.finding import expand
from transforms.lease import LeaseHeld, WriterLease, read_lease
from transforms.listing import ListSources
from transforms.sources import InputError
from transforms.subscriptions import SubscriptionError, check_subscription
from transforms.tables import OutputError, check_output, create_tables

#: What is ours of the parameters, whatever the command.
_OURS = {"command", *ABSENT, *FORMS}

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Launch a job; return the exit status: 0 launched, 1 it cannot be, 2 bad parameters, each told in a line."""
    logging.basicConfig(level=logging.INFO)
    try:
        args, flags = parsed(sys.argv[1:] if argv is None else argv)
        launch(args, flags)
    except (UsageError, InputError, OutputError, SubscriptionError) as error:
        return complain(str(error), 2)
    except LeaseHeld as error:
        return complain(str(error), 1)
    except Exception as error:
        _log.error("the launch failed", exc_info=True)
        return complain(f"the job could not be launched: {root_cause(error)}", 1)
    return 0


def parsed(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What the parameters say, and the options that are Beam's.

    Raises:
      UsageError: a command or a value that there is not.
    """
    values: dict[str, str] = {}
    beams = []
    for one in argv:
        flag, _, value = one.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if name in _OURS:
            # The console sends what was left empty, and the specification's own options come beside the parameters.
            values |= {name: value} if value else {}
        else:
            beams.append(one)
    command = values.pop("command", "curate")
    if command not in COMMANDS:
        raise UsageError(f"command is {' or '.join(COMMANDS)}, not {command!r}")
    args = parser_of(command).parse_args(arguments(parameters_of(command), values))
    args.command = command
    return args, switches(beams)


def switches(flags: Sequence[str]) -> list[str]:
    """Beam's flags as its parser takes them: the service writes a switch as --name=true."""
    bare = {flag for action in beam_parser()._actions if action.nargs == 0 for flag in action.option_strings}
    found = []
    for one in flags:
        flag, _, value = one.partition("=")
        if flag not in bare or value.lower() not in ("true", "false"):
            found.append(one)
            continue
        # --use_public_ips=false is no option left out: Beam has a switch for it, and another default.
        opposite = flag.replace("--no_", "--", 1) if flag.startswith("--no_") else flag.replace("--", "--no_", 1)
        meant = flag if value.lower() == "true" else opposite
        found += [meant] if meant in bare else []
    return found


def launch(args: argparse.Namespace, flags: Sequence[str]) -> str:
    """Begin a run, give its pipeline to the runner, leave the lease to the job; return the run's id.

    On a runner of this process it has ended by then.

    Raises:
      UsageError: this cannot be done. LeaseHeld: another run is writing to this dataset.
    """
    config = load_config_of(args, changes_of(args))
    output = dataset_folder(args.output)
    args.beam_flags = shaped(flags, config, args.command)
    options = job_options(args)
    inputs = uploads_of(args).inputs if args.command == "watch" else tuple(args.input)
    if args.command == "curate":
        check_inputs(inputs)
    elif args.subscription:
        check_subscription(args.subscription)
    check_output(output, inputs)
    options_of = streaming_options if args.command == "watch" else pipeline_options
    beam_options = options_of(options.beam_flags)
    job = job_of(beam_options)
    updated = run_that_is_updated(output, job, beam_options)
    run_id = updated or new_run_id()
    with WriterLease(output, run_id, adopt=updated is not None, job=job) as lease:
        create_tables(output)
        if not updated:
            RunRecord.begin(output, run_id, config, inputs, options.as_json(), args.command)
        try:
            pipeline = beam.Pipeline(options=beam_options)
            build(pipeline, args, config, output, run_id, options)
            lease.leave_to_job()
            pipeline.run()
        except BaseException as error:
            # A job that is not updated goes on, and so does its run.
            if not updated:
                record = RunRecord.read(output, run_id)
                record.fail(error)
                record.finish("failed", {}, [])
            raise
    return run_id


def build(
    pipeline: beam.Pipeline, args: argparse.Namespace, config: Config, output: str, run_id: str, options: JobOptions
) -> None:
    """Add the recipe to a pipeline, with what goes before it and after it where nobody waits for its end."""
    finish = FinishRun(config, output, run_id, options)
    if args.command == "watch":
        uploads = uploads_of(args)
        uploads.check(str(pipeline.options.view_as(StandardOptions).runner))
        committed = pipeline | "Stream" >> CurateUploads(uploads, config, output, run_id, args.commit_within)
        _ = (committed,) | "Finish" >> finish
        return
    found = pipeline | "Find videos" >> ListSources(tuple(args.input), output, args.limit, options.allow_buckets)
    spread = found.sources | "Spread" >> beam.Reshuffle()
    committed = spread | "Curate" >> CurateVideos(config, output, run_id)
    _ = (committed, found.sources, found.skipped) | "Finish" >> finish


def check_inputs(inputs: Sequence[str]) -> None:
    """Raise an `InputError` if an input names nothing; the job itself lists them all."""
    for one in inputs:
        next(expand(one, named_by(inputs)), None)


def job_of(options: PipelineOptions) -> str:
    """The Dataflow job that these options launch; empty on a runner of this process.

    Raises:
      UsageError: Dataflow takes no such name.
    """
    if not is_dataflow(options):
        return ""
    cloud = options.view_as(GoogleCloudOptions)
    if not NAME.fullmatch(cloud.job_name or ""):
        raise UsageError(f"{cloud.job_name!r} is no job's name: small letters, digits and dashes, at most 63")
    return str(JobName(cloud.project, cloud.region, cloud.job_name))


def run_that_is_updated(output: str, job: str, options: PipelineOptions) -> str | None:
    """The run that a running job goes on with when it is updated; None of a new job.

    A launcher need not be told that this is an update: with create_or_update_job the service decides. A stream that
    runs under the job's very name, and was left the dataset's lease, says so: rows on their way in it are of its run.

    Raises:
      UsageError: no such job writes to the dataset.
    """
    cloud = options.view_as(GoogleCloudOptions)
    held = read_lease(output) if job else None
    if held is None or held.job != job:
        if not cloud.update:
            return None
        raise UsageError(f"there is no job {job} that writes to {output}; launch it without --update")
    if not cloud.update and not options.view_as(StandardOptions).streaming:
        return None
    one = JobName.parse(job)
    if can_be_updated(one.project, one.region, one.name, cloud.dataflow_endpoint):
        return held.owner
    if cloud.update:
        raise UsageError(f"{job} has ended, and what has ended is not updated; launch it without --update")
    return None


if __name__ == "__main__":
    sys.exit(main())
