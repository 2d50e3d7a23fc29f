"""What each column of the dataset means, in the words of the card.

COLUMNS["clips"]["margin"]; COLUMNS["clips"][""]     # the latter is the table itself
"""

from __future__ import annotations

from collections.abc import Mapping

from transforms.measure_columns import MEASURED

_ID = "of the source video; stable between runs"
_RUN = "the run that wrote the row"
_MADE_WITH = "fingerprints of the selector (select), each measure (by name), the cleaning and the hearing, for reruns"
_MEASURED = {column.name: f"{column.meaning}; null if it was not measured" for column in MEASURED}

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "clips": {
        "": "One row a clip.",
        "clip_id": "made from the video's id and the span in milliseconds",
        "video_id": _ID,
        "uri": "where the source video was",
        "title": "the source video's title, if it has one",
        "start_s": "start in the source video, seconds",
        "end_s": "end, exclusive, seconds",
        "duration_s": "end_s - start_s",
        "timestamp": "start and end as H:MM:SS.mmm",
        "width": "of the source video as shown, pixels",
        "height": "of the source video as shown, pixels",
        "fps": "frames a second of the source video, on average",
        "caption": "the chosen caption",
        "teacher": "the model that wrote it",
        "matching_score": "how well the selector finds that it matches the clip",
        "margin": "its lead over the runner-up; null with a single candidate",
        "abstained": "the selector found no candidate good; the best one stands all the same",
        "captions": "every candidate, with the model that wrote it and its score",
        "subtitles": "text spoken or shown during the clip, if there is any",
        "embedding": "visual embedding of the clip, of unit length",
        "shots": "the shots that the clip was stitched from",
        "run_id": _RUN,
        "fingerprint": "of the source's version and of all that shaped this row",
        "schema_version": "of this table's columns; those added at the end later don't change it",
        "max_running_lpips": _MEASURED["max_running_lpips"],
        "clip_file": "the clip's own file, by its path in the dataset; null if none was asked for or made",
        "made_with": _MADE_WITH,
        **_MEASURED,
        "caption_language": "ISO 639-1 code of the caption's language; null if it can't be told or was not asked",
        "harmful_text": "whether a harmful word stands in caption, title or subtitles; null if it was not asked",
        "duplicate_of": "the clip of another video that stands for it; null if it stands itself, or nobody looked",
        "duplicate_distance": "Euclidean, between their embeddings",
    },
    "videos": {
        "": "One row a source video: what became of it.",
        "video_id": _ID,
        "uri": "where it was",
        "title": "if it has one",
        "description": "if it has one",
        "size_bytes": "of the file",
        "etag": "the version of the file: changes when its bytes do",
        "duration_s": "seconds; null if it could not be opened, like the next four",
        "width": "as shown, pixels",
        "height": "as shown, pixels",
        "fps": "frames a second, on average",
        "codec": "of its video stream",
        "n_shots": "shots found",
        "n_clips": "rows in clips",
        "n_rejected": "rows in rejected",
        "n_failures": "rows in failures",
        "status": "ok, partial (a part was lost) or failed",
        "fingerprints": "of the source's version and each stage's configuration, for reruns",
        "run_id": _RUN,
        "content_hash": "SHA-256 of the file; null unless another one is as large, or if it could not be read",
        "duplicate_of": "the video whose file has the same content and stands for it",
    },
    "rejected": {
        "": "One row a span that a rule dropped: with the clips and the failed spans they tile each video.",
        "video_id": _ID,
        "start_s": "seconds",
        "end_s": "exclusive, seconds",
        "stage": "the rule",
        "reason": "in words",
        "value": "what the rule measured",
        "threshold": "what it allows",
        "run_id": _RUN,
        "clip_id": "of a clip that a filter dropped, as are all columns from here on: what it had come to",
        "shots": "the shots that it was stitched from",
        "embedding": "its visual embedding, of unit length",
        "captions": "its captions, if it had got any",
        "made_with": _MADE_WITH,
        **_MEASURED,
    },
    "failures": {
        "": "One row a dead letter: what failed, and what is needed to run it again.",
        "stage": "where it failed",
        "video_id": _ID,
        "clip_id": "if it concerns one clip",
        "teacher": "if it cost one teacher's caption only",
        "uri": "where the source video was",
        "start_s": "start of the span that it concerns, seconds",
        "end_s": "end, exclusive, seconds",
        "error_class": "the error's type",
        "message": "what went wrong",
        "detail": "for developers",
        "attempt": "how often it was tried",
        "failed_at": "UTC",
        "run_id": _RUN,
        "fingerprint": "of what was asked of the teacher; null where no teacher failed",
        "shots": "of a failed clip: the shots it was stitched of, cut to the clip, in seconds",
        "embedding": "of a failed clip: its visual embedding, a unit vector",
        "captions": "of a failed clip: the captions it had got, unscored",
    },
}
