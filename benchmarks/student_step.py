"""What a training step and a caption of the student cost, by size and by batch.

    python benchmarks/student_step.py                                   # a ViT-B and a language model of 135M: minutes
    python benchmarks/student_step.py --size full --batches 1,4,16,64   # a ViT-g and 7B: on a GPU, in bfloat16

The networks have the sizes of published ones; their weights are random, and so are pixels, texts and captions: what
they say is nonsense, but what it costs is not. A step is forward, backward and AdamW over what is trained, as
`train student` does it. "States kept" is a step of which the image encoder's states are known already, as with
`--cache-features`. The tokens of a step are those that the language model reads: what stands before a caption, and the
caption. A generation says `--tokens` tokens for each clip. Loading, decoding and preparing are left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from beam_pipeline.usage import positive  # noqa: E402
from benchmarks.handlers import one_line, rate, table  # noqa: E402

if TYPE_CHECKING:
    from model_handlers.student_network import StudentForCaptioning

TEXT_TOKENS = 128
#: By size: the image encoder, each Q-Former where it is not BLIP-2's, the language model.
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "full": {
        "vision": {
            **{"model_type": "blip_2_vision_model", "hidden_size": 1408, "intermediate_size": 6144},
            **{"num_hidden_layers": 39, "num_attention_heads": 16, "image_size": 224, "patch_size": 14},
        },
        "qformer": {},
        # LLaMA's, of which Vicuna-7B is one.
        "language": {
            **{"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32},
            **{"num_attention_heads": 32, "vocab_size": 32000, "max_position_embeddings": 2048},
        },
    },
    "base": {
        "vision": {"model_type": "clip_vision_model", "image_size": 224, "patch_size": 16, "hidden_size": 768}
        | {"intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        "qformer": {},
        # SmolLM2-135M's.
        "language": {
            **{"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30},
            **{"num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True},
        },
    },
    "small": {
        "vision": {"model_type": "clip_vision_model", "image_size": 32, "patch_size": 16, "hidden_size": 32}
        | {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
        "qformer": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
        "language": {
            **{"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
            **{"num_attention_heads": 2, "vocab_size": 256},
        },
    },
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of a batch of clips.

    Attributes:
      step_s, kept_s, said_s: seconds of a step, of one with the states kept, of a generation.
      peak_bytes, said_bytes: the most memory that a step and a generation took of a GPU; None on a CPU.
    """

    batch: int
    step_s: float
    kept_s: float
    said_s: float
    peak_bytes: int | None
    said_bytes: int | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table; 1 where some batch could not be measured."""
    options = _options(arguments)
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    import torch
    import transformers

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    began = time.perf_counter()
    model = student(options.size, device, options.checkpointing)
    weights = list(model.parameters())
    facts = {
        "device": torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        **{"torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version()},
        **{"size": options.size, "frames": model.config.frames, "text_tokens": TEXT_TOKENS, "tokens": options.tokens},
        **{"rounds": options.rounds, "checkpointing": options.checkpointing, "prefix": model.config.prefix},
        "parameters": sum(one.numel() for one in weights),
        "trained": sum(one.numel() for one in weights if one.requires_grad),
    }
    print(f"the networks stand after {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    found: list[Cost] = []
    failures: dict[int, str] = {}
    for batch in options.batches:
        try:
            found.append(cost(model, batch, options.tokens, options.rounds))
        except Exception as error:
            # Whatever it is, other batches can still be measured.
            failures[batch] = one_line(error)
        gc.collect()
        torch.cuda.empty_cache()
        if options.json:
            told = {**facts, "batches": [dataclasses.asdict(each) for each in found], "failures": failures}
            options.json.write_text(json.dumps(told, indent=2) + "\n", "utf-8")
    print("\n".join(report(facts, found, failures)))
    return 1 if failures else 0


def student(size: str, device: str, checkpointing: bool = False) -> StudentForCaptioning:
    """A student of random weights, its frozen parts in bfloat16 on a GPU, as `train student` loads them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from model_handlers.student_config import StudentConfig
    from model_handlers.student_network import StudentForCaptioning
    from model_handlers.student_pieces import make_vision

    sizes = SIZES[size]
    frozen = "bfloat16" if device == "cuda" else "float32"
    parts = {part: dict(sizes[part]) for part in ("vision", "language")}
    vision, language = (AutoConfig.for_model(one.pop("model_type"), **one, dtype=frozen) for one in parts.values())
    readers = {f"{one}_config": sizes["qformer"] for one in ("qformer", "text_qformer")}
    config = StudentConfig(
        vision_config=vision,
        text_config=language,
        video_qformer_config={"num_hidden_layers": 2, "cross_attention_frequency": 1} | sizes["qformer"],
        begin_token_id=1,
        end_token_id=2,
        **readers,
    )
    with torch.device(device):
        model = StudentForCaptioning(
            config, make_vision(vision).to(getattr(torch, frozen)), AutoModelForCausalLM.from_config(language)
        )
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def cost(model: StudentForCaptioning, batch: int, tokens: int, rounds: int) -> Cost:
    """Medians of some rounds, after one that does not count."""
    import torch

    device, sizes = model.device, model.config.vision_config
    side, vocabulary = sizes.image_size, model.config.text_config.vocab_size
    pixels = torch.randn(batch, model.config.frames, 3, side, side, device=device)
    asked = {
        "text_ids": torch.randint(3, vocabulary, (batch, TEXT_TOKENS), device=device),
        "text_mask": torch.ones(batch, TEXT_TOKENS, dtype=torch.long, device=device),
    }
    labels = torch.randint(3, vocabulary, (batch, tokens), device=device)
    kept = model.encode_frames(pixels)
    trained = [one for one in model.parameters() if one.requires_grad]
    # A rate of nought: however long it is measured, the weights stay tame.
    optimizer = torch.optim.AdamW(trained, lr=0.0, betas=(0.9, 0.99), weight_decay=0.05)

    def step(**seen: Any) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = model(**seen, **asked, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def say() -> None:
        model.generate(pixels, **asked, min_new_tokens=tokens, max_new_tokens=tokens)

    model.train()
    try:
        step_s, peak = timed(lambda: step(pixel_values=pixels), rounds, device)
        kept_s, _ = timed(lambda: step(features=kept), rounds, device)
        model.eval()
        said_s, said_peak = timed(say, rounds, device)
    finally:
        optimizer.zero_grad()
    return Cost(batch, step_s, kept_s, said_s, peak, said_peak)


def timed(work: Callable[[], None], rounds: int, device: Any) -> tuple[float, int | None]:
    """The median of its seconds, and the most memory of a GPU that was taken meanwhile."""
    import torch

    on_gpu = device.type == "cuda"
    work()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), torch.cuda.max_memory_allocated() if on_gpu else None


def report(facts: dict[str, Any], found: Sequence[Cost], failures: dict[int, str]) -> list[str]:
    """The lines of the table, what it was measured on, and what failed."""
    told = "{device}; torch {torch}, transformers {transformers}, Python {python}; {size}: {parameters} parameters, of "
    told += "which {trained} are trained; {frames} frames, {text_tokens} tokens of text, {prefix} before a caption of "
    told += "{tokens}; medians of {rounds} rounds"
    lines = [told.format(**facts | {name: f"{facts[name] / 1e6:,.1f}M" for name in ("parameters", "trained")})]
    titles = ["clips at once", "step s", "clips/s", "tokens/s", "peak GiB", "clips/s, states kept"]
    titles += ["captions/s", "tokens/s said", "peak GiB, saying"]
    read = facts["prefix"] + facts["tokens"]
    rows = [
        [
            str(each.batch),
            f"{each.step_s:.3g}",
            *(rate(each.batch * one / each.step_s) for one in (1, read)),
            _gib(each.peak_bytes),
            rate(each.batch / each.kept_s),
            *(rate(each.batch * one / each.said_s) for one in (1, facts["tokens"])),
            _gib(each.said_bytes),
        ]
        for each in found
    ]
    lines += ["", *table(titles, rows)] if rows else []
    return lines + [line for batch, why in failures.items() for line in ("", f"{batch} at once: {why}")]


def _gib(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**30:.1f}"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=[*SIZES], default="base")
    parser.add_argument("--batches", type=_batches, default=[1, 4, 16], metavar="A,B", help="clips at once (1,4,16)")
    parser.add_argument("--tokens", type=positive, default=48, metavar="N", help="of every caption (48)")
    parser.add_argument("--rounds", type=positive, default=3, metavar="N")
    parser.add_argument("--gradient-checkpointing", dest="checkpointing", action="store_true")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="the figures, too")
    options = parser.parse_args(arguments)
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no directory {options.json.absolute().parent}")
    return options


def _batches(text: str) -> list[int]:
    return [positive(one) for one in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
