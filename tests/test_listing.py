"""The first step of a job that lists its own inputs: what it leaves out, and what it refuses."""

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from transforms.arrivals import DropTakenDown
from transforms.listing import ListSources
from transforms.reading import Source

OUTPUT = "gs://bucket/sets/a"


def test_clip_files_of_the_dataset_are_no_inputs_of_the_next_job_on_it(gcs):
    gcs.put("talk.mp4", b"video")
    gcs.put("sets/a/media/talk/0-2000.mp4", b"clip")
    with (
        pytest.raises(Exception, match=r"the input gs://bucket/sets/a/media/talk/0-2000.mp4 stands in .*/media, which"),
        beam.Pipeline(runner="FnApiRunner") as pipeline,
    ):
        _ = pipeline | ListSources(("gs://bucket/",), OUTPUT)


def test_a_watch_of_the_bucket_that_the_dataset_stands_in_does_not_cut_clips_of_clips(gcs):
    uploads = ("talk.mp4", "sets/a/media/talk/0-2000.mp4", "sets/a/mediaeval.mp4", "sets/b/media/x.mp4")
    found = [Source(name.replace("/", "-")[:-4], f"gs://bucket/{name}") for name in uploads]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        kept = pipeline | beam.Create(found) | DropTakenDown(OUTPUT) | beam.Map(lambda source: source.uri)
        assert_that(kept, equal_to([f"gs://bucket/{name}" for name in ("talk.mp4", *uploads[2:])]))
