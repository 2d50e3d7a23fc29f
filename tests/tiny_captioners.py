"""Image captioners of a few thousand weights: the classes that serve the published checkpoints, saved as those are.

    make_blip2_opt(tmp_path / "blip2")      # then CaptionerTeacher("tiny", Settings(str(tmp_path / "blip2"), frames=1))

Random weights say nothing that passes for a caption. So each model learns, in a second of training from a fixed seed,
to say one sentence of `SAID` at the sight of a plain picture of its colour in `COLOURS`. What it says therefore depends
on the picture, and a clip that got its neighbour's caption would show.
"""

from __future__ import annotations

import pathlib
import random
from typing import Any

from tiny_sentences import (
    SAID,
    built_in_prompts,
    byte_tokenizer,
    captions,
    listen,
    mute,
    teach,
    teach_language,
    told,
    unigram_tokenizer,
    wall,
    word_tokenizer,
    words,
)

WIDTH = 32
#: A picture has four patches.
SIDE = 28
QUERIES = 4


def make_blip2_opt(folder: pathlib.Path, image_token: bool = True) -> None:
    """BLIP-2 with an OPT, whose captions end with a new line; without `image_token` as published until late in 2024."""
    from transformers import OPTConfig

    tokenizer = byte_tokenizer(["<s>", "<pad>", "</s>", "<unk>"], "</s> $A", pad="<pad>", bos="</s>", eos="</s>")
    end = tokenizer("\n", add_special_tokens=False).input_ids[0]
    text = OPTConfig(
        vocab_size=len(tokenizer) + 1,
        hidden_size=WIDTH,
        word_embed_proj_dim=WIDTH,
        ffn_dim=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        dropout=0.0,
        init_std=0.1,
        eos_token_id=end,
    )
    _make_blip2(folder, tokenizer, text, opening=2, end=end, image_token=image_token)


def make_blip2_t5(folder: pathlib.Path) -> None:
    """BLIP-2 with a Flan-T5."""
    tokenizer = unigram_tokenizer()
    _make_blip2(folder, tokenizer, _t5(tokenizer), opening=1, end=1, image_token=True)


def make_blip(folder: pathlib.Path) -> None:
    """BLIP for captions."""
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipProcessor

    tokenizer = word_tokenizer("[DEC]")
    begin, end = len(tokenizer) - 1, tokenizer.sep_token_id
    text = _layers(
        num_hidden_layers=2,
        vocab_size=len(tokenizer),
        encoder_hidden_size=WIDTH,
        bos_token_id=begin,
        sep_token_id=end,
        eos_token_id=end,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=64,
        initializer_range=0.1,
    )
    config = BlipConfig(vision_config=_vision(), text_config=text, projection_dim=WIDTH)
    torch.manual_seed(0)
    model = BlipForConditionalGeneration(config)
    tokens, mask = captions(tokenizer, [begin], end)
    pixels = _pixels(_blip_pictures())
    teach(model, lambda: told(model(pixel_values=pixels, input_ids=tokens).logits, tokens, mask))
    BlipProcessor(_blip_pictures(), tokenizer).save_pretrained(folder)
    model.save_pretrained(folder)


def make_git(folder: pathlib.Path) -> None:
    """GIT for captions of pictures."""
    from transformers import CLIPImageProcessor

    pictures = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    _make_git(folder, pictures, frames=None)


def make_git_video(folder: pathlib.Path) -> None:
    """GIT as trained on VATEX: six frames, which a video processor prepares."""
    from transformers import VideoMAEImageProcessor

    pictures = VideoMAEImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    _make_git(folder, pictures, frames=6)


def make_instructblip_vicuna(folder: pathlib.Path) -> None:
    """InstructBLIP with a Vicuna."""
    from transformers import LlamaConfig

    tokenizer = byte_tokenizer(["<unk>", "<s>", "</s>", "[PAD]"], "<s> $A", pad="[PAD]", bos="<s>", eos="</s>")
    text = LlamaConfig(
        vocab_size=len(tokenizer) + 2,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.1,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    _make_instructblip(folder, tokenizer, text)


def make_instructblip_t5(folder: pathlib.Path) -> None:
    """InstructBLIP with a Flan-T5."""
    tokenizer = unigram_tokenizer()
    _make_instructblip(folder, tokenizer, _t5(tokenizer))


def make_florence2(folder: pathlib.Path) -> None:
    """Florence-2 in the layout that Transformers reads without the authors' code."""
    import torch
    from transformers import (
        BartConfig,
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    tokenizer = byte_tokenizer(["<s>", "<pad>", "</s>", "<unk>"], "<s> $A </s>", pad="<pad>", bos="<s>", eos="</s>")
    tokenizer = type(tokenizer)(
        tokenizer_object=tokenizer.backend_tokenizer,
        **{name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        extra_special_tokens={"image_token": "<image>"},
    )
    side = 32
    text = BartConfig(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=WIDTH,
        decoder_ffn_dim=WIDTH,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        max_position_embeddings=128,
        dropout=0.0,
        init_std=0.1,
    )
    vision = {
        "embed_dim": (8, 8, 16, WIDTH),
        "depths": (1, 1, 1, 1),
        "num_heads": (2, 2, 2, 2),
        "num_groups": (2, 2, 2, 2),
        "window_size": 2,
        "projection_dim": WIDTH,
        "drop_path_rate": 0.0,
        "initializer_range": 0.1,
    }
    config = Florence2Config(
        text_config=text.to_dict(), vision_config=vision, image_token_id=tokenizer.convert_tokens_to_ids("<image>")
    )
    torch.manual_seed(0)
    model = Florence2ForConditionalGeneration(config)
    # As published: an answer opens with the token that opens a text.
    model.generation_config.forced_bos_token_id = 0
    # One patch is left of the picture, and stands beside the mean of all.
    pictures = CLIPImageProcessor(size={"height": side, "width": side}, do_center_crop=False, image_seq_length=2)
    processor = Florence2Processor(pictures, tokenizer)
    asked = processor(text=["<CAPTION>"] * len(SAID), images=[wall(colour) for colour in SAID], return_tensors="pt")
    tokens, mask = captions(tokenizer, [2, 0], 2)
    teach(model, lambda: told(model(**asked, decoder_input_ids=tokens).logits, tokens, mask))
    processor.save_pretrained(folder)
    model.save_pretrained(folder)


def _make_blip2(folder: pathlib.Path, tokenizer: Any, text: Any, *, opening: int, end: int, image_token: bool) -> None:
    import torch
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor

    config = Blip2Config(
        vision_config=_vision(), qformer_config=_qformer(), text_config=text.to_dict(), num_query_tokens=QUERIES
    )
    if image_token:
        config.image_token_index = len(tokenizer)
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration(config)
    listen(model)
    pixels = _pixels(_blip_pictures())
    words = torch.full((len(SAID), 1), opening)
    teach_language(model, tokenizer, end, lambda: (model.get_image_features(pixels).pooler_output, words))
    model.save_pretrained(folder)
    if image_token:
        Blip2Processor(_blip_pictures(), tokenizer, num_query_tokens=QUERIES).save_pretrained(folder)
    else:
        tokenizer.save_pretrained(folder)
        _blip_pictures().save_pretrained(folder)


def _make_instructblip(folder: pathlib.Path, tokenizer: Any, text: Any) -> None:
    import torch
    from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration, InstructBlipProcessor

    guide = word_tokenizer()
    config = InstructBlipConfig(
        vision_config=_vision(),
        qformer_config=_qformer(vocab_size=len(guide)),
        text_config=text.to_dict(),
        num_query_tokens=QUERIES,
    )
    config.image_token_index, config.video_token_index = len(tokenizer), len(tokenizer) + 1
    torch.manual_seed(0)
    model = InstructBlipForConditionalGeneration(config)
    listen(model)
    if not model.language_model.config.is_encoder_decoder:
        mute(model.get_input_embeddings().weight, tokenizer)
    pixels = _pixels(_blip_pictures())
    draw = random.Random(0)

    def shown() -> tuple[Any, Any]:
        # Prompts of any words and any number of frames, so that the caption follows the pictures whatever is asked.
        chatter = " ".join(draw.choices(words(), k=draw.randint(5, 150)))
        asked, frames = draw.choice([*built_in_prompts(), chatter]), draw.choice((1, 4))
        guiding = torch.tensor([guide(asked).input_ids] * len(SAID))
        features = model.get_image_features(pixels, qformer_input_ids=guiding).pooler_output
        return features.repeat(1, frames, 1), torch.tensor([tokenizer(asked).input_ids] * len(SAID))

    teach_language(model, tokenizer, tokenizer.eos_token_id, shown)
    model.save_pretrained(folder)
    InstructBlipProcessor(_blip_pictures(), tokenizer, guide, num_query_tokens=QUERIES).save_pretrained(folder)


def _make_git(folder: pathlib.Path, pictures: Any, frames: int | None) -> None:
    import torch
    from transformers import GitConfig, GitForCausalLM, GitProcessor

    tokenizer = word_tokenizer()
    config = GitConfig(
        **_layers(num_hidden_layers=1),
        vision_config=_vision(),
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        num_image_with_embedding=frames,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
    )
    torch.manual_seed(0)
    model = GitForCausalLM(config)
    tokens, mask = captions(tokenizer, [tokenizer.cls_token_id], tokenizer.sep_token_id)
    seen = [[wall(colour)] * (frames or 1) for colour in SAID]
    pixels = torch.stack([pictures(several, return_tensors="pt")["pixel_values"].flatten(0, -4) for several in seen])
    pixels = pixels if frames else pixels[:, 0]
    length = tokens.shape[1]
    teach(model, lambda: told(model(input_ids=tokens, pixel_values=pixels).logits[:, -length:], tokens, mask))
    GitProcessor(pictures, tokenizer).save_pretrained(folder)
    model.save_pretrained(folder)


def _layers(**more: Any) -> dict[str, Any]:
    return {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 2, **more}


def _vision() -> dict[str, Any]:
    return _layers(num_hidden_layers=1, image_size=SIDE, patch_size=SIDE // 2, initializer_range=0.1)


def _qformer(vocab_size: int = 8) -> dict[str, Any]:
    return _layers(
        num_hidden_layers=2,
        vocab_size=vocab_size,
        encoder_hidden_size=WIDTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.2,
    )


def _t5(tokenizer: Any) -> Any:
    from transformers import T5Config

    return T5Config(
        vocab_size=len(tokenizer) + 2,
        d_model=WIDTH,
        d_kv=WIDTH // 2,
        d_ff=WIDTH,
        num_layers=1,
        num_decoder_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
        tie_word_embeddings=False,
    )


def _blip_pictures() -> Any:
    from transformers import BlipImageProcessor

    return BlipImageProcessor(size={"height": SIDE, "width": SIDE})


def _pixels(pictures: Any) -> Any:
    return pictures([wall(colour) for colour in SAID], return_tensors="pt")["pixel_values"]
