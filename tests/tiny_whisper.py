"""A tiny Whisper of the real classes that says the same of every window, whatever it hears.

    make_whisper(folder, ["<|0.00|>", " A", " boat", "<|2.00|>"])

Its layers add nothing, and the embedding of each place is that of the token which comes next: so what it says is known,
while features, language detection, timestamp rules and decoding are Transformers' own.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import tiny_words

LANGUAGES = ("en", "de", "fr")
SPECIAL = [
    *("<|endoftext|>", "<|startoftranscript|>", *(f"<|{language}|>" for language in LANGUAGES)),
    *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
]
TIMES = [f"<|{number * 0.02:.2f}|>" for number in range(1501)]
WIDTH, POSITIONS = 64, 64


def make_whisper(folder: pathlib.Path, says: Sequence[str], multilingual: bool = True) -> str:
    """Write the checkpoint. says: tokens of a window, behind language and task; its end is added."""
    import torch
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
    )

    tokenizer = _tokenizer()
    number = tokenizer.convert_tokens_to_ids
    sizes = {"d_model": WIDTH, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    special = {"pad_token_id": number("<|endoftext|>"), "eos_token_id": number("<|endoftext|>")}
    special |= {"bos_token_id": number("<|endoftext|>"), "decoder_start_token_id": number("<|startoftranscript|>")}
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        max_target_positions=POSITIONS,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        **sizes,
        **special,
    )
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    _teach(model, [number(token) for token in (["<|en|>", "<|transcribe|>"] if multilingual else [])], number, says)
    named = {"no_timestamps_token_id": number("<|notimestamps|>"), "is_multilingual": multilingual}
    if multilingual:
        named["lang_to_id"] = {f"<|{language}|>": number(f"<|{language}|>") for language in LANGUAGES}
        named["task_to_id"] = {task: number(f"<|{task}|>") for task in ("transcribe", "translate")}
    model.generation_config = GenerationConfig(
        **special, **named, max_initial_timestamp_index=50, suppress_tokens=[], begin_suppress_tokens=[]
    )
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    return str(folder)


def _teach(model: Any, prompt: list[int], number: Any, says: Sequence[str]) -> None:
    """Make the token of each place follow from the place alone."""
    import torch

    decoder = model.model.decoder
    following = [*prompt, *map(number, says), number("<|endoftext|>")]
    with torch.no_grad():
        for name, parameter in decoder.layers.named_parameters():
            if name.endswith(("out_proj.weight", "out_proj.bias", "fc2.weight", "fc2.bias")):
                parameter.zero_()
        embedded = decoder.embed_tokens.weight.normal_()
        places = decoder.embed_positions.weight
        places.copy_(20 * embedded[number("<|endoftext|>")])
        places[: len(following)] = 20 * embedded[following]


def _tokenizer() -> Any:
    from transformers import WhisperTokenizer

    vocab, merges = tiny_words.train_bpe()
    words = dict(sorted(vocab.items(), key=lambda pair: pair[1]))
    tokenizer = WhisperTokenizer(vocab=words, merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.add_tokens(TIMES)
    return tokenizer
