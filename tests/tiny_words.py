"""What the tiny models of the tests have in common: trained tokenizers, sizes, and a head that says words.

vocab, merges = train_bpe()
teach(model, processor, tokenizer.eos_token_id)       # it names the colour that it is shown
"""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Sequence
from typing import Any

Slots = tuple[tuple[str, ...], ...]

#: What a taught model says: one word of each slot, one after the other. Each is a token of every tokenizer here.
SLOTS: Slots = (
    (" A",),
    (" red", " green", " blue", " bright", " dark", " golden", " quiet", " silver"),
    (" boat", " train", " horse", " garden", " street", " river", " tower", " kitchen"),
    (" moves",),
    (" slowly",),
    (" past",),
    (" the",),
    (" camera",),
    (".",),
)
LINES = ["".join(words) for turn in range(8) for words in [[slot[turn % len(slot)] for slot in SLOTS]] * 3] + [
    "".join(word for slot in SLOTS for word in slot).rstrip("."),
    "Describe the video in one sentence. Title: a day at the river. Subtitles: look at the boat.",
    "User: Assistant: USER: ASSISTANT: system user assistant model Frame from 00:01: seconds Time",
    "You are a helpful assistant. You are provided the following series of frames from a video.",
] * 3

HIDDEN = 64
#: As many as the longest slot has words.
COLOURS = (
    (220, 20, 20),
    (20, 180, 20),
    (20, 20, 220),
    (255, 255, 255),
    (0, 0, 0),
    (230, 200, 30),
    (128, 128, 128),
    (20, 200, 200),
)
SIZES = ((72, 128), (96, 96), (128, 72))
#: What a taught model says of each colour.
CAPTIONS = tuple("".join(slot[number % len(slot)] for slot in SLOTS).strip() for number in range(len(COLOURS)))


@functools.cache
def train_bpe() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level BPE, as of GPT-2 and Qwen, in which each word of `SLOTS` is one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return _train(tokenizer, sorted(pre_tokenizers.ByteLevel.alphabet()), [])


@functools.cache
def train_sentencepiece(special: tuple[str, ...]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a BPE over characters, as of Llama and Gemma; `special` come first."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    # Words, lest a whole line become a token.
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    alphabet = ["▁", *map(chr, range(33, 127))]
    return _train(tokenizer, alphabet, [*special, "\n", *(f"<0x{byte:02X}>" for byte in range(256))])


def _train(tokenizer: Any, alphabet: list[str], special: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    from tokenizers import trainers

    trainer = trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    return trained["vocab"], [tuple(pair) for pair in trained["merges"]]


QWEN_TOKENS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def qwen_tokenizer(more: Sequence[str] = (), **roles: str) -> Any:
    """Qwen's byte-level tokenizer. roles: tokens that a processor asks for by name, such as `video_token`."""
    from transformers import Qwen2Tokenizer

    vocab, merges = train_bpe()
    tokenizer = Qwen2Tokenizer(
        vocab=vocab, merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=roles
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [*QWEN_TOKENS, *more]})
    return tokenizer


def gpt2_tokenizer(special: Sequence[str]) -> Any:
    from transformers import GPT2Tokenizer

    vocab, merges = train_bpe()
    tokenizer = GPT2Tokenizer(
        vocab=vocab,
        merges=merges,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    return tokenizer


def llama_tokenizer() -> Any:
    """LLaVA's: that of Llama with a token for a picture and one for a video."""
    from transformers import LlamaTokenizer

    vocab, merges = train_sentencepiece(("<unk>", "<s>", "</s>"))
    tokenizer = LlamaTokenizer(vocab=vocab, merges=merges, pad_token="<unk>", legacy=False, add_bos_token=True)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<video>", "<image>"]})
    return tokenizer


def teach(model: Any, processor: Any, ending: int, kind: str = "video") -> None:
    """Make the model name the colour that it is shown, in one sentence of `SLOTS`, and then stop.

    The residual stream of these small models is mostly the embedding of the last token, and a little of what attention
    adds: the pictures. So the head alone is fitted, to the sentence that goes with each of `COLOURS`; the words of a
    sentence follow from the word before, its colour from the pictures.

    Args:
      ending: the token that ends an answer. kind: what several frames are shown as.
    """
    import numpy as np
    import torch

    embedded = model.get_input_embeddings().weight.data
    torch.nn.init.normal_(embedded)
    states, following = [], []
    questions = [
        (kind, 4, asked("video-sentence", "")),
        (kind, 4, asked("video-sentence", "Look at the boat. " * 12)),
        ("image", 1, asked("frame-sentence", "")),
    ]
    for size, (how, count, question) in zip(SIZES, questions, strict=True):
        for number, colour in enumerate(COLOURS):
            tensors = show(processor, how, np.full((count, *size, 3), colour, np.uint8), question)
            answer = [only_token(processor.tokenizer, slot[number % len(slot)]) for slot in SLOTS]
            with torch.inference_mode():
                seen = model.eval()(**extended(tensors, answer), output_hidden_states=True).hidden_states[-1][0]
            states.append(seen[-len(answer) - 1 :])
            following += [*answer, ending]
    words, targets = torch.tensor(following).unique(return_inverse=True)
    fitted = fit_head(torch.cat(states).clone(), targets, len(words))
    head = model.get_output_embeddings().weight.data
    head.zero_()
    head[words] = fitted


def fit_head(states: Any, targets: Any, count: int) -> Any:
    """Rows (count, hidden) under which each state (n, hidden) gives its target the largest logit, by far."""
    import torch

    rows = torch.zeros(count, states.shape[1], requires_grad=True)
    solver = torch.optim.LBFGS([rows], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Any:
        solver.zero_grad()
        # The last column stands for all other tokens, whose rows are zero.
        logits = torch.cat([states @ rows.T, torch.zeros(len(states), 1)], dim=1)
        total = torch.nn.functional.cross_entropy(logits, targets) + 1e-5 * rows.square().sum()
        total.backward()
        return total

    solver.step(loss)
    return rows.detach()


def asked(name: str, subtitles: str) -> Any:
    """A built-in prompt."""
    from model_handlers.prompts import Asked, prompt

    chosen = prompt(name)
    request = chosen.request_with_text.replace("{subtitles}", subtitles) if subtitles else chosen.request
    return Asked(chosen.prompt_id, chosen.system, request, 0)


def show(processor: Any, kind: str, frames: Any, question: Any) -> dict[str, Any]:
    """The tensors of a question about frames (count, height, width, 3), a second apart."""
    count = len(frames)
    times = {"fps": 1.0, "duration": float(count), "total_num_frames": count, "frames_indices": list(range(count))}
    if kind == "video":
        seen = {"videos": [frames], "video_metadata": [times], "do_sample_frames": False}
        parts = [{"type": "video"}]
    else:
        seen, parts = {"images": [list(frames)]}, [{"type": "image"}] * count
    chat = processor.apply_chat_template(question.messages(parts), add_generation_prompt=True)
    return dict(processor(text=[chat], **seen, add_special_tokens=not chat.startswith("<bos>"), return_tensors="pt"))


def extended(tensors: dict[str, Any], answer: Sequence[int]) -> dict[str, Any]:
    """The tensors of a question with its answer."""
    import torch

    length = tensors["input_ids"].shape[1]
    more = {"input_ids": torch.tensor([list(answer)]), "attention_mask": torch.ones(1, len(answer), dtype=torch.long)}
    return {
        name: torch.cat([tensor, more.get(name, torch.zeros(1, len(answer), dtype=tensor.dtype))], dim=1)
        if tensor.shape[:2] == (1, length) and tensor.dim() == 2
        else tensor
        for name, tensor in tensors.items()
    }


def only_token(tokenizer: Any, word: str) -> int:
    # Not at the beginning of the text, where some tokenizers put a blank of their own.
    before, tokens = (tokenizer.encode(text, add_special_tokens=False) for text in ("x", f"x{word}"))
    assert tokens[:-1] == before, f"{word!r} became {len(tokens) - len(before)} tokens"
    return tokens[-1]


def decoder_sizes(tokenizer: Any) -> dict[str, Any]:
    """Configuration of a small decoder of the Llama kind."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": 0.1,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def vision_sizes() -> dict[str, int]:
    """Configuration of a small vision tower."""
    return {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": 0.3,
    }


def save(folder: pathlib.Path, model: Any, processor: Any) -> None:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
