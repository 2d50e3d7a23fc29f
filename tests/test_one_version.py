"""One version of a video at a time: what is held back, until when, and what goes on then."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_stream import TestStream as Stream
from apache_beam.transforms.window import TimestampedValue
from dataset_rows import whole

from transforms.committing import Committer
from transforms.joining import JoinByCount, Part, Whole
from transforms.one_version import OneVersionAtATime, UnderWay, as_it_is_now
from transforms.reading import Source, find_sources
from transforms.tables import create_tables

HAPPENED: list[str] = []


def note(happened: str) -> None:
    HAPPENED.append(happened)


VIDEO = Source("v", "gs://bucket/up/v.mp4", etag="100", text_version="t1")
PRINTS = ("split", "embed", "captions", "select")


def prints_of(source: Source) -> dict[str, str]:
    return {name: f"{name} of {source.etag} {source.text_version}" for name in PRINTS}


def commit_source(source: Source, directory: str, run_id: str) -> None:
    rows = whole(source.video_id, run_id, etag=source.etag, fingerprints=prints_of(source))
    Committer(directory).commit([rows])


SECONDS: list[float] = [0.0]


def seconds() -> float:
    return SECONDS[0]


def pass_time(by_s: int) -> None:
    SECONDS[0] += by_s


def later(stream_so_far: Stream, by_s: int) -> Stream:
    """Let time pass, for whoever asks `seconds` and for timers."""
    return stream_so_far.add_elements([by_s]).advance_processing_time(by_s)


def hold(tmp_path: pathlib.Path, events: Stream, began_at: float = 0.0, **how: Any) -> None:
    """Run a stream of sources, and of (source, "shown") for when the dataset shows one; note what is let go."""
    HAPPENED.clear()
    SECONDS[0] = began_at
    options = PipelineOptions(["--runner=BundleBasedDirectRunner", "--streaming"])
    with beam.Pipeline(options=options) as pipeline:
        told = pipeline | events
        _ = told | beam.Filter(lambda one: isinstance(one, str)) | "Note" >> beam.Map(note)
        _ = told | "Times" >> beam.Filter(lambda one: isinstance(one, int)) | "Pass" >> beam.Map(pass_time)
        shown = told | "Shown" >> beam.Filter(lambda one: isinstance(one, tuple))
        _ = shown | beam.Map(lambda one: commit_source(one[0], str(tmp_path), "r1"))
        sources = told | "Sources" >> beam.Filter(lambda one: isinstance(one, Source)).with_output_types(Source)
        let_go = sources | OneVersionAtATime("test", str(tmp_path), prints_of, clock=seconds, **how)
        _ = let_go | "Let go" >> beam.Map(lambda one: note(f"{one.video_id} {one.etag} {one.text_version}"))


def test_a_version_waits_until_the_dataset_shows_the_one_before_and_only_the_newest_goes_on(tmp_path):
    newer, newest = (dataclasses.replace(VIDEO, etag=etag) for etag in ("101", "102"))
    other = dataclasses.replace(VIDEO, video_id="other")
    events = Stream().add_elements([VIDEO, other]).add_elements([newest]).add_elements([newer])
    events = later(events, 60).add_elements(["a minute later"]).add_elements([(VIDEO, "shown")])
    events = later(events, 60).add_elements(["two minutes later"])
    events = events.add_elements([(newest, "shown")]).add_elements([dataclasses.replace(newest, text_version="t2")])
    events = later(events, 60).advance_watermark_to_infinity()
    hold(tmp_path, events)
    assert sorted(HAPPENED[:2]) == ["other 100 t1", "v 100 t1"]
    assert HAPPENED[2:] == ["a minute later", "v 102 t1", "two minutes later", "v 102 t2"]


def test_a_version_that_is_never_shown_is_given_up_and_one_that_has_gone_holds_nothing_back(tmp_path):
    newer, gone = (dataclasses.replace(VIDEO, etag=etag) for etag in ("101", ""))
    events = later(Stream().add_elements([gone]).add_elements([VIDEO]).add_elements([newer]), 990)
    events = later(events.add_elements(["a quarter of an hour later"]), 20).advance_watermark_to_infinity()
    hold(tmp_path, events, give_up_after_s=1000)
    assert HAPPENED == ["v  t1", "v 100 t1", "a quarter of an hour later", "v 101 t1"]


def at(time_s: float, *told: Any) -> list[TimestampedValue]:
    return [TimestampedValue(one, time_s) for one in told]


def test_what_was_told_hours_ago_holds_the_next_version_back_as_long_as_what_was_told_now(tmp_path):
    """A watch that was down finds old messages, while the watermark is of now."""
    newer = dataclasses.replace(VIDEO, etag="101")
    events = Stream().advance_processing_time(10_000).advance_watermark_to(10_000)
    events = events.add_elements(at(3000, VIDEO)).add_elements(at(3100, newer))
    events = later(events, 10).add_elements(["ten seconds later"]).add_elements([(VIDEO, "shown")])
    hold(tmp_path, later(events, 10).advance_watermark_to_infinity(), began_at=10_000.0)
    assert HAPPENED == ["v 100 t1", "ten seconds later", "v 101 t1"]


def test_what_is_let_go_is_of_the_time_at_which_it_goes_and_so_loses_nothing_in_a_join(tmp_path):
    SECONDS[0] = 10_000.0
    newer = dataclasses.replace(VIDEO, etag="101")
    events = Stream().advance_watermark_to(10_000).add_elements(at(3000, VIDEO, newer))
    HAPPENED.clear()
    options = PipelineOptions(["--runner=BundleBasedDirectRunner", "--streaming"])
    with beam.Pipeline(options=options) as pipeline:
        sources = pipeline | events.advance_watermark_to_infinity().with_output_types(Source)
        let_go = sources | OneVersionAtATime("test", str(tmp_path), prints_of, clock=seconds, give_up_after_s=0.001)
        wholes = let_go | "Wholes" >> beam.Map(lambda one: (one.etag, Whole(one.etag)))
        parts = let_go | "Parts" >> beam.Map(lambda one: (one.etag, Part(1))) | beam.Reshuffle()
        joined = (wholes, parts) | beam.Flatten() | JoinByCount("test", lambda _: 1)
        _ = joined | "Joined" >> beam.Map(lambda one: note(f"{one.whole} {one.parts} {one.missing}"))
    assert HAPPENED == ["100 (1,) 0"]


LISTED: list[str] = []


def listed(source: Source) -> Source:
    """A listing of the moment: its text is always the newest."""
    LISTED.append(source.text_version)
    return dataclasses.replace(source, text_version="now")


def test_a_source_that_comes_after_another_one_is_looked_at_anew_until_that_is_forgotten(tmp_path):
    """Two listings at once may come in the wrong order; one that was held back is forgotten in its time, too."""
    LISTED.clear()
    shown = dataclasses.replace(VIDEO, text_version="now")
    reworded, stale = (dataclasses.replace(VIDEO, text_version=text) for text in ("t2", "t0"))
    events = Stream().advance_watermark_to(0).add_elements([VIDEO]).add_elements([reworded])
    events = later(events.add_elements([(VIDEO, "shown")]), 10).add_elements([(shown, "shown")]).add_elements([stale])
    events = later(events, 1100).advance_watermark_to(1100).add_elements([dataclasses.replace(VIDEO, etag="101")])
    hold(tmp_path, events.advance_watermark_to_infinity(), give_up_after_s=1000, again=listed)
    assert HAPPENED == ["v 100 t1", "v 100 now", "v 100 now", "v 101 t1"]
    assert LISTED == ["t2", "t0"]


def test_that_an_object_has_gone_is_no_news_while_a_version_of_it_is_under_way(tmp_path):
    gone = dataclasses.replace(VIDEO, etag="", text_version="")
    events = Stream().add_elements([VIDEO]).add_elements([gone]).add_elements(["gone"])
    with UnderWay(str(tmp_path)) as under_way:
        hold(tmp_path, events.advance_watermark_to_infinity())
        assert (HAPPENED, len(under_way), under_way.begun["v"][0]) == (["v 100 t1", "gone"], 1, "100")


def test_one_that_is_held_back_is_not_overtaken_by_an_older_one_when_the_way_is_free(tmp_path):
    """It is looked at every other second; what comes in between must not slip through."""
    newest, newer = (dataclasses.replace(VIDEO, etag=etag) for etag in ("102", "101"))
    events = Stream().add_elements([VIDEO]).add_elements([newest]).add_elements([(VIDEO, "shown")])
    events = later(events.add_elements([newer]).add_elements(["came"]), 10).advance_watermark_to_infinity()
    hold(tmp_path, events)
    assert HAPPENED == ["v 100 t1", "came", "v 102 t1"]


def test_what_is_held_back_is_looked_at_again_when_it_is_let_go(gcs):
    generation = gcs.put("up/v.mp4", b"first")
    (seen,) = find_sources(["gs://bucket/up/"]).sources
    gcs.put("up/v.json", "{}")
    now = as_it_is_now(seen)
    assert (now.etag, now.metadata) == (generation, "gs://bucket/up/v.json")
    assert now.text_version != seen.text_version
    gcs.remove("up/v.mp4")
    assert as_it_is_now(seen).etag == ""


def test_what_is_under_way_is_what_was_let_go_and_is_not_shown(tmp_path):
    create_tables(tmp_path)
    others = [dataclasses.replace(VIDEO, video_id=name) for name in ("b", "c")]
    with UnderWay(str(tmp_path)) as under_way:
        assert len(under_way) == 0
        hold(tmp_path, Stream().add_elements([VIDEO, *others]).advance_watermark_to_infinity())
        assert len(under_way) == 3
        for source in (VIDEO, others[0]):
            commit_source(source, str(tmp_path), "r1")
        assert (len(under_way), list(under_way.begun)) == (1, ["c"])


def test_what_was_overtaken_is_not_waited_for_as_the_committer_leaves_it_at_that(tmp_path):
    create_tables(tmp_path)
    commit_source(dataclasses.replace(VIDEO, etag="101"), str(tmp_path), "r1")
    other = dataclasses.replace(VIDEO, video_id="other")
    gone = dataclasses.replace(VIDEO, etag="", video_id="gone")
    commit_source(dataclasses.replace(gone, etag="100"), str(tmp_path), "r1")
    with UnderWay(str(tmp_path)) as under_way:
        hold(tmp_path, Stream().add_elements([VIDEO, other, gone]).advance_watermark_to_infinity())
        assert sorted(HAPPENED) == ["gone  t1", "other 100 t1", "v 100 t1"]
        assert (len(under_way), list(under_way.begun)) == (1, ["other"])
