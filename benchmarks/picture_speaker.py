"""A language model of a million weights that learned nothing but captions: a student's, without a download or a GPU.

    python benchmarks/picture_speaker.py DATASET --output models/speaker

learns all captions of a dataset, those of every teacher. From Python:

    make_speaker(pathlib.Path("work/llm"), captions, steps=900, rng=random.Random(0))
    Speaker(pathlib.Path("work/llm")).say()

A student can steer its frozen language model only as far as that one goes by what stands before. Large ones have
learned to; this one learns it from captions that stand behind some of their own words, in disorder.
"""

from __future__ import annotations

import argparse
import pathlib
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from beam_pipeline.usage import positive  # noqa: E402
from transforms.published import Published, reread  # noqa: E402

VOCABULARY = 2000
SIZES = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}
BATCH, RATE = 48, 3e-3
#: So many captions stand behind nothing: what the model says unasked has to be a caption, too.
BARE = 0.15


def make_tokenizer(captions: Sequence[str]) -> Any:
    """Byte pairs of these captions, as GPT-2's are made."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token=None))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    tokens = ["<s>", "</s>", "<pad>"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=tokens, initial_alphabet=letters)
    made.train_from_iterator(captions, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def make_speaker(folder: pathlib.Path, pictures: Sequence[Sequence[str]], steps: int, rng: random.Random) -> None:
    """Train the model and write it with its tokenizer.

    Args:
      pictures: the captions of each.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, get_cosine_schedule_with_warmup

    tokenizer = make_tokenizer([caption for captions in pictures for caption in captions])
    tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(rng.randrange(2**31))
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SIZES, **tokens))
    solver = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    rates = get_cosine_schedule_with_warmup(solver, steps // 20, steps)
    told, said = time.monotonic(), [caption for captions in pictures for caption in captions]
    model.train()
    for step in range(steps):
        ids, labels = _lesson(tokenizer, rng.choices(said, k=BATCH), rng)
        loss = model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        solver.step()
        rates.step()
        solver.zero_grad()
        if time.monotonic() - told > 30:
            told = time.monotonic()
            print(f"language model: step {step + 1:,} of {steps:,}, loss {loss.item():.3f}", flush=True)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _lesson(tokenizer: Any, captions: Sequence[str], rng: random.Random) -> tuple[Any, Any]:
    """Captions behind some of their words: tokens and labels, (captions, tokens)."""
    import torch

    rows = []
    for caption in captions:
        words = caption.split()
        kept = rng.sample(words, k=rng.randint(1, len(words))) if rng.random() > BARE else []
        before = tokenizer(" ".join(kept), add_special_tokens=False).input_ids if kept else []
        after = [*tokenizer(caption, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        rows.append(([tokenizer.bos_token_id, *before], after))
    longest = max(len(before) + len(after) for before, after in rows)
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
    labels = torch.full_like(ids, -100)
    for number, (before, after) in enumerate(rows):
        ids[number, : len(before) + len(after)] = torch.tensor([*before, *after])
        labels[number, len(before) : len(before) + len(after)] = torch.tensor(after)
    return ids, labels


class Speaker:
    """The model as `make_speaker` wrote it."""

    def __init__(self, folder: pathlib.Path):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._model, self._tokenizer = (
            AutoModelForCausalLM.from_pretrained(folder),
            AutoTokenizer.from_pretrained(folder),
        )

    def say(self) -> str:
        """What it says unasked, by the search that the student is judged with."""
        import torch

        start = torch.tensor([[self._tokenizer.bos_token_id]])
        end = {"eos_token_id": self._tokenizer.eos_token_id, "pad_token_id": self._tokenizer.pad_token_id}
        said = self._model.generate(start, num_beams=3, do_sample=False, max_new_tokens=32, **end)
        return self._tokenizer.decode(said[0], skip_special_tokens=True).strip()


def captions_of(dataset: str) -> list[list[str]]:
    """What the teachers said of each clip of a dataset, in the order of the clips' ids."""

    def read(published: Published) -> list[dict[str, Any]]:
        return [row for batch in published.scan("clips", ["clip_id", "captions"]) for row in batch.to_pylist()]

    rows = sorted(reread(dataset, read), key=lambda row: row["clip_id"])
    return [[one["caption"] for one in row["captions"]] for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train it on a dataset, write it, and return 0; 2, with one line, where there is none."""
    parser = argparse.ArgumentParser(description="Train a tiny language model on the captions of a dataset.")
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("--output", type=pathlib.Path, required=True, metavar="DIR", help="a new directory")
    parser.add_argument("--steps", type=positive, default=600, metavar="N", help="of 48 captions (600)")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args(arguments)
    try:
        captions = captions_of(options.dataset)
        if not any(captions):
            raise ValueError(f"{options.dataset} has no captions; make some: reelscribe curate ...")
        if options.output.exists():
            raise ValueError(f"{options.output} is there already; name a new directory")
        options.output.mkdir(parents=True)
    except (ValueError, OSError) as error:
        print(f"picture_speaker: {error}", file=sys.stderr)
        return 2
    import transformers

    transformers.utils.logging.disable_progress_bar()
    make_speaker(options.output, captions, options.steps, random.Random(options.seed))
    print(f"{options.output}; unasked it says: {Speaker(options.output).say()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
