"""The ensemble: what comes of teachers that answer, fail, fall silent or have nothing to read."""

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from fakes import EchoTeacher, make_clip

from transforms.captioning import CaptionClips, Teacher, candidate_of
from transforms.records import CaptionedClip, Outcome

EMBEDDED = ["--runner=FnApiRunner"]
THREADS = [*EMBEDDED, "--direct_running_mode=multi_threading", "--direct_num_workers=2"]


def told(captioned: CaptionedClip) -> tuple:
    return (
        captioned.clip.clip_id,
        [(one.teacher, one.text) for one in captioned.candidates],
        list(captioned.not_applicable),
        [(one.teacher, one.error_class, one.message, one.span, one.clip_id) for one in captioned.dead_letters],
    )


def captions_of(clips, teachers, expected, flags=EMBEDDED):
    with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        captioned = pipeline | beam.Create(clips) | CaptionClips(teachers) | beam.Map(told)
        assert_that(captioned, equal_to(expected))


@pytest.mark.parametrize("flags", [EMBEDDED, THREADS])
def test_captions_never_land_on_another_clip(flags):
    clips = [make_clip(n, video_id=f"v{n % 7}") for n in range(50)]
    teachers = [Teacher(name, EchoTeacher(name)) for name in ("a", "b", "c")]
    expected = [
        (clip.clip_id, [(name, f"{name} sees {clip.clip_id}") for name in ("a", "b", "c")], [], []) for clip in clips
    ]
    captions_of(clips, teachers, expected, flags)


def test_failing_teacher_costs_one_caption_not_the_clip_nor_its_batch():
    clips = [make_clip(n) for n in range(3)]
    teachers = [Teacher("a", EchoTeacher("a", fails_on=["v-1"])), Teacher("b", EchoTeacher("b"))]
    expected = [
        ("v-0", [("a", "a sees v-0"), ("b", "b sees v-0")], [], []),
        ("v-1", [("b", "b sees v-1")], [], [("a", "ValueError", "a cannot see v-1", clips[1].span, "v-1")]),
        ("v-2", [("a", "a sees v-2"), ("b", "b sees v-2")], [], []),
    ]
    captions_of(clips, teachers, expected)


def test_an_empty_caption_is_a_dead_letter():
    clip = make_clip(0)
    letters = [("a", "EmptyCaption", "a answered with no words", clip.span, "v-0")]
    captions_of([clip], [Teacher("a", EchoTeacher("a", mute_on=["v-0"]))], [("v-0", [], [], letters)])


@pytest.mark.parametrize("text", [{"subtitles": "Hi."}, {"title": "T"}, {"description": "D"}, {}])
def test_a_teacher_whose_inputs_are_absent_is_skipped_without_a_dead_letter(text):
    teachers = [Teacher("text", EchoTeacher("text"), needs_text=True), Teacher("b", EchoTeacher("b"))]
    captions = [("text", "text sees v-0"), ("b", "b sees v-0")]
    expected = [("v-0", captions if text else captions[1:], [] if text else ["text"], [])]
    captions_of([make_clip(0, **text)], teachers, expected)


def test_a_candidate_carries_its_provenance_and_a_fingerprint_that_changes_with_it_or_the_clip():
    asked = [("m", "1", "f0"), ("m", "2", "f0"), ("m", "1", "f1")]
    found = [
        candidate_of(
            Teacher("a", EchoTeacher("a"), model=model, revision=revision, prompt_id="p"),
            Outcome(make_clip(0, fingerprint=clip), answer="  Two\n words. "),
        )
        for model, revision, clip in asked
    ]
    assert [(one.teacher, one.model, one.revision, one.prompt_id, one.text) for one in found] == [
        ("a", model, revision, "p", "Two words.") for model, revision, _ in asked
    ]
    assert len({one.fingerprint for one in found}) == 3


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_teachers_need_names_of_their_own(names):
    with pytest.raises(ValueError, match="names"):
        CaptionClips([Teacher(name, EchoTeacher(name)) for name in names])
