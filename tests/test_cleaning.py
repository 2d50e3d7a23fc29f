"""The stage that cleans chosen captions: what it makes of each clip, and what a failure costs."""

import dataclasses

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from fakes import Model, make_clip

from beam_pipeline.hygiene import tidy
from model_handlers.base import ElementwiseHandler
from transforms.cleaning import CleanCaptions, CleanedClip, Hygiene, Step
from transforms.records import Candidate, CaptionedClip, JudgedClip


class Finder(ElementwiseHandler):
    """Finds "Anna" once a text; cannot read texts that hold "unreadable"."""

    def __init__(self):
        super().__init__("finder", max_batch=4)

    def load(self) -> Model:
        return Model()

    def answer(self, requests, model):
        texts = [request.text for request in requests]
        if any("unreadable" in text for text in texts):
            raise ValueError("cannot be read")
        return [((text.index("Anna"), text.index("Anna") + 4),) if "Anna" in text else () for text in texts]


class Reader(ElementwiseHandler):
    """Answers with what `about` makes of a text; fails on texts that hold "unreadable"."""

    def __init__(self, about):
        super().__init__("reader", max_batch=4)
        self._about = about

    def load(self) -> Model:
        return Model()

    def answer(self, requests, model):
        texts = [request.text for request in requests]
        if any("unreadable" in text for text in texts):
            raise ValueError("nor here")
        return [self._about(text) for text in texts]


def is_harmful(text: str) -> bool:
    return "damn" in text


def language_of(text: str) -> str | None:
    return "en" if "dog" in text else None


def judged(number: int, *texts: str, chosen: int | None = 0, **clip: object) -> JudgedClip:
    candidates = tuple(Candidate(f"t{n}", "m", "r", "p", text, "f") for n, text in enumerate(texts))
    captioned = CaptionedClip(make_clip(number, **clip), candidates, (), ())
    return JudgedClip(captioned, (0.5,) * len(texts), chosen, None, False, ())


def told(cleaned: CleanedClip) -> tuple:
    letters = [(one.stage, one.clip_id, one.teacher, one.message, one.span) for one in cleaned.dead_letters]
    clip = cleaned.judged.captioned.clip
    return clip.clip_id, cleaned.caption, cleaned.language, cleaned.harmful, letters


def run(clips: list[JudgedClip], hygiene: Hygiene, expected: list[tuple]) -> None:
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        cleaned = pipeline | beam.Create(clips) | CleanCaptions(hygiene)
        assert_that(cleaned | beam.Map(told), equal_to(expected))
        unchanged = cleaned | "Judged" >> beam.Map(lambda one: one.judged)
        assert_that(unchanged, equal_to(clips), label="the judgement is as it was")


ALL = Hygiene(tidy, Step(Finder()), Step(Reader(is_harmful)), Step(Reader(language_of)))


def test_each_clip_comes_out_with_a_clean_caption_a_flag_and_a_language():
    clips = [
        judged(0, "x", "in this video, Anna's dog runs runs runs.", chosen=1),
        judged(1, "A cat sleeps.", title="damn"),
        judged(2, "A cat sleeps.", subtitles="A damn cat."),
        judged(3, "A cat sleeps.", "A damn cat sleeps."),
        judged(4, chosen=None),
    ]
    run(
        clips,
        ALL,
        [
            ("v-0", "Person's dog runs.", "en", False, []),
            ("v-1", "A cat sleeps.", None, True, []),
            ("v-2", "A cat sleeps.", None, True, []),
            ("v-3", "A cat sleeps.", None, False, []),
            ("v-4", None, None, None, []),
        ],
    )


def test_each_part_does_its_own_and_what_nobody_asked_for_is_null():
    said = "in this video, Anna's dog sits sits."
    expected = [
        (Hygiene(), (said, None, None)),
        (Hygiene(tidy=tidy), ("Anna's dog sits sits.", None, None)),
        (Hygiene(names=Step(Finder())), ("in this video, person's dog sits sits.", None, None)),
        (Hygiene(harmful=Step(Reader(is_harmful))), (said, None, False)),
        (Hygiene(language=Step(Reader(language_of))), (said, "en", None)),
    ]
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        clips = pipeline | beam.Create([judged(0, said)])
        for number, (hygiene, cleaned) in enumerate(expected):
            found = clips | f"Clean {number}" >> CleanCaptions(hygiene) | f"Told {number}" >> beam.Map(told)
            assert_that(found, equal_to([("v-0", *cleaned, [])]), label=f"as expected {number}")


def test_a_caption_that_cannot_be_read_costs_its_cleaning_and_not_the_clip():
    clip = judged(1, "The video shows an unreadable sign that hangs hangs hangs.")
    span = clip.captioned.clip.span
    run(
        [judged(0, "Anna sees a dog."), clip],
        dataclasses.replace(ALL, harmful=None),
        [
            ("v-0", "Person sees a dog.", "en", None, []),
            # The candidate's own words, so that nobody takes them for cleaned ones; one dead letter for all.
            (
                "v-1",
                "The video shows an unreadable sign that hangs hangs hangs.",
                None,
                None,
                [("clean", "v-1", None, "names: cannot be read; language: nor here", span)],
            ),
        ],
    )


def test_a_flag_that_cannot_be_told_is_null_and_the_caption_stays_clean():
    clip = judged(0, "a dog dog dog", title="unreadable")
    letter = ("clean", "v-0", None, "harmful text: nor here", clip.captioned.clip.span)
    run([clip], ALL, [("v-0", "A dog", "en", None, [letter])])
