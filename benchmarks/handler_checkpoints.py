"""Checkpoints of random weights in the sizes of real models, for `benchmarks/handlers.py`.

    folder = checkpoint("blip2-opt-2.7b", "full", pathlib.Path("scratch"), "cuda")      # made once, then found again

Classes, configurations, image sizes and vocabularies are those of the published models, so that a batch costs what it
costs there. Random weights end an answer at once or never; these never do, since the head's row of each token that ends
one is zero, and of many random logits the largest is above it. So every answer has as many tokens as it may have.
`small` has the same parts and a few hundred thousand weights.
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

SIZES = ("full", "small")
#: As published checkpoints are cut; the largest of these has nine.
SHARD = "2GB"

#: `Salesforce/blip2-opt-2.7b`.
BLIP2 = {
    "full": {
        "vision": {
            **{"hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39, "num_attention_heads": 16},
            **{"image_size": 224, "patch_size": 14},
        },
        "qformer": {"vocab_size": 30522},
        "text": {
            **{"hidden_size": 2560, "word_embed_proj_dim": 2560, "ffn_dim": 10240, "num_hidden_layers": 32},
            **{"num_attention_heads": 32, "vocab_size": 50304},
        },
        "queries": 32,
    },
    "small": {
        "vision": {
            **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
            **{"image_size": 56, "patch_size": 14},
        },
        "qformer": {
            **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
            **{"encoder_hidden_size": 32, "vocab_size": 8},
        },
        "text": {
            **{"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2},
            **{"num_attention_heads": 2, "vocab_size": 2048},
        },
        "queries": 4,
    },
}
#: `Qwen/Qwen2.5-VL-7B-Instruct`.
QWEN = {
    "full": {
        "vision": {
            **{"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584},
            **{"fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2},
        },
        "text": {
            **{"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
            **{"num_key_value_heads": 4, "max_position_embeddings": 128_000, "rms_norm_eps": 1e-6},
            "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1_000_000.0},
            "vocab_size": 152_064,
        },
        "known": 151_643,
        "pixels": {"shortest_edge": 56 * 56, "longest_edge": 14 * 14 * 4 * 16_384},
    },
    "small": {
        "vision": {
            **{"depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 64},
            "fullatt_block_indexes": [1],
        },
        "text": {
            **{"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
            **{"num_key_value_heads": 2, "max_position_embeddings": 4096},
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10_000.0},
            "vocab_size": 2056,
        },
        "known": 2048,
        "pixels": {"shortest_edge": 56 * 56, "longest_edge": 84 * 84},
    },
}
#: `laion/CLIP-ViT-H-14-laion2B-s32B-b79K`.
CLIP = {
    "full": {
        "vision": {
            **{"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16},
            **{"image_size": 224, "patch_size": 14},
        },
        "text": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
        "projection": 1024,
    },
    "small": {
        "vision": {
            **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
            **{"image_size": 56, "patch_size": 14},
        },
        "text": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
        "projection": 16,
    },
}

# What the tests make their tiny checkpoints and reels of serves here as well; it is imported where it is used.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "tests"))


def checkpoint(model: str, size: str, work: pathlib.Path, device: str) -> pathlib.Path:
    """The folder of a model's checkpoint below `work`; written aside and renamed, so that one that is there is whole.

    Args:
      model: one of `MAKERS`. size: one of `SIZES`. device: where its weights are drawn; a GPU does it in no time.
    """
    folder = work / f"{model}-{size}"
    if not folder.is_dir():
        aside = work / f".{folder.name}.{os.getpid()}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            MAKERS[model](aside, size, device)
            os.replace(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def gigabytes(folder: pathlib.Path) -> float:
    """Of weights on the disk."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e9


def make_blip2(folder: pathlib.Path, size: str, device: str) -> None:
    """BLIP-2 with an OPT, whose captions end with a new line."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration, BlipImageProcessor, OPTConfig

    sizes: Mapping[str, Any] = BLIP2[size]
    vocabulary, merges = byte_pairs(["<s>", "<pad>", "</s>", "<unk>"], sizes["text"]["vocab_size"])
    _fast_tokenizer(vocabulary, merges).save_pretrained(folder)
    side = sizes["vision"]["image_size"]
    BlipImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    end = vocabulary["Ċ"]
    config = Blip2Config(
        vision_config=sizes["vision"],
        qformer_config=sizes["qformer"],
        text_config=OPTConfig(**sizes["text"], eos_token_id=end).to_dict(),
        num_query_tokens=sizes["queries"],
    )
    write(Blip2ForConditionalGeneration, config, folder, device, {"language_model.lm_head": [end]})


def make_qwen(folder: pathlib.Path, size: str, device: str) -> None:
    """Qwen2.5-VL, which keeps the reel's 448 pixels: 224 tokens and more for each frame of a wide film."""
    from tiny_chat import QWEN_TEMPLATE, qwen_token_ids
    from tiny_words import QWEN_TOKENS
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2Tokenizer,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    sizes: Mapping[str, Any] = QWEN[size]
    vocabulary, merges = byte_pairs([], sizes["known"])
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": list(QWEN_TOKENS)})
    pictures, videos = Qwen2VLImageProcessor(size=sizes["pixels"]), Qwen2VLVideoProcessor(size=sizes["pixels"])
    Qwen2_5_VLProcessor(pictures, tokenizer, videos, chat_template=QWEN_TEMPLATE).save_pretrained(folder)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = Qwen2_5_VLConfig(
        text_config={**sizes["text"], **ends}, vision_config=sizes["vision"], **qwen_token_ids(tokenizer)
    )
    # As published: either token ends an answer.
    stops = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    asked = {"eos_token_id": stops, "pad_token_id": stops[1], "repetition_penalty": 1.05}
    write(Qwen2_5_VLForConditionalGeneration, config, folder, device, {"lm_head": stops}, asked)


def make_clip(folder: pathlib.Path, size: str, device: str) -> None:
    """CLIP, of which the embedder loads the half that sees."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    sizes: Mapping[str, Any] = CLIP[size]
    projection, side = {"projection_dim": sizes["projection"]}, sizes["vision"]["image_size"]
    square = {"height": side, "width": side}
    CLIPImageProcessor(size={"shortest_edge": side}, crop_size=square).save_pretrained(folder)
    halves = {f"{half}_config": sizes[half] | projection for half in ("vision", "text")}
    write(CLIPModel, CLIPConfig(**halves, **projection), folder, device)


def make_umt(folder: pathlib.Path, size: str, device: str) -> None:
    """Unmasked Teacher: `model.safetensors`, and the tokenizer in the folder itself."""
    import safetensors.torch
    import torch
    from umt_weights_maker import VOCABULARY, write_tokenizer

    from model_handlers.umt_network import L16, UmtSizes
    from model_handlers.umt_weights import layout

    # No tensor tells the side of a picture and the width of a head: both are as published in the small one as well.
    small = UmtSizes(64, 2, 64, 3, fusion_layer=2, embed_width=32, patch=32, vocabulary=len(VOCABULARY), positions=64)
    sizes = L16 if size == "full" else small
    known = (*VOCABULARY, *itertools.islice(invented(), sizes.vocabulary))[: sizes.vocabulary]
    write_tokenizer(folder, known)
    drawn = {}
    for name, shape in layout(sizes).items():
        tensor = torch.empty(shape, dtype=torch.bfloat16, device=device)
        draw(name, tensor)
        drawn[name] = tensor.cpu()
    safetensors.torch.save_file(drawn, str(folder / "model.safetensors"))


MAKERS: dict[str, Callable[[pathlib.Path, str, str], None]] = {
    "blip2-opt-2.7b": make_blip2,
    "qwen2.5-vl-7b": make_qwen,
    "clip-vit-h": make_clip,
    "umt-l16": make_umt,
}


def write(
    kind: Any,
    config: Any,
    folder: pathlib.Path,
    device: str,
    silent: Mapping[str, Sequence[int]] | None = None,
    generation: Mapping[str, Any] | None = None,
) -> None:
    """Draw the weights of a model of Transformers and save it.

    Args:
      kind, config: its class and configuration. silent: by the name of a head, the tokens that it shall never say.
      generation: what its generation configuration says beside what the class does.
    """
    import torch

    torch.manual_seed(0)
    with torch.device("meta"):
        model = kind(config)
    model = model.to(torch.bfloat16).to_empty(device=device)
    # On the way here a head and the words that it shares its weights with became two.
    model.tie_weights()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw(name, parameter)
        for head, tokens in (silent or {}).items():
            model.get_submodule(head).weight[list(tokens)] = 0.0
    if generation:
        model.generation_config.update(**generation)
    model.save_pretrained(folder, max_shard_size=SHARD)


def draw(name: str, tensor: Any) -> None:
    """Fill a tensor as at the start of training: normalisations pass on what they get, biases add nothing."""
    if tensor.dim() == 1 and name.endswith(".weight"):
        tensor.fill_(1.0)
    elif name.endswith("bias"):
        tensor.zero_()
    else:
        tensor.normal_(0.0, 0.02)


def byte_pairs(special: Sequence[str], count: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level tokenizer that has learnt the built-in prompts.

    Args:
      special: the first tokens. count: of all tokens; invented words fill it up, and so an answer has words.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    from model_handlers import prompts

    words = pathlib.Path(prompts.__file__).with_suffix(".yaml").read_text("utf-8")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=min(count, 2000),
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(words.splitlines(), trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = learnt["vocab"]
    more = (f"Ġ{word}" for word in invented())
    while len(vocabulary) < count:
        vocabulary.setdefault(next(more), len(vocabulary))
    return vocabulary, [tuple(pair) for pair in learnt["merges"]]


def invented() -> Any:
    """Words that nobody says, a million of them."""
    syllables = ["".join(pair) for pair in itertools.product("bcdfghjklmnpqrstvwxz", "aeiou")]
    return map("".join, itertools.product(syllables, repeat=3))


def _fast_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    """A byte-level tokenizer as OPT has it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    named = {"pad_token": "<pad>", "bos_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
