"""Does training on people's choices make the lite selector better, on pictures and on clips that it never saw?

    python benchmarks/selector_training.py --captions CAPTIONS --videos VIDEOS --output work

CAPTIONS holds `flickr8k_train.parquet` and `flickr8k_dev.parquet` (`image_id`, `jpeg`, `captions`), and of the clips in
VIDEOS `panda70m.json`. Of each picture people's real caption stands among seven hard distractors; `reelscribe train
selector` learns on the first file to choose it, and `reelscribe evaluate` judges by the second, and by the clips: which
caption is the real one, and retrieval. Datasets that stand in `work` already are used again.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import datetime
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from beam_pipeline.config import load_config  # noqa: E402
from beam_pipeline.evaluate_gallery import dataset_gallery  # noqa: E402
from beam_pipeline.evaluate_judgements import of_rows  # noqa: E402
from beam_pipeline.evaluate_references import read_references  # noqa: E402
from beam_pipeline.evaluate_retrieval import evaluate_retrieval  # noqa: E402
from beam_pipeline.evaluate_scoring import Scorer, load_scorers  # noqa: E402
from beam_pipeline.evaluate_selection import choose_anew, judged_clips, study_selection  # noqa: E402
from beam_pipeline.evaluate_tables import table  # noqa: E402
from benchmarks.selector_candidates import write_pictures, write_videos  # noqa: E402
from transforms.judgements import judgements_of  # noqa: E402
from transforms.published import reread  # noqa: E402

UNTRAINED, TRAINED = "conse", "lite-projection"
WAYS = ("text to video", "video to text")
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def reelscribe(*arguments: str) -> None:
    """Run the command line, as a user would."""
    subprocess.run([sys.executable, "-m", "beam_pipeline.cli", *arguments], check=True)


def references(dataset: str, to: pathlib.Path) -> str:
    """The real caption of every clip that has one, as a CSV for `evaluate retrieval`."""
    with open(to, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip_id", "caption"])
        for one in sorted(judgements_of(dataset), key=lambda one: one.clip_id):
            if one.chosen is not None:
                writer.writerow([one.clip_id, one.choices[one.chosen].caption])
    return str(to)


def judge(dataset: str, scorers: Sequence[Scorer], work: pathlib.Path) -> list[list[str]]:
    """The rows of one dataset: agreement with people, retrieval, and what is gained in each on the same clips."""
    judgements = list(of_rows(one.row(NOW) for one in judgements_of(dataset)))
    clips, _ = reread(dataset, lambda published: judged_clips(published, dataset, judgements))
    # The dataset's own selection is nobody's: no selector was asked when it was made.
    clips = [dataclasses.replace(one, chosen={}) for one in clips]
    for scorer in scorers:
        clips, failed = choose_anew(clips, scorer)
        assert not failed, failed
    name = pathlib.Path(dataset).name
    captions = read_references(references(dataset, work / f"{name}.csv"))
    study, found = study_selection(clips), evaluate_retrieval(dataset_gallery(dataset, captions, 1000), scorers)
    counted = f"{study.clips - study.all_bad:,}"
    rows = []
    for scorer in scorers:
        own = scorer.entry.name
        both = [found.rows[own][way].recalls[0].told(scale=100) for way in WAYS]
        rows.append([f"{name}: {own}", counted, study.rows[own].recall_at_1.told(scale=100), *both])
    (gain,), (gains,) = study.gains.values(), found.gains.values()
    both = [gains[way][0].told("+.1f", scale=100) for way in WAYS]
    return [*rows, [f"{name}: gain, paired", counted, gain.told("+.1f", scale=100), *both]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train the lite selector and judge it on what it never saw.")
    parser.add_argument("--captions", type=pathlib.Path, required=True, help="folder of the Parquet files")
    parser.add_argument("--videos", type=pathlib.Path, help="folder of clips; without it pictures alone")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="where datasets, weights and figures go")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    began, work = time.monotonic(), options.output
    work.mkdir(parents=True, exist_ok=True)
    datasets = {}
    for part in ("train", "dev"):
        datasets[part] = str(work / f"pictures-{part}")
        if not (work / f"pictures-{part}" / "annotations").exists():
            write_pictures(datasets[part], options.captions / f"flickr8k_{part}.parquet", options.seed)
    if options.videos:
        datasets["videos"] = str(work / "videos")
        if not (work / "videos" / "annotations").exists():
            write_videos(datasets["videos"], options.videos, options.captions / "panda70m.json", options.seed)
    figures = str(work / "training.json")
    reelscribe("train", "selector", datasets["train"], "--output", str(work / "selector"), "--json", figures)
    path = json.loads(pathlib.Path(figures).read_text("utf-8"))["path"]
    config = work / "trained.yaml"
    config.write_text(f"extends: lite\nselector: {{name: {TRAINED}, weights: {path}}}\n", encoding="utf-8")
    scorers = load_scorers([UNTRAINED, TRAINED], load_config(file=str(config)))
    rows = [row for part in ("dev", "videos") if part in datasets for row in judge(datasets[part], scorers, work)]
    head = ["what it never saw", "clips", "R@1 with people", "text to video R@1", "video to text R@1"]
    print("\n".join(table(head, rows)))
    print(f"hundredths, 95 % bootstrap intervals; {time.monotonic() - began:.0f} s in all")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
