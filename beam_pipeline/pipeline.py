"""The recipe: from videos to captioned clips, in the order of the paper's overview figure.

    with beam.Pipeline() as pipeline:
        pipeline | beam.Create(sources) | CurateVideos(config, "dataset", run_id)

The same transforms serve a bounded list and an endless stream of sources: they join by counting, and none waits for
its input to end.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler

from beam_pipeline.config import Config, fingerprint
from beam_pipeline.hygiene import hygiene_of
from model_handlers.catalogue import Entry
from model_handlers.measures.measurer import Measurer
from model_handlers.resident import ResidentHandler
from model_handlers.taking_turns import TakeTurns
from transforms.captioning import CaptionClips, Teacher, Together
from transforms.cleaning import CleanCaptions, Hygiene
from transforms.clip_writing import WriteClips
from transforms.committing import CommitVideos
from transforms.embedding import EmbedShots
from transforms.filtering import FilterClips
from transforms.hearing import HearVideos, speech_of
from transforms.measuring import Asked, MeasureClips, Measuring
from transforms.reading import ReadVideos, Source
from transforms.recalling import RecallVideos, Retry
from transforms.records import Clip, SplitVideo, Video
from transforms.reels import reels_of
from transforms.rows import AssembleVideos, FailVideos, count_rows
from transforms.scoring import JudgeCaptions
from transforms.shots import DetectShots
from transforms.stitching import StitchShots


@dataclasses.dataclass
class CurateVideos(beam.PTransform):
    """Turn sources into rows of the dataset.

    Source in, the ids of the committed videos out; bounded or unbounded. Every source ends as rows of the tables under
    `output`: clips, rejected spans, and dead letters for whatever failed. What is there already, and would come out
    the same, is used again, stage by stage; `retry` names dead letters to work on all the same. Of an endless input
    `commit_within_s` is how long a video waits for others to be committed with; None: until a batch is full.
    """

    config: Config
    output: str
    run_id: str
    retry: Retry | None = None
    commit_within_s: float | None = None

    def expand(self, sources: beam.PCollection[Source]) -> beam.PCollection[str]:
        config, run_id = self.config, self.run_id
        versions = functools.partial(fingerprints_of, config=config)

        wanted = sources | "Recall videos" >> RecallVideos(self.output, run_id, versions, self.retry)
        read = wanted | "Read videos" >> ReadVideos()
        decoding = config.placement.decode_hints
        detect = DetectShots(config.splitting, reels_of(self.output), gates=config.gates, hints=decoding)
        split = read.videos | "Detect shots" >> detect
        videos = heard(split.videos, self.output, config)
        shots = videos | "Embed shots" >> EmbedShots(*placed(config.embedder, config))
        events = shots | "Stitch shots" >> StitchShots(config.stitching, functools.partial(embedded, config=config))
        clips = events | "Clips" >> beam.FlatMap(lambda stitched: stitched.clips)
        measured, kept, dropped = looked_at(clips, config)
        captioned = kept | "Caption clips" >> CaptionClips(*teachers_of(config))
        judged = captioned | "Judge captions" >> JudgeCaptions(*selector_of(config))
        if config.hygiene:
            judged = judged | "Clean captions" >> CleanCaptions(cleaning_of(config))

        verdicts = (judged, *dropped) | "Verdicts" >> beam.Flatten()
        assembled = AssembleVideos(run_id, versions, config.filters_after, config.write_clips is not None)
        finished = (events, verdicts, *measured) | "Assemble videos" >> assembled
        if config.write_clips:
            finished = finished | "Write clips" >> WriteClips(self.output, config.write_clips, hints=decoding)
        failed = (read.failed, split.failed) | beam.Flatten() | "Fail videos" >> FailVideos(run_id, versions)
        rows = (finished, failed) | "All videos" >> beam.Flatten() | "Count" >> beam.Map(count_rows)
        return rows | "Commit" >> CommitVideos(self.output, run_id, max_wait_s=self.commit_within_s)


def heard(videos: beam.PCollection[SplitVideo], output: str, config: Config) -> beam.PCollection[SplitVideo]:
    """The videos with what is said in them, where the configuration asks for that; else it is no step of the job."""
    if config.speech is None:
        return videos
    handler, hints = placed(config.speech, config)
    made_with = fingerprint(config.speech.identity)
    return videos | "Hear videos" >> HearVideos(speech_of(output), handler, made_with, hints)


Branch = list[beam.PCollection]


def looked_at(clips: beam.PCollection[Clip], config: Config) -> tuple[Branch, beam.PCollection[Clip], Branch]:
    """Measure clips and drop those that break a rule: what was measured, the clips that are kept, and those dropped.

    What a job does not ask for is no step of it, and clips wait for their measures only where a rule asks for them.
    """
    if not config.measures.measures:
        return [], clips, []
    derive = {one.column: one.make for one in config.measures.derived}
    measured = clips | "Measure clips" >> MeasureClips(measuring_of(config), derive)
    if not config.filters_before:
        return [measured], clips, []
    sorted_clips = measured | "Filter clips" >> FilterClips(config.filters_before)
    return [measured], sorted_clips.kept, [sorted_clips.dropped]


def measuring_of(config: Config) -> list[Measuring]:
    """The measures of a configuration: those that only compute on plain workers, those with a model on GPU ones."""
    chosen = config.measures.measures
    plain, models = [one for one in chosen if not one.model], [one for one in chosen if one.model]
    return [
        Measuring(
            Asked(name, {one.name: one.fingerprint for one in group}, {one.name: one.columns for one in group}),
            Measurer(name.lower(), group),
            hints,
        )
        for name, group, hints in (("Pixels", plain, {}), ("Models", models, config.placement.hints))
        if group
    ]


def selector_of(config: Config) -> tuple[ModelHandler, Mapping[str, str], float | None, str]:
    """The selector of a configuration, with what `JudgeCaptions` wants to know."""
    return *placed(config.selector, config), config.abstain_below, fingerprint(config.selector.identity)


def cleaning_of(config: Config) -> Hygiene:
    """What is done to the chosen captions of a configuration."""
    assert config.hygiene is not None
    made_with = fingerprint(config.hygiene.identity)
    return hygiene_of(config.hygiene, functools.partial(placed, config=config), made_with)


def fingerprints_of(video: Source | Video, config: Config) -> dict[str, str]:
    """A video's fingerprints, stage by stage."""
    return config.fingerprints(video.etag, video.text_version)


def embedded(split: SplitVideo, config: Config) -> str:
    """The fingerprint of a video up to and including its embedding."""
    return fingerprints_of(split.video, config)["embed"]


def placed(entry: Entry, config: Config) -> tuple[ModelHandler, Mapping[str, str]]:
    """A model's handler, and the resource hints of its stage."""
    handler = entry.build()
    if isinstance(handler, ResidentHandler) and config.placement.one_copy_per == "machine":
        handler = handler.shared_by_machine(config.placement.gpus)
    return handler, config.placement.hints_of(entry, config.hints_of(entry))


def teachers_of(config: Config) -> tuple[list[Teacher], Together | None]:
    """The teachers of a configuration, and those of them that take turns on a GPU."""
    teachers = [teacher_of(entry, config) for entry in config.teachers]
    if config.placement.teachers == "apart":
        return teachers, None
    members = {t.name: t.handler for t in teachers if isinstance(t.handler, ResidentHandler)}
    if not members:
        return teachers, None
    turns = TakeTurns(
        members,
        at_once=config.placement.models_at_once,
        per_turn=config.placement.clips_per_turn,
        by_machine=config.placement.one_copy_per == "machine",
    )
    return teachers, Together(frozenset(members), turns, config.placement.hints)


def teacher_of(entry: Entry, config: Config) -> Teacher:
    """A teacher of the catalogue, ready to be asked."""
    handler, hints = placed(entry, config)
    return Teacher(entry.name, handler, entry.model, entry.revision, entry.prompt_id, entry.needs_text, hints)
