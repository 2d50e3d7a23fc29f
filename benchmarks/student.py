"""What does a student give up for being one model? Beside the ensemble of a dataset, on the same clips.

    python benchmarks/student.py DATASET --student models/student/v1 --clips 200
    python benchmarks/student.py DATASET --student models/student/v1 --references captions.json --json told.json

One table. The teachers of the dataset's last run caption its clips anew, and so does the student, with the clips' text
and without: "s a clip" is the median of the rounds, "x student" the median of each round's own ratio (and their range).
The dataset's selector scores the captions that the dataset holds and the student's: "kept" are those that reach
`--keep-score` (unless told, the score below which the dataset abstains), "s a kept clip" is what captioning cost for
each of these; `--price-per-hour X`, of this machine, makes money of it. "student preferred" is how often the selector
scores the student's caption above the row's, the same caption by half, with a 95 % bootstrap interval over clips. The
selector chose the first row of all candidates by these very scores, so that one more candidate just as good would be
preferred less often than not: the table tells how often. With references each row is measured against them, too.

In the paper's Table 4 people preferred. `--write-captions DIR` writes the student's captions for them: student.csv and,
without text, student-no-text.csv, which `reelscribe annotate export --extra` reads.

A student says of clips that it learned from what it was told. So only those are drawn that its training held out, by
the `test_clips.txt` in its directory, or those of `--only FILE`; `--learned-too` draws from all.

Loading, splitting and scoring are in no row. Teachers that share a model (those of the lite profile do) share what it
saw, as in a job: the first of them pays, and the row of all is right. The dataset stays as it is.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import pathlib
import platform
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from beam_pipeline import usage  # noqa: E402
from beam_pipeline.evaluate_bootstrap import Interval  # noqa: E402
from beam_pipeline.evaluate_metrics import METRICS  # noqa: E402
from beam_pipeline.evaluate_references import BadInput, read_references  # noqa: E402
from beam_pipeline.training.commands import above_0  # noqa: E402
from benchmarks.student_study import SEEN, STUDENT, Drawing, Row, even, readable, rows_of, sample, scored  # noqa: E402
from transforms.published import reread  # noqa: E402

#: What the training of a student writes beside its weights.
TEST_CLIPS = "test_clips.txt"
#: Where its captions are written for people; a file is called as they will know its captions.
FILES = {STUDENT: "student.csv", SEEN: "student-no-text.csv"}

if TYPE_CHECKING:
    from beam_pipeline.config import Config
    from benchmarks.student_rounds import Measured
    from model_handlers.catalogue import Entry


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and return 0; 2, with one line, where something was named that can't be used."""
    options = options_of(arguments)
    # Libraries shall not draw their bars between our lines.
    os.environ.update(TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        told, lines = compare(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"student: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text(json.dumps(told, indent=2) + "\n", "utf-8")
    print("\n".join(lines))
    return 0


def compare(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """All figures, and the lines that tell them.

    Raises:
      BadInput, ConfigError, NoDataset, WeightsError: something was named that can't be used.
    """
    from beam_pipeline.config import load_config
    from beam_pipeline.evaluate_scoring import load_scorers
    from beam_pipeline.redriving import last_config
    from benchmarks.student_rounds import Effort, copied, measure
    from model_handlers import catalogue

    config = load_config(file=options.config) if options.config else last_config(options.dataset)
    base = catalogue.teacher("student")
    students = [
        base.changed(name, weights=options.student, inputs=inputs, dtype=options.dtype)
        for name, inputs in ((STUDENT, "V-S-M"), (SEEN, "V"))
    ]
    own = [one.name for one in config.teachers if one.revision == students[0].revision]
    ensemble = [one for one in config.teachers if one.name not in own]
    if not ensemble:
        raise BadInput(f"{options.dataset} has this student's captions alone; name a dataset of an ensemble's")
    again, notes = asked_again(ensemble, options.teachers)
    notes += [f"{name} is this student, and so left out of the ensemble" for name in own]
    references = read_references(options.references) if options.references else None
    only, held_out = clips_of(options)
    names = frozenset(one.name for one in ensemble)
    drawing = Drawing(options.dataset, names, options.clips, options.seed, only)
    shown, more = reread(options.dataset, lambda published: sample(published, drawing, references))
    (scorer,) = load_scorers(None, config)
    limit = scorer.abstain_below if options.keep_score is None else options.keep_score
    with tempfile.TemporaryDirectory() as scratch:
        clips, missing = copied([one.clip for one in shown], pathlib.Path(scratch) / "reels")
        if not clips:
            raise BadInput(f"no clip's reel can be read: {next(iter(missing.values()))}")
        shown = [dataclasses.replace(one, clip=clip) for one, clip in zip(readable(shown, missing), clips, strict=True)]
        notes += [held_out, *more, *(f"left out: {video}: {why}" for video, why in missing.items())]
        measured = measure(again, students, clips, Effort(options.rounds, not options.reload), say)
        scores, took = scored(scorer, shown, measured)
    notes += [f"{name} did not run anew: {one.error}" for name, one in measured.items() if one.error]
    notes += [
        f"{name}: no caption of {len(one.failures)} clips, the first: {one.failures[0]}"
        for name, one in measured.items()
        if one.failures
    ]
    if not measured[STUDENT].captions:
        raise BadInput(f"{options.student} captions none of {len(shown)} clips: {measured[STUDENT].failures[0]}")
    rows = rows_of(shown, [one.name for one in ensemble], measured, scores, limit, options.metrics)
    rule = (
        "the selector never abstains, so that all are kept" if limit is None else f"kept: a score of {limit:g} or more"
    )
    notes += [f"{rule}; the selector is {config.selector.name}, and takes {took:.3g} s a clip for all captions"]
    notes += [f"one more candidate as good as each of the ensemble's would be preferred in {even(shown):.1%} of clips"]
    facts = facts_of(options, config, len(shown))
    if options.write_captions:
        notes += [
            f"{path}: captions of {count} clips" for path, count in write(options.write_captions, measured).items()
        ]
    price = options.price_per_hour
    if price is not None:
        notes += [f"the cost is that of captioning alone, at {price:g} an hour"]
    plain = {name: as_json(row) | {"kept_cost": cost_of(row, price)} for name, row in rows.items()}
    told = {**facts, "keep_score": limit, "price_per_hour": price, "rows": plain, "notes": notes}
    return told, report(facts, rows, notes, price)


def cost_of(row: Row, price_per_hour: float | None) -> float | None:
    """What captioning cost for each clip that is kept; None where nobody told a price, or none was kept."""
    if price_per_hour is None or row.kept_seconds is None:
        return None
    return row.kept_seconds * price_per_hour / 3600


def write(folder: pathlib.Path, measured: Mapping[str, Measured]) -> dict[str, int]:
    """Write the student's captions as `annotate export --extra` reads them; how many each file has."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in FILES.items():
        with open(folder / file, "w", encoding="utf-8", newline="") as opened:
            rows = [("clip_id", "caption"), *sorted(measured[name].captions.items())]
            csv.writer(opened, lineterminator="\n").writerows(rows)
    return {str(folder / file): len(measured[name].captions) for name, file in FILES.items()}


def asked_again(ensemble: Sequence[Entry], names: Sequence[str] | None) -> tuple[list[Entry], list[str]]:
    """The teachers that are run anew, and who is not; endpoints answer at a speed that is not this machine's."""
    if names is None:
        remote = [one.name for one in ensemble if getattr(one.settings, "url", "")]
        notes = [f"{name} is asked over the network, so it was not run anew" for name in remote]
        return [one for one in ensemble if one.name not in remote], notes
    known = {one.name: one for one in ensemble}
    if unknown := [name for name in names if name not in known]:
        raise BadInput(f"the ensemble has no teacher {unknown[0]!r}; choose of {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)], []


def clips_of(options: argparse.Namespace) -> tuple[frozenset[str] | None, str]:
    """The clips that may be drawn, None for all, and what a reader has to know of that."""
    told = os.path.join(os.path.expanduser(options.student), TEST_CLIPS)
    path = options.only or (told if os.path.isfile(told) and not options.learned_too else None)
    if path is None:
        return None, "clips that the student learned from may be among these: then its figures are too good"
    with open(path, encoding="utf-8") as file:
        return frozenset(line.strip() for line in file if line.strip()), f"clips are those that {path} names"


def facts_of(options: argparse.Namespace, config: Config, clips: int) -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    on_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} of {os.cpu_count()} cores"
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    return {"device": device, **versions, "clips": clips, "rounds": options.rounds, "profile": config.profile}


def as_json(row: Row) -> dict[str, Any]:
    plain = {
        "preferred": row.preferred.as_json(),
        "metrics": {name: one.as_json() for name, one in row.metrics.items()},
    }
    return {**dataclasses.asdict(row), **plain}


def report(facts: Mapping[str, Any], rows: Mapping[str, Row], notes: Sequence[str], price: float | None) -> list[str]:
    """The lines of the table, what it was measured on, and what a reader has to know."""
    names = [name for name in METRICS if any(name in row.metrics for row in rows.values())]
    money = ["cost of 1,000 kept"] * (price is not None)
    titles = [
        "captions",
        "clips",
        "s a clip",
        "x student",
        "kept",
        "s a kept clip",
        *money,
        "student preferred",
        *names,
    ]
    lines = [titles, ["---", *("---:" for _ in titles[1:])]]
    for name, row in rows.items():
        share = f"{row.kept / row.clips:.0%}" if row.clips else "-"
        cells = [name, f"{row.clips}", figure(row.seconds), spread(row.cost), share]
        cells.append("-" if row.kept_seconds is None else f"{row.kept_seconds:.3g}")
        cost = cost_of(row, price)
        cells += ["-" if cost is None else f"{1000 * cost:.3g}" for _ in money]
        cells.append(row.preferred.told(".0f", 100))
        lines.append([*cells, *(row.metrics.get(one, Interval(None)).told(scale=100) for one in names)])
    told = "{device}; torch {torch}, Python {python}; profile {profile}; {clips} clips, {rounds} rounds. "
    return [
        told.format(**facts) + "Shares and metrics in hundredths, with 95 % bootstrap intervals.",
        "",
        *(f"| {' | '.join(cells)} |" for cells in lines),
        "",
        *(f"- {note}" for note in notes),
    ]


def figure(rounds: Sequence[float]) -> str:
    """The median to three figures."""
    return f"{statistics.median(rounds):.3g}" if rounds else "-"


def spread(rounds: Sequence[float]) -> str:
    """The median, and the range of more than one."""
    told = figure(rounds)
    return told if len(rounds) < 2 else f"{told} ({min(rounds):.3g}-{max(rounds):.3g})"


def say(line: str) -> None:
    """Tell how far it is, beside the table."""
    print(line, file=sys.stderr, flush=True)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("--student", required=True, metavar="DIR", help="what reelscribe train student wrote")
    parser.add_argument(
        "--references", metavar="FILE", help="captions by people, as reelscribe evaluate captions reads"
    )
    parser.add_argument(
        "--metrics", type=usage.names, default=list(METRICS), metavar="A,B", help=f"of {', '.join(METRICS)}"
    )
    parser.add_argument("--clips", type=usage.positive, default=100, metavar="N", help="by lot (100)")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--only", metavar="FILE", help="draw from these, one clip_id a line")
    chosen.add_argument("--learned-too", action="store_true", help="draw from all, also those that it learned from")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another one, other clips (0)")
    parser.add_argument("--rounds", type=usage.positive, default=3, metavar="N", help="of all contenders in turn (3)")
    parser.add_argument(
        "--teachers", type=usage.names, metavar="A,B", help="run only these anew (default: the ensemble)"
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="the ensemble's (default: that of the last run)")
    parser.add_argument("--keep-score", type=float, metavar="X", help="keep clips from this matching_score on")
    parser.add_argument("--price-per-hour", type=above_0, metavar="X", help="of this machine; tells the cost, too")
    parser.add_argument("--write-captions", type=pathlib.Path, metavar="DIR", help="the student's, for people to judge")
    parser.add_argument("--reload", action="store_true", help="one model in memory at a time, loaded in every round")
    parser.add_argument("--dtype", default="auto", help="what the student computes in (auto)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="all figures")
    options = parser.parse_args(arguments)
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no directory {options.json.absolute().parent}")
    if unknown := [name for name in options.metrics if name not in METRICS]:
        parser.error(f"--metrics: there is no metric {unknown[0]!r}; choose of {', '.join(METRICS)}")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
