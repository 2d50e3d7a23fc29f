"""`reelscribe estimate`: its arguments, and what they name brought together.

reelscribe estimate --from dataset --hours 1000 --worker cpu=n2-standard-8,vcpu=8,price=0.5 --within 24
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from beam_pipeline.usage import UsageError, complain, dataset_folder, positive
from transforms.files import read, write

if TYPE_CHECKING:
    from beam_pipeline.estimate import Worker
    from beam_pipeline.estimate_entries import Entries
    from beam_pipeline.estimate_rates import Measured, Rate

_WORKER = "POOL=MACHINE,vcpu=N,price=P[,gpus=N][,start_min=M][,workers=N]"
_SUMMARY = "workers, hours and money of a job, from what a run measured and what you enter"


def add_to(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command; `command` is called as (name, run, summary)."""
    add = command("estimate", _estimate, _SUMMARY).add_argument
    add("--hours", type=_amount, metavar="N", help="of video")
    add("--videos", type=positive, metavar="N", help="how many; with --mean-length also instead of --hours")
    add("--mean-length", type=_amount, metavar="SECONDS", help="of a video, with --videos")
    add("--clips-per-hour", type=_amount, metavar="N", help="of video (default: as the run found)")
    add("--from", dest="runs", action="append", default=[], metavar="DIR|RUN.json", help="a dataset, or its run record")
    add("--handlers", metavar="FILE.json", help="what benchmarks/handlers.py --json FILE measured")
    add("--rates", metavar="FILE.yaml", help="rates by stage and teacher, and workers; these go before all others")
    add("--models-on", choices=("cpu", "gpu"), help="where the run's models stood (default: as its configuration says)")
    add("--profile", help="what the job is to do (default: as the run did)")
    add("--config", metavar="FILE.yaml", help="the same, as a configuration")
    add("--worker", action="append", default=[], metavar=_WORKER, help="a kind of worker, with the price of its hour")
    add("--max-workers", type=positive, metavar="N", help="so many in each pool: how long does it take?")
    add("--within", type=_amount, metavar="HOURS", help="how many workers does that need?")
    add("--utilisation", type=_share, metavar="F", help="share of paid time that stages work (0.7, an assumption)")
    add("--storage-price", type=_amount, metavar="P", help="of a GB a month")
    add("--json", metavar="FILE", help="write all figures there, too")


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _share(text: str) -> float:
    value = _amount(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return value


def _estimate(args: argparse.Namespace, commands: Mapping[str, argparse.ArgumentParser]) -> int:
    from beam_pipeline import estimate, estimate_stages, estimate_text
    from beam_pipeline.estimate_entries import Entries, EntryError, parse_worker, read_entries, read_handlers
    from transforms.objects import StorageError

    hours = _hours_of_video(args)
    if (args.max_workers is None) == (args.within is None):
        raise UsageError("say either --max-workers N, to be told the hours, or --within HOURS, to be told the workers")
    try:
        entries = read_entries(args.rates) if args.rates else Entries()
        benchmarked = read_handlers(args.handlers) if args.handlers else {}
        workers = _workers([*entries.workers, *map(parse_worker, args.worker)])
        measured = [run for place in args.runs for run in measured_at(place, args.models_on)]
        config = _config(args, measured)
        chosen = estimate_stages.choose_rates(config, measured, entries.rates, benchmarked)
        if chosen.missing:
            raise UsageError(estimate_stages.advice(chosen.missing))
        _check_used(entries, chosen.rates)
        densities, origins = _densities(args, entries, measured)
        amounts = estimate_stages.amounts_of(hours, args.videos, densities)
        tasks = estimate_stages.tasks_of(chosen.rates, amounts, workers)
        utilisation = args.utilisation or estimate.UTILISATION
        found = estimate.estimate(tasks, workers, utilisation, args.max_workers, args.within)
    except StorageError as error:
        return complain(str(error), 1)
    except (EntryError, estimate.NotPossible) as error:
        raise UsageError(str(error)) from error
    used = {rate.source for rate in chosen.rates.values()}
    told = estimate_text.Told(
        config=config,
        found=found,
        amounts=amounts,
        utilisation=utilisation,
        within_h=args.within,
        stored=_stored(measured, amounts.video_s, amounts.clips),
        storage_price=args.storage_price,
        measured=[*measured[:1], *(run for run in measured[1:] if f"run {run.run_id}" in used)],
        densities=origins,
    )
    print("\n".join(estimate_text.describe(told)))
    if args.json:
        write(args.json, (json.dumps(estimate_text.as_json(told), indent=1) + "\n").encode())
    return 0


def _hours_of_video(args: argparse.Namespace) -> float:
    if args.mean_length and not args.videos:
        raise UsageError("--mean-length goes with --videos N")
    if (args.hours is None) == (args.mean_length is None):
        raise UsageError("how much video is it? Say --hours N, or --videos N and --mean-length SECONDS")
    return args.hours or args.videos * args.mean_length / 3600


def _workers(workers: Sequence[Worker]) -> list[Worker]:
    """One of each pool: a flag goes before the file."""
    if not workers:
        raise UsageError(f"what kind of workers, at what price? Add --worker {_WORKER}")
    return list({worker.pool: worker for worker in workers}.values())


def measured_at(place: str, models_on: str | None = None) -> list[Measured]:
    """What the runs of a dataset measured, or the one whose record is named; the one that measured most comes first.

    Raises:
      UsageError: there is no such record or dataset, or no run of it is done and tells its stages.
    """
    from beam_pipeline.estimate_rates import measured_run
    from beam_pipeline.runs import records_of

    if place.endswith(".json"):
        try:
            return [measured_run(json.loads(read(place)), models_on)]
        except (OSError, AttributeError, KeyError, TypeError) as error:
            raise UsageError(f"{place} is no record of a run: {' '.join(str(error).split())}") from error
        except ValueError as error:
            raise UsageError(f"--from {place}: {error}") from error
    records = sorted(
        (record for _, record in records_of(dataset_folder(place))), key=lambda one: str(one.get("started_at"))
    )
    if not records:
        raise UsageError(
            f"--from {place}: there is no run in it; run reelscribe curate --output {place} over ten videos"
        )
    found, why = [], ""
    for record in records:
        if record.get("status") != "done":
            why = why or f"run {record.get('run_id')} is {record.get('status')!r}, not done"
            continue
        try:
            found.append(measured_run(record, models_on, alone=record is records[0]))
        except ValueError as error:
            why = str(error)
    if not found:
        raise UsageError(f"--from {place}: {why}")
    # Of equals the newest.
    return sorted(reversed(found), key=lambda run: -run.fresh_videos)


def _config(args: argparse.Namespace, measured: Sequence[Measured]) -> Mapping[str, Any]:
    """What the job is to do: as --profile or --config say, else as the run did that measured most."""
    if args.profile or args.config:
        from beam_pipeline.config import ConfigError, load_config

        try:
            # Weights that nobody has named yet take no part in this.
            return load_config(args.profile, args.config, complete=False).as_json()
        except ConfigError as error:
            raise UsageError(str(error)) from error
    if not measured:
        raise UsageError("what is the job to do? Say --from DIR, a dataset that was made so, or --profile or --config")
    return measured[0].config


def _check_used(entries: Entries, rates: Mapping[str, Rate]) -> None:
    """Refuse a rate that no stage asks for: it was meant for one that has another name."""
    from beam_pipeline.estimate_rates import TEACHER
    from model_handlers.nearest import nearest

    for stage in entries.rates:
        if stage not in rates:
            name, known = stage.removeprefix(TEACHER), [one.removeprefix(TEACHER) for one in rates]
            raise UsageError(f"--rates has {name!r}, which the job does not do; {nearest(name, known)}")


def _densities(
    args: argparse.Namespace, entries: Entries, measured: Sequence[Measured]
) -> tuple[dict[str, float], dict[str, str]]:
    """What an hour of video holds, and who says so: flags before the file, the file before the run."""
    from beam_pipeline.estimate_stages import DENSITIES, densities_of

    found: dict[str, float] = {}
    origins: dict[str, str] = {}
    of_run = densities_of(measured[0]) if measured else {}
    flags = {"clips_per_hour": args.clips_per_hour}
    for key, name in DENSITIES.items():
        if name == "videos" and args.videos:
            origins[name] = "as --videos says"
            continue
        for value, origin in (
            (flags.get(key), f"{flags.get(key) or 0:g}, as --clips-per-hour says"),
            (entries.densities.get(key), f"{entries.densities.get(key, 0):g}, {args.rates}"),
            (of_run.get(key), f"{of_run.get(key, 0):.4g}, run {measured[0].run_id if measured else ''}"),
        ):
            if value:
                found[key], origins[name] = value, origin
                break
    return found, origins


def _stored(measured: Sequence[Measured], video_s: float, clips: float | None) -> dict[str, float]:
    """Bytes of what the job leaves, by kind, where a run tells."""
    if not measured:
        return {}
    amounts = {"reels": video_s, "clips": clips or 0, "media": clips or 0}
    return {kind: size * amounts[kind] for kind, size in measured[0].bytes_of.items()}
