"""Clips with captions to retrieve: those of a dataset, or videos with a file of captions, whole or as cut there.

gallery = dataset_gallery("dataset", references, most=1000)
gallery.clips, gallery.captions         # a tuple of captions each
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from beam_pipeline.evaluate_references import Named, Reference, ReferencesError, draw, match, names_of, parts
from beam_pipeline.evaluate_tables import left_out
from beam_pipeline.evaluate_videos import VIDEO_ERRORS
from beam_pipeline.progress import Progress
from transforms.child import Limits
from transforms.detection import SplittingConfig
from transforms.files import Directory
from transforms.published import Published, reread
from transforms.reading import Source, read_video
from transforms.records import Clip, MediaFacts, Span, SplitVideo
from transforms.reel import ReelError
from transforms.reels import reel_of, reels_of
from transforms.shots import split_local

_COLUMNS = ("clip_id", "video_id", "uri", "start_s", "end_s")


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Clips, the captions of each, and what a reader has to know of how they were found."""

    clips: tuple[Clip, ...]
    captions: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def dataset_gallery(dataset: Directory, references: Sequence[Reference] | None, most: int, seed: int = 0) -> Gallery:
    """Clips of a dataset with their references, or with their chosen captions where there is no file of them.

    Args:
      most: clips at the most, drawn by their ids, so that a growing dataset keeps most of those drawn before.

    Raises:
      NoDataset: there is none. ReferencesError: no reference is about any of its clips.
    """
    return reread(dataset, lambda published: _of_dataset(published, dataset, references, most, seed))


def _of_dataset(
    published: Published, dataset: Directory, references: Sequence[Reference] | None, most: int, seed: int
) -> Gallery:
    notes: list[str] = []
    if references is None:
        captions: dict[str, tuple[str, ...]] = {
            row["clip_id"]: (row["caption"],) for row in _rows(published, ["clip_id", "caption"])
        }
        notes.append("captions are the chosen ones: what a selector chose itself it finds again more easily")
    else:
        named = (Named(row["clip_id"], row["video_id"], row["uri"], _span(row)) for row in _rows(published, _COLUMNS))
        matched = match(references, named)
        captions, notes = dict(matched.captions), matched.notes()
    if not captions:
        raise ReferencesError("no reference is about any clip: do the names in the file agree with the clips?")
    total = len(captions)
    drawn = draw(captions, most, seed)
    if total > len(drawn):
        notes.append(f"{len(drawn):,} of {total:,} clips were drawn (--limit, --seed {seed})")
    wanted = [*_COLUMNS, "duration_s", "width", "height", "fps"]
    clips = [clip_of_row(row, dataset) for row in _rows(published, wanted) if row["clip_id"] in drawn]
    clips.sort(key=lambda clip: clip.clip_id)
    return Gallery(tuple(clips), tuple(captions[clip.clip_id] for clip in clips), tuple(notes))


def video_gallery(
    sources: Sequence[Source], references: Sequence[Reference], splitting: SplittingConfig, reels_dir: str
) -> Gallery:
    """Videos as clips: each part that a reference is about, or the whole. One that can't be read is left out.

    Raises:
      ReferencesError: no reference is about any of them.
    """
    cut = parts(references)
    clips: list[Clip] = []
    named: list[Named] = []
    failed: dict[str, str] = {}
    without = 0
    with Progress(len(sources)) as progress:
        for source in sources:
            whole = Named(source.video_id, source.video_id, source.uri, Span(0.0, float("inf")))
            key = next((name for name in names_of(whole) if name in cut), None)
            try:
                made = list(_of_video(source, cut[key], splitting, reels_dir)) if key is not None else []
            except VIDEO_ERRORS as error:
                failed[source.uri] = " ".join(str(error).split()) or type(error).__name__
            else:
                without += key is None
                clips += [clip for clip, _ in made]
                named += [name for _, name in made]
            progress.advance(1, {"clips": len(clips), "videos failed": len(failed)})
    matched = match(references, named)
    notes = [f"{without:,} videos have no caption and are left out"] if without else []
    kept = [clip for clip in clips if clip.clip_id in matched.captions]
    if not kept:
        raise ReferencesError("no caption is about any of these videos: do the names in the file agree with theirs?")
    return Gallery(
        tuple(kept),
        tuple(matched.captions[clip.clip_id] for clip in kept),
        (*matched.notes(), *notes, *left_out(failed)),
    )


def _of_video(
    source: Source, spans: Sequence[Span | None], splitting: SplittingConfig, reels_dir: str
) -> Iterator[tuple[Clip, Named]]:
    split, _ = split_local(read_video(source), reels_dir, splitting, Limits())
    if not split.shots:
        raise ReelError(f"{source.uri} has no frame")
    for span in spans:
        clip = _part(split, span)
        yield clip, Named(clip.clip_id, source.video_id, source.uri, span or Span(0.0, float("inf")))


def _part(split: SplitVideo, span: Span | None) -> Clip:
    video, whole = split.video, Span(split.shots[0].start_s, split.shots[-1].end_s)
    inside = whole if span is None else Span(max(span.start_s, whole.start_s), min(span.end_s, whole.end_s))
    name = video.video_id
    if span is not None:
        name = f"{name}-{round(span.start_s * 1000)}-{round(span.end_s * 1000)}"
        if inside.duration_s <= 0:
            raise ReelError(f"{video.uri} ends at {whole.end_s:.1f} s, before a caption's part begins")
    return Clip(name, video.video_id, video.uri, inside, (inside,), split.media, split.reel, "evaluation")


def _rows(published: Published, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for batch in published.scan("clips", list(columns)):
        yield from batch.to_pylist()


def _span(row: dict[str, Any]) -> Span:
    return Span(row["start_s"], row["end_s"])


def clip_of_row(row: dict[str, Any], dataset: Directory) -> Clip:
    """A clip as selectors are asked about it; they look at its reel and its span, and at nothing else of it."""
    media = MediaFacts(row["duration_s"], row["width"], row["height"], row["fps"], "")
    reel = reel_of(reels_of(dataset), row["video_id"])
    return Clip(row["clip_id"], row["video_id"], row["uri"], _span(row), (_span(row),), media, reel, "evaluation")
