"""Run again just what failed, from the stage where it did: all else of those videos stays as it is.

    summary = redrive("dataset", Retry(stages=frozenset({"caption"})), JobOptions())

What then succeeds is committed and leaves the failures; what fails again counts an attempt more. Videos that stopped a
whole job once come last and one by one, so that they stop nobody else.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from beam_pipeline.config import Config, ConfigError, config_of_run
from beam_pipeline.curating import work_through
from beam_pipeline.job import Job, JobOptions, Summary, quiet_workers, running
from beam_pipeline.progress import Progress
from beam_pipeline.runs import records_of
from beam_pipeline.setting_aside import POISONED_IN_A_ROW, RUN_STAGE, set_aside
from transforms.allowed import named_by, why_not
from transforms.committing import Committer, committer_of
from transforms.finding import beside
from transforms.manifests import is_manifest
from transforms.objects import is_object
from transforms.reading import InputError, Source, find_sources, local_source, object_source
from transforms.recalling import Retry, letter_of
from transforms.records import DeadLetter
from transforms.reels import readable_reel
from transforms.schemas import base_run
from transforms.tables import CurrentVideo, current_videos, open_table, read_table
from transforms.tombstones import taken_down

_log = logging.getLogger(__name__)

#: What of a video that failed can be done once more without its source.
_OF_THE_REEL = frozenset(["caption", "score", "select", "measure", "clean"])


@dataclasses.dataclass(frozen=True)
class Redriven:
    """What a redrive is about: the dead letters that it covers, and the sources that it can work on.

    `out_of_reach` are videos whose source is gone and which nothing can be done about without it. `poisoned` are those
    that stopped a whole job; their sources come last.
    """

    letters: tuple[DeadLetter, ...]
    sources: tuple[Source, ...]
    out_of_reach: tuple[str, ...]
    poisoned: frozenset[str] = frozenset()

    def describe(self) -> str:
        """Lines for people: how many dead letters by stage, class and attempt."""
        counts = collections.Counter((one.stage, one.error_class, one.attempt) for one in self.letters)
        lines = [
            f"{number:6} {stage:8} {error_class} (attempt {attempt})"
            for (stage, error_class, attempt), number in sorted(counts.items())
        ]
        lines.append(f"{len(self.letters)} dead letters of {len({one.video_id for one in self.letters})} videos")
        if self.out_of_reach:
            lines.append(
                f"{len(self.out_of_reach)} videos are left as they are, since their source is gone: "
                + ", ".join(self.out_of_reach[:10])
            )
        return "\n".join(lines)


def find_failed(output: str, retry: Retry, allowed: Iterable[str] = ()) -> Redriven:
    """Look up the dead letters that a retry covers, and the sources of their videos.

    Args:
      allowed: buckets that may be read beside those that the dataset's runs were allowed to.

    Raises:
      NoDataset: there is none.
    """
    letters = [letter_of(row) for row in read_table(output, "failures").to_pylist()]
    gone_for_good = taken_down(output)
    covered = [one for one in letters if retry.covers(one) and one.video_id not in gone_for_good]
    standing = current_videos(output)
    stages: dict[str, set[str]] = collections.defaultdict(set)
    for letter in covered:
        stages[letter.video_id].add(letter.stage)
    # Whether that is what is to be redriven or not: it may stop a job again.
    poisoned = frozenset(one.video_id for one in letters if one.stage == RUN_STAGE)
    found = _sources(output, standing, stages.keys(), _allowed(output, list(standing.values()), allowed))
    sources, out_of_reach = [], []
    for video_id in stages:
        source = found[video_id]
        if not source.etag and standing[video_id].etag:
            if not (stages[video_id] <= _OF_THE_REEL and _has_reel(output, standing[video_id])):
                out_of_reach.append(video_id)
                continue
            source = dataclasses.replace(source, etag=standing[video_id].etag)
        sources.append(source)
    sources.sort(key=lambda source: source.video_id in poisoned)
    return Redriven(tuple(covered), tuple(sources), tuple(out_of_reach), poisoned)


def redrive(output: str, retry: Retry, options: JobOptions, config: Config | None = None) -> tuple[Redriven, Summary]:
    """Work on dead letters again.

    Args:
      retry: which of them. options: how the job runs.
      config: None takes that of the last run.

    Raises:
      NoDataset: there is none. ConfigError: the last run's configuration is not known.
      LeaseHeld: another run is writing to this dataset.
      Exception: what stops the job as a whole; the dataset stands, with what was committed before.
    """
    config = config or last_config(output)
    open_table(output, "videos")
    with running("redrive", [output], output, config, options, retry) as job:
        redriven = find_failed(output, retry, options.allow_buckets)
        sources = redriven.sources[: options.limit]
        job.take(sources, sources)
        work_through(job, [one for one in sources if one.video_id not in redriven.poisoned])
        _work_one_by_one(job, [one for one in sources if one.video_id in redriven.poisoned])
        return redriven, job.finish("done")


def _work_one_by_one(job: Job, plan: Sequence[Source]) -> None:
    """Run the recipe over videos that stopped a job before, and set those aside that do it again.

    All are tried, so that one which is mended by now goes through whatever stands before it.

    Raises:
      RuntimeError: so many in a row stopped, and none after them went through, that it is no fault of theirs. They
        stay as they were.
    """
    if not plan:
        return
    committer = committer_of(job.output, job.run_id)
    stopped: list[tuple[Source, Exception]] = []
    with Progress(len(plan)) as progress:
        for source in plan:
            try:
                with quiet_workers():
                    job.work([source])
            except Exception as error:
                _log.warning("%s stopped its pipeline", source.video_id, exc_info=error)
                stopped.append((source, error))
            else:
                _set_aside(job, committer, stopped)
                stopped = []
            progress.advance(1, job.tally.counts)
    if len(stopped) >= POISONED_IN_A_ROW:
        last = stopped[-1][1]
        raise RuntimeError(f"{len(stopped)} videos in a row stopped the job: {last}") from last
    _set_aside(job, committer, stopped)


def _set_aside(job: Job, committer: Committer, stopped: Iterable[tuple[Source, Exception]]) -> None:
    for source, error in stopped:
        committed = set_aside(job, committer, source, error)
        job.tally.counts.update({f"videos {committed.status}": 1, f"failures {RUN_STAGE}": 1})


def last_config(output: str, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Config:
    """The configuration of the dataset's last run, with changes, by section.

    Raises:
      ConfigError: there is none, or it cannot be built any more.
    """
    for record in _newest_first(output):
        if record.get("config"):
            return config_of_run(record["config"], changes)
    raise ConfigError(f"{output} has no record of a run; say --profile or --config")


def _newest_first(output: str) -> list[dict[str, Any]]:
    """The records of the dataset's runs."""
    records = [record for _, record in records_of(output)]
    return sorted(records, key=lambda record: (str(record.get("started_at")), str(record.get("run_id"))), reverse=True)


def _allowed(output: str, standing: Collection[CurrentVideo], more: Iterable[str]) -> frozenset[str]:
    """The buckets that the dataset's runs were allowed to read, and those that are allowed now.

    What a version is known of was read once, by a run whose record has gone maybe, or that knew of no such limits.
    """
    buckets = named_by([video.uri for video in standing if video.etag], more)
    for _, record in records_of(output):
        # A redrive names the dataset, whose bucket nobody allowed thereby.
        inputs = [] if record.get("command") == "redrive" else record.get("input") or []
        more = (record.get("options") or {}).get("allow_buckets") or ()
        if not more and any(map(_is_subscription, inputs)):
            # What it was told of it might read, whatever that was; a manifest of another run gains nothing by it.
            told = [one["uri"] for one in record.get("inputs") or []]
            told += [video.uri for video in standing if base_run(video.run_id) == record.get("run_id")]
            buckets |= named_by(told)
        buckets |= named_by(inputs, more)
    return buckets


def _is_subscription(one: str) -> bool:
    """Whether an input of a record is one; what is of this machine stands there as an absolute path."""
    return one.startswith(("pubsub://", "projects/")) and "/subscriptions/" in one


def _sources(
    output: str, standing: Mapping[str, CurrentVideo], video_ids: Iterable[str], buckets: Collection[str]
) -> dict[str, Source]:
    """Each video's source as it is now: as the inputs of earlier runs list it, else of its URI alone.

    Only a listing knows of text that stands beside a link to the file, or in a manifest.
    """
    wanted = set(video_ids)
    sources = _listed(output, standing, wanted, buckets)
    if wanted <= sources.keys():
        return sources
    rows = read_table(output, "videos", ["video_id", "title", "description"]).to_pylist()
    for row in rows:
        video_id = row["video_id"]
        if video_id not in wanted or video_id in sources:
            continue
        source = dataclasses.replace(_source_at(standing[video_id].uri, buckets), video_id=video_id)
        if not source.title and not source.metadata:
            # The manifest has gone that said so. Captions that were made with it count as long as it reads the same.
            source = dataclasses.replace(source, title=row["title"], description=row["description"])
        sources[video_id] = source
    return sources


def _listed(
    output: str, standing: Mapping[str, CurrentVideo], wanted: set[str], buckets: Collection[str]
) -> dict[str, Source]:
    """Those of the wanted videos that the inputs of earlier runs still list; of several runs the newest counts."""
    found: dict[str, Source] = {}
    looked_into: dict[str, list[Source]] = {}
    for record in _newest_first(output):
        # A redrive names the dataset itself.
        inputs = record.get("input") if record.get("command") != "redrive" else None
        missing = (wanted if record.get("inputs") is None else wanted & _ended_in(record)) - found.keys()
        for one in inputs or []:
            if not missing:
                break
            if one not in looked_into:
                if not _may_list(one, [standing[video_id].uri for video_id in missing]):
                    continue
                looked_into[one] = [source for source in _sources_in(one, buckets) if source.video_id in wanted]
            found |= {source.video_id: source for source in looked_into[one] if source.video_id in missing}
            missing -= found.keys()
    return found


def _ended_in(record: Mapping[str, Any]) -> set[str]:
    """The videos that a run brought to an end, or found unchanged."""
    return {one["video_id"] for one in record["inputs"] if one.get("outcome") != "pending"}


def _may_list(one: str, uris: Iterable[str]) -> bool:
    """Whether an input can be looked into again, and might list one of these URIs. Subscriptions can't."""
    if is_object(one):
        return any(map(is_object, uris))
    return os.path.isabs(one) and (is_manifest(one) or not all(map(is_object, uris)))


def _sources_in(one: str, buckets: Collection[str]) -> Sequence[Source]:
    try:
        return find_sources([one], allowed=buckets).sources
    except InputError:
        return ()  # It has gone, or is broken by now.


def _source_at(uri: str, buckets: Collection[str]) -> Source:
    if not is_object(uri):
        return local_source(uri)
    if refusal := why_not(uri, buckets):
        return dataclasses.replace(object_source(uri, {}), problem=refusal)
    try:
        return object_source(uri, beside(uri))
    except FileNotFoundError:  # the bucket has gone, too
        return object_source(uri, {})


def _has_reel(output: str, video: CurrentVideo) -> bool:
    reel = readable_reel(output, video.video_id)
    return reel is not None and reel.etag == video.etag
