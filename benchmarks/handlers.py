"""Does `RunInference` with our handlers keep a GPU as busy as a hand-written loop?

    python benchmarks/handlers.py                                                  # small models: minutes on a CPU
    python benchmarks/handlers.py --size full --models qwen2.5-vl-7b --clips 96    # the real sizes, on a GPU

Three contenders take turns on the same clips, with one copy of the model: (a) `RunInference` with our handler; (b) the
network alone over batches that were prepared beforehand; (b2) the loop that most people write: decode, preprocess,
forward, and from the start. a/b says what Beam and the preparing cost (goal: at least 0.95), a/b2 what it is worth to
prepare the next pictures while the device computes. "prepare alone" is what a's threads prepare in a time: where it is
below b, the processor is too slow for the device. Loading the model and starting the pipeline are left out.

The models are as large as the real ones, their weights random (see `handler_checkpoints`): what they say is nonsense,
but has `--tokens` tokens each time.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import gc
import json
import os
import pathlib
import platform
import shutil
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    # The modules beside this one are found by the names that Beam finds them by.
    sys.path.insert(0, str(ROOT))

from benchmarks.handler_checkpoints import MAKERS, SIZES, checkpoint  # noqa: E402

if TYPE_CHECKING:
    from benchmarks.handler_rounds import Measured

#: Of a/b.
GOAL = 0.95
VIDEOS = ROOT.parent / "shared" / "videos" / "panda70m"
CLIPS = {"full": 256, "small": 16}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and return 0; 1 where a model could not be measured, or left a clip unanswered."""
    options = _options(arguments)
    # No hub is asked, nor do libraries draw their bars between our lines.
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")
    import torch
    import transformers

    from benchmarks.handler_clips import clips
    from benchmarks.handler_rounds import Effort, measure

    transformers.utils.logging.disable_progress_bar()
    on_gpu = torch.cuda.is_available()
    size = options.size or ("full" if on_gpu else "small")
    effort = Effort(options.rounds, options.batch, options.tokens)
    facts = {
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "size": size,
        "clips": options.clips or CLIPS[size],
        **dataclasses.asdict(effort),
    }
    found: list[Measured] = []
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            samples = clips(facts["clips"], pathlib.Path(scratch) / "reels", options.videos)
        except Exception as error:
            raise SystemExit(f"no clips could be made of {options.videos}: {one_line(error)}") from error
        for model in options.models:
            began = time.perf_counter()
            try:
                folder = checkpoint(model, size, options.work or pathlib.Path(scratch), "cuda" if on_gpu else "cpu")
                say(f"{model}: the checkpoint stands after {time.perf_counter() - began:.0f} s")
                found.append(measure(model, folder, samples, effort, say))
                if not options.work:
                    shutil.rmtree(folder)
            except Exception as error:
                # Whatever it is, the other models can still be measured.
                failures[model] = one_line(error)
                say(f"{model}: {failures[model]}")
            # Outside the handler: the error holds frames that hold tensors.
            gc.collect()
            torch.cuda.empty_cache()
            if options.json:
                told = {**facts, "models": [dataclasses.asdict(each) for each in found], "failures": failures}
                options.json.write_text(json.dumps(told, indent=2) + "\n", "utf-8")
    print("\n".join(report(facts, found, failures)))
    return 1 if failures or any(each.failures for each in found) else 0


def say(line: str) -> None:
    """Tell how far it is, beside the tables."""
    print(line, file=sys.stderr, flush=True)


def one_line(error: BaseException) -> str:
    """What went wrong and where; of a full GPU, what to do."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory: try a smaller --batch, or a GPU with more"
    where = traceback.extract_tb(error.__traceback__)[-1]
    told = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {told} ({os.path.basename(where.filename)}, line {where.lineno})"


def report(facts: Mapping[str, Any], found: Sequence[Measured], failures: Mapping[str, str]) -> list[str]:
    """The lines of both tables, what they were measured on, and what failed."""
    told = "{device}; torch {torch}, transformers {transformers}, Python {python}; {size} models, {clips} clips, "
    lines = [told.format(**facts) + "answers of {tokens} tokens, batches of at most {batch}; ".format(**facts)]
    lines[0] += f"medians of {facts['rounds']} rounds (and their range), in clips a second."
    if found:
        lines += ["", *contenders(found), "", f"Goal: a/b at least {GOAL}.", "", *batch_sizes(found)]
    for each in found:
        if each.failures:
            count = len(each.failures)
            lines += ["", f"{each.model}: {count} of {each.clips} clips unanswered, the first: {each.failures[0]}"]
    lines += [line for model, why in failures.items() for line in ("", f"{model} was not measured: {why}")]
    return lines


def contenders(found: Iterable[Measured]) -> list[str]:
    """A Markdown table of the three contenders, a row a model."""
    titles = ["a: RunInference", "b: forward alone", "b2: one after another", "a/b", "a/b2", "prepare alone"]
    titles += ["in forward", "GPU busy", "batches of a", "tokens a clip", "peak GiB"]
    rows = []
    for each in found:
        a, b, b2 = each.through_beam, each.forward_alone, each.one_after_another
        busy = [value for value in each.gpu_busy if value is not None]
        cells = [*map(spread, (a, b, b2)), *(f"{ratio(a, other):.2f}" for other in (b, b2))]
        cells += [rate(each.prepare_alone), f"{statistics.median(each.forward_share):.0%}"]
        cells += [f"{statistics.median(busy):.0f} %" if busy else "-"]
        cells += [runs(each.batches[-1]), f"{each.tokens_a_clip:g}" if each.tokens_a_clip else "-"]
        cells.append(f"{each.peak_bytes / 2**30:.1f}" if each.peak_bytes else "-")
        rows.append([each.model, *cells])
    return table(["model", *titles], rows)


def batch_sizes(found: Sequence[Measured]) -> list[str]:
    """A Markdown table of what the network alone does in batches of each size, in clips a second."""
    sizes = sorted({size for each in found for size in each.by_size})
    rows = []
    for each in found:
        # A size that others reached is none of this model's: its cell stays empty.
        told = {size: "out of memory" if fast is None else rate(fast) for size, fast in each.by_size.items()}
        rows.append([each.model, *(told.get(size, "") for size in sizes)])
    return table(["forward alone, batches of", *map(str, sizes)], rows)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [titles, ["---", *("---:" for _ in titles[1:])], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def rate(value: float) -> str:
    """Clips a second, to three figures."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(rates: Sequence[float]) -> str:
    """The median, and the range of more than one."""
    told = rate(statistics.median(rates))
    return told if len(rates) == 1 else f"{told} ({rate(min(rates))}-{rate(max(rates))})"


def ratio(mine: Sequence[float], others: Sequence[float]) -> float:
    """The median of the rounds' own ratios."""
    return statistics.median(one / other for one, other in zip(mine, others, strict=True))


def runs(batches: Iterable[int]) -> str:
    """How many batches there were of each size, the largest first: "7 x 32, 1 x 8"."""
    counted = sorted(collections.Counter(batches).items(), reverse=True)
    return ", ".join(f"{count} x {size}" for size, count in counted)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=_models, default=list(MAKERS), metavar="A,B", help=f"of {', '.join(MAKERS)}")
    parser.add_argument("--size", choices=SIZES, help="full on a GPU, else small")
    parser.add_argument("--clips", type=_count, help=f"{CLIPS['full']} for full models, {CLIPS['small']} for small")
    parser.add_argument("--rounds", type=_count, default=3)
    parser.add_argument("--batch", type=_count, default=32, help="the most clips in a batch")
    parser.add_argument("--tokens", type=_count, default=32, help="of every answer")
    parser.add_argument(
        "--work", type=pathlib.Path, help="where checkpoints are kept, 28 GB of full ones; else nowhere"
    )
    parser.add_argument("--videos", type=pathlib.Path, default=VIDEOS, help="films; without any, clips are drawn")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="all figures")
    options = parser.parse_args(arguments)
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no directory {options.json.absolute().parent}")
    return options


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 up, not {text!r}")
    return int(text)


def _models(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in MAKERS]:
        raise argparse.ArgumentTypeError(f"there is no model {unknown[0]!r}; choose of {', '.join(MAKERS)}")
    return names


if __name__ == "__main__":
    raise SystemExit(main())
