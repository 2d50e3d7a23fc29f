"""Run the recipe over a list of videos: plan what is left to do, run it in chunks, finish the dataset, say what became.

    summary = curate(["uploads/"], "dataset", load_config("lite"))

The embedded runner works stage by stage: one pipeline over 100,000 videos would commit nothing until its end. So on one
machine the recipe runs over chunks of videos, each committed before the next begins; models stay loaded in between. On
a distributed runner it is one pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from beam_pipeline.config import Config
from beam_pipeline.job import Job, JobOptions, Summary, is_embedded, quiet_workers, running
from beam_pipeline.pipeline import fingerprints_of
from beam_pipeline.progress import Progress
from transforms.reading import Source, find_sources
from transforms.recalling import is_left
from transforms.tables import check_output, current_videos
from transforms.tombstones import without_taken_down


def curate(inputs: Sequence[str], output: str, config: Config, options: JobOptions | None = None) -> Summary:
    """Turn videos into a dataset; do only what is missing or whose fingerprint changed.

    Args:
      inputs: files, directories, patterns, manifests. output: the dataset's directory, made if absent.
      config: what changes the output. options: how it runs.

    Returns:
      What became of every input. Failures of single videos are in there, not raised.

    Raises:
      InputError: an input names nothing. OutputError: a dataset cannot stand at `output`.
      LeaseHeld: another run is writing to this dataset.
      Exception: whatever stops the job as a whole; the dataset stands, and the same call finishes it.
    """
    options = options or JobOptions()
    found = find_sources(inputs, options.limit, options.allow_buckets)
    check_output(output, [source.uri for source in found.sources])
    with running("curate", inputs, output, config, options) as job:
        found = without_taken_down(found, output)
        plan = left_to_do(found.sources, output, config)
        job.take(found.sources, plan, found.skipped)
        work_through(job, plan)
        return job.finish("done")


def work_through(job: Job, plan: Sequence[Source]) -> None:
    """Run the recipe over a list, chunk by chunk where the runner is the embedded one."""
    size = job.options.chunk_videos if is_embedded(job.options) else max(len(plan), 1)
    with Progress(len(plan)) as progress:
        for start in range(0, len(plan), size):
            chunk = plan[start : start + size]
            with quiet_workers():
                job.work(chunk)
            progress.advance(len(chunk), job.tally.counts)


def left_to_do(sources: Iterable[Source], output: str, config: Config) -> list[Source]:
    """The sources that the dataset lacks, or has under another version or configuration."""
    standing = current_videos(output)
    return [one for one in sources if is_left(one, standing.get(one.video_id), fingerprints_of(one, config))]
