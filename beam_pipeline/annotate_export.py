"""Ask people which captions of a clip are good, or the best: sample clips, write questions with something to look at.

    print(describe(export_questions("out", "round1", AskOptions("label-studio", clips=1000)), "round1"))

OUT/annotate.json says what was drawn from what. No file in OUT names a teacher where somebody who judges would see it.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from beam_pipeline import __version__
from beam_pipeline.annotate_clips import (
    COLUMNS,
    Askable,
    AskError,
    AskOptions,
    askable,
    candidates_of,
    read_extra,
    why_none,
)
from beam_pipeline.annotate_forms import Question, Shown, write_form
from beam_pipeline.annotate_pictures import sheet
from beam_pipeline.annotate_sample import Drawn, draw
from beam_pipeline.export_pictures import Pictures, SourcePictures
from transforms.by_source import Sources, clips_by_source
from transforms.clip_places import path_of
from transforms.files import join, name_of, title_of
from transforms.judgements import judgements_of
from transforms.new_folders import NewFolder, new_folder
from transforms.objects import is_object

MANIFEST = "annotate.json"
MEDIA = "media"

Captions = Mapping[str, Mapping[str, str]]


def export_questions(dataset_dir: str, output: str, options: AskOptions) -> dict[str, Any]:
    """Write questions into a new folder; return what its `annotate.json` says.

    Raises:
      AskError: there is nothing to ask, or a file of captions is none.
      NoDataset: there is none. TombstoneError: the record of a takedown can't be read.
      SubsetError: the subset names no clips. OSError: the disk is full; nothing is left behind then.
    """
    extras = {name: read_extra(path) for name, path in options.extras.items()}
    judged = _judged(dataset_dir, options) if options.skip_judged else frozenset()
    with clips_by_source(
        dataset_dir, COLUMNS, ["etag"], salt=f"annotate {options.seed}", subset=options.subset
    ) as sources:
        counts: collections.Counter[str] = collections.Counter()
        candidates, films = candidates_of(askable(sources, options, extras, counts, judged), options.seed)
        if not len(films):
            raise AskError(why_none(counts))
        drawn = draw(candidates, options.clips)
        n_drawn, n_films = len(drawn.positions), int(films[list(drawn.positions)].sum())
        # All alike: whoever sees frames where others see a film judges something else.
        is_film = n_films == n_drawn
        if options.link and not is_film:
            raise AskError(
                f"{n_drawn - n_films} of {n_drawn} clips have no file to link to; leave --media out, "
                "or write files with `reelscribe curate --write-clips`"
            )
        shown = Shown("video" if is_film else "image", _title(dataset_dir, output, options))
        with new_folder(output, MANIFEST) as folder:
            questions = _questions(
                sources, extras, judged, drawn, _Shower(dataset_dir, folder, output, options, is_film)
            )
            if not questions:
                raise AskError("there is nothing to look at: the clips have no files, and their reels are gone")
            write_form(options.form, folder, questions, shown, options.choose)
            told = {
                "form": options.form,
                "reelscribe": __version__,
                "dataset": title_of(dataset_dir),
                "versions": sources.versions,
                "settings": _settings(options),
                "counts": {
                    "questions": len(questions),
                    "shown": shown.kind,
                    "with_files": n_films,
                    "without_pictures": n_drawn - len(questions),
                    "eligible": len(films),
                    **counts,
                    "absent": sources.absent,
                },
                "bounds": {"alikeness": drawn.alikeness_bounds, "margin": drawn.margin_bounds},
                "strata": [dataclasses.asdict(one) for one in drawn.strata],
            }
            folder.finish(told)
    return told


def _judged(dataset_dir: str, options: AskOptions) -> frozenset[str]:
    """The clips of which somebody answered the same question: which is the best tells little of which are good."""
    every_good = options.choose == "every-good"
    return frozenset(one.clip_id for one in judgements_of(dataset_dir) if (one.good is not None) == every_good)


def _settings(options: AskOptions) -> dict[str, Any]:
    # Names of other models would tell whoever looks into the folder that one stands among the captions.
    return {
        **dataclasses.asdict(options),
        "extras": len(options.extras),
        "subset": name_of(options.subset) if options.subset else None,
    }


def _questions(
    sources: Sources, extras: Captions, judged: frozenset[str], drawn: Drawn, shower: _Shower
) -> list[Question]:
    """The questions that have something to look at, by lot: whoever stops half-way has judged a sample, too."""
    wanted = {at: number for number, at in enumerate(drawn.positions)}
    found: dict[int, Question] = {}
    for at, one in enumerate(askable(sources, shower.options, extras, collections.Counter(), judged)):
        if at in wanted and (media := shower.show(one)):
            found[wanted[at]] = Question(one.task, media)
    return [found[number] for number in sorted(found)]


class _Shower:
    """Gets what is to be seen of clips into the folder, source by source."""

    def __init__(self, dataset_dir: str, folder: NewFolder, output: str, options: AskOptions, is_film: bool):
        self.options = options
        self._dataset_dir, self._folder, self._output, self._is_film = dataset_dir, folder, output, is_film
        self._pictures = Pictures(dataset_dir, options.frames)
        self._of: tuple[str, SourcePictures] | None = None

    def show(self, asked: Askable) -> str | None:
        """The path or address of what is to be seen; None where there is nothing."""
        row, video_id = asked.row, str(asked.video["video_id"])
        if self.options.link:
            return self._linked(row)
        if self._of is None or self._of[0] != video_id:
            self._of = video_id, self._pictures.of_source(video_id, asked.video["etag"])
        seen = self._of[1].file(row) if self._is_film else self._sheet(self._of[1], row)
        if seen is None:
            return None
        kind, content = seen
        name = f"{MEDIA}/{row['clip_id']}.{kind}"
        with self._folder.writing(name) as (file, _):
            file.write(content)
        return join(self._output, name) if is_object(self._output) else name

    def _sheet(self, pictures: SourcePictures, row: Mapping[str, Any]) -> tuple[str, bytes] | None:
        try:
            return "jpg", sheet(pictures.frames(row["start_s"], row["end_s"]))
        except (OSError, ValueError, SyntaxError):  # What Pillow raises of files that are no pictures.
            return None

    def _linked(self, row: Mapping[str, Any]) -> str | None:
        path = path_of(self._dataset_dir, row)
        if path is None or is_object(path):
            return path
        return str(row["clip_file"]) if self.options.form == "label-studio" else str(pathlib.Path(path).resolve())


def _title(dataset_dir: str, output: str, options: AskOptions) -> str | None:
    """What the folder is called in which media stand on this machine; None where they stand in a bucket."""
    where = dataset_dir if options.link else output
    return None if is_object(where) else title_of(where)


def describe(told: Mapping[str, Any], output: str) -> str:
    """What was drawn, as lines for people."""
    counts, asked = told["counts"], told["settings"]["clips"]
    is_film = counts["shown"] == "video"
    seen = "by their clips' files" if is_film else "by frames side by side"
    lines = [f"{counts['questions']:,} clips out of {counts['eligible']:,}, shown {seen}"]
    if counts["with_files"] and not is_film:
        lines.append(f"all by frames, as only {counts['with_files']:,} of them have files of their own")
    if counts["eligible"] < asked:
        lines.append(f"asked for {asked:,}: there are no more that can be asked about")
    for name, why in (
        ("of_one_caption", "have but one caption"),
        ("without_extra", "have no caption in the file of --extra"),
        ("judged", "were judged before"),
        ("absent", "of the subset are not in the dataset any more"),
        ("without_pictures", "were left out: there is nothing to look at, neither file nor reel"),
    ):
        if counts.get(name):
            lines.append(f"{counts[name]:,} clips {why}")
    for one in told["strata"]:
        strata = f"captions' likeness {one['alikeness']:6}  margin {one['margin']}"
        lines.append(f"{one['drawn']:>8,} of {one['clips']:>9,}   {strata}")
    return "\n".join([*lines, output])
