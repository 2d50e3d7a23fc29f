"""Students that nobody trained, but that say words: other ones of each picture and of each text.

    make_wordy(tmp_path / "v1"); make_wordy(tmp_path / "v2", seed=1)

Their weights are drawn so wide that what they say hangs on all that they see; what they search for words with stands in
`generation_config.json`, as it may beside a trained one.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import tiny_student

WORDS = (
    *("amber", "barn", "canal", "dancer", "engine", "falcon", "garden", "harbour"),
    *("island", "jacket", "kettle", "ladder", "mirror", "needle"),
    *("orchard", "pillow", "quarry", "ribbon", "saddle", "temple"),
)
#: Of each caption. A word is said once, so that none is taken for a stammer.
SEARCH = {"max_new_tokens": 5, "min_new_tokens": 5, "no_repeat_ngram_size": 1}
FRAMES = 4


def make_wordy(folder: pathlib.Path, seed: int = 0, **search: Any) -> pathlib.Path:
    """Write such a student's directory, and return it. search: of its generation configuration."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    parts = folder.with_name(f"{folder.name}-parts")
    if not parts.exists():
        tokenizer = _tokenizer()
        sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2}
        tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes, **tokens)
        torch.manual_seed(0)
        llm = AutoModelForCausalLM.from_config(config)
        tiny_student._spread(llm)
        llm.save_pretrained(parts / "llm")
        tokenizer.save_pretrained(parts / "llm")
        tiny_student.make_tower(parts / "tower")
    student, inputs = tiny_student.tiny_student(parts / "llm", parts / "tower")
    torch.manual_seed(seed)
    for part in (student.qformer, student.video_qformer, student.text_qformer):
        tiny_student._spread(part)
    with torch.no_grad():
        student.video_projection.weight.normal_(std=0.5)
        # What is read shall be heard beside what is seen.
        student.text_projection.weight.normal_(std=1.0)
    student.save_pretrained(folder)
    inputs.save(folder)
    (folder / "generation_config.json").write_text(json.dumps({**SEARCH, **search}), "utf-8")
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    known = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    roles = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)
