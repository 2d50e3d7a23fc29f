"""The stitching rules, one by one and together, on vectors whose distances are known."""

import itertools
import math

import hypothesis
import pytest
from hypothesis import strategies as st

from transforms.records import Cue, Failure, MediaFacts, RejectedSpan, Shot, ShotFeatures, Span, SplitVideo, Video
from transforms.stitching import StitchingConfig, clip_id, distance, drop_transitions, join_neighbours, stitch, trim

CONFIG = StitchingConfig(
    transition_distance=1.0,
    stitch_distance=0.6,
    min_event_s=2.0,
    still_distance=0.15,
    redundant_distance=0.3,
    max_clip_s=60.0,
    trim_fraction=0.1,
)


def at(angle: float) -> tuple[float, float]:
    """A unit vector; two of them are 2*sin(difference/2) apart."""
    return (math.cos(angle), math.sin(angle))


def shot(index: int, start_s: float, end_s: float) -> Shot:
    return Shot(index, round(start_s * 25), round(end_s * 25), start_s, end_s, start_s, end_s - 0.04)


def features(index: int, start_s: float, end_s: float, first: float, last: float) -> ShotFeatures:
    return ShotFeatures(shot(index, start_s, end_s), at(first), at(last))


def split(shots: list[Shot], cues: tuple[Cue, ...] = ()) -> SplitVideo:
    video = Video("v", "/v.mp4", "1-1", 1, title="A title", cues=cues)
    end = shots[-1].end_s if shots else 0.0
    return SplitVideo(video, MediaFacts(end, 320, 180, 25.0, "h264"), tuple(shots), "/reels/v.arrow")


def stitched(found: list[ShotFeatures], config: StitchingConfig = CONFIG, cues: tuple[Cue, ...] = ()):
    by_index = {one.shot.index: one for one in found}
    return stitch(split([one.shot for one in found], cues), by_index, config)


def test_distance_of_unit_vectors_is_two_sine_of_half_the_angle():
    assert distance(at(0.0), at(1.0)) == pytest.approx(2 * math.sin(0.5))


@pytest.mark.parametrize(
    ("change", "kept"),
    [(0.0, True), (0.99, True), (2 * math.asin(0.5), True), (1.06, False), (math.pi, False)],
)
def test_rule_1_drops_a_shot_whose_boundary_frames_differ_by_more_than_the_limit(change, kept):
    only = features(0, 0, 4, 0.0, change)
    found, dropped = drop_transitions([only], 1.0 + 1e-9)
    assert found == ([only] if kept else [None])
    assert dropped == ([] if kept else [(Span(0, 4), distance(only.first, only.last))])


def test_rule_2_joins_neighbours_that_meet_within_the_limit():
    a, b, c = features(0, 0, 4, 0.0, 0.1), features(1, 4, 8, 0.2, 0.3), features(2, 8, 12, 1.5, 1.6)
    assert [event.shots for event in join_neighbours([a, b, c], 0.6)] == [(a, b), (c,)]


def test_rule_2_does_not_join_across_a_dropped_shot():
    a, c = features(0, 0, 4, 0.0, 0.1), features(2, 8, 12, 0.1, 0.2)
    assert [event.shots for event in join_neighbours([a, None, c], 0.6)] == [(a,), (c,)]


@pytest.mark.parametrize(("length_s", "clips"), [(1.99, 0), (2.0, 1), (2.5, 1)])
def test_rule_3_drops_events_that_are_too_short(length_s, clips):
    found = stitched([features(0, 0, length_s, 0.0, 0.5)])
    assert len(found.clips) == clips
    if not clips:
        assert found.rejected == (RejectedSpan("v", Span(0, length_s), "min_length", "too short", length_s, 2.0),)


def test_rule_4_drops_events_in_which_nothing_changes():
    found = stitched([features(0, 0, 4, 0.0, 0.1)])
    assert [(row.stage, row.span) for row in found.rejected] == [("still", Span(0, 4))]
    assert found.rejected[0].value == pytest.approx(2 * math.sin(0.05))
    assert found.rejected[0].threshold == 0.15


def test_rule_4_compares_the_first_frame_of_the_event_with_its_last():
    a, b = features(0, 0, 4, 0.0, 0.5), features(1, 4, 8, 0.5, 0.05)
    assert [row.stage for row in stitched([a, b]).rejected] == ["still"]


def test_rule_5_drops_events_that_repeat_any_earlier_accepted_one():
    a, b, again = features(0, 0, 4, 0.0, 0.4), features(1, 4, 8, 1.5, 1.9), features(2, 8, 12, 0.02, 0.42)
    found = stitched([a, b, again])
    assert [clip.span.start_s for clip in found.clips] == [0.4, 4.4]
    assert [row.span for row in found.rejected if row.stage == "redundant"] == [Span(8, 12)]


def test_rule_5_and_4_can_be_switched_off():
    keep_all = StitchingConfig(still_distance=None, redundant_distance=None, min_event_s=2.0)
    same = [features(0, 0, 4, 0.0, 0.0), features(1, 4, 8, 2.0, 2.0), features(2, 8, 12, 0.0, 0.0)]
    assert len(stitched(same, keep_all).clips) == 3


def test_rule_6_keeps_the_first_seconds_and_rejects_the_tail():
    found = stitched([features(0, 0, 100, 0.0, 0.5)])
    assert [clip.span for clip in found.clips] == [Span(6.0, 54.0)]
    tail = next(row for row in found.rejected if row.stage == "max_length")
    assert (tail.span, tail.value, tail.threshold) == (Span(60, 100), 100, 60.0)


@pytest.mark.parametrize(
    ("span", "fraction", "expected"),
    [(Span(0, 10), 0.1, Span(1, 9)), (Span(2, 12), 0.0, Span(2, 12)), (Span(0, 2.5), 0.1, Span(0.25, 2.25))],
)
def test_rule_7_trims_a_fraction_off_each_end(span, fraction, expected):
    assert trim(span, fraction) == expected


def test_the_rules_apply_in_the_papers_order():
    """An event that is too short is told so, even though it is still and repeats another one."""
    found = stitched([features(0, 0, 4, 0.0, 0.4), features(1, 4, 5, 1.5, 1.5)])
    assert [row.stage for row in found.rejected] == ["trim", "trim", "min_length"]


def test_a_video_of_which_no_shot_survives_gives_no_clips_and_no_crash():
    found = stitched([features(0, 0, 4, 0.0, 3.0), features(1, 4, 8, 0.0, 3.0)])
    assert found.clips == ()
    assert [row.stage for row in found.rejected] == ["transition", "transition"]


def test_a_shot_that_could_not_be_embedded_is_a_failed_span_and_breaks_the_chain():
    a, c = features(0, 0, 4, 0.0, 0.4), features(2, 8, 12, 1.4, 1.9)
    lost = shot(1, 4, 8)
    found = stitch(split([a.shot, lost, c.shot]), {0: a, 1: Failure("ReelError", "no frame", "trace"), 2: c}, CONFIG)
    assert [clip.span for clip in found.clips] == [Span(0.4, 3.6), Span(8.4, 11.6)]
    [letter] = found.dead_letters
    assert (letter.stage, letter.span, letter.error_class, letter.message) == (
        "embed", Span(4, 8), "ReelError", "no frame",
    )  # fmt: skip


def test_a_clip_carries_its_shots_cut_to_it_and_the_subtitles_it_overlaps():
    cues = (Cue(1, 3, "Hello."), Cue(90, 95, "Not here."))
    found = stitched([features(0, 0, 4, 0.0, 0.1), features(1, 4, 10, 0.2, 0.6)], cues=cues)
    [clip] = found.clips
    assert clip.shots == (Span(1.0, 4.0), Span(4.0, 9.0))
    assert (clip.subtitles, clip.title, clip.clip_id) == ("Hello.", "A title", "v-1000-9000")


def test_clip_ids_are_of_the_span_in_milliseconds_past_24_hours_too():
    assert clip_id("a_b", Span(90_000.25, 90_010.5)) == "a_b-90000250-90010500"


def test_clip_ids_stay_within_128_characters_and_apart():
    a, b = "x" * 127 + "a", "x" * 127 + "b"
    ids = {clip_id(video, Span(0, 1.5)) for video in (a, b)}
    assert len(ids) == 2
    assert {len(one) for one in ids} == {64 + 16 + len("-0-1500")}


@pytest.mark.parametrize(
    "wrong",
    [{"stitch_distance": 3.0}, {"min_event_s": -1.0}, {"max_clip_s": 0.0}, {"trim_fraction": 0.5}],
)
def test_numbers_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StitchingConfig(**wrong)


@hypothesis.given(
    st.lists(
        st.tuples(st.floats(0.2, 90.0), st.floats(0.0, 6.0), st.floats(0.0, 6.0), st.booleans()),
        min_size=1,
        max_size=12,
    )
)
def test_clips_rejected_and_failed_spans_tile_the_shots_whatever_comes(parts):
    start, found, by_index = 0.0, [], {}
    for index, (length, first, last, fails) in enumerate(parts):
        one = features(index, round(start, 3), round(start + length, 3), first, last)
        found.append(one.shot)
        by_index[index] = Failure("E", "m", "") if fails else one
        start += length
    result = stitch(split(found), by_index, CONFIG)
    spans = sorted(
        [clip.span for clip in result.clips]
        + [row.span for row in result.rejected]
        + [letter.span for letter in result.dead_letters],
        key=lambda span: span.start_s,
    )
    assert spans[0].start_s == found[0].start_s
    assert spans[-1].end_s == found[-1].end_s
    for before, after in itertools.pairwise(spans):
        assert after.start_s == pytest.approx(before.end_s, abs=1e-9)
    assert len(result.embeddings) == len(result.clips)
