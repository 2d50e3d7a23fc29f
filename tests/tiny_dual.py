"""Tiny embedders and selectors of the same classes as the real ones, with real tokenizers and processors.

    make_clip(tmp_path / "clip")          # loaded as any checkpoint: Settings(weights=str(tmp_path / "clip"))

The weights are random, seeded, and spread as in a trained network: at the usual initialisation a tiny network would
give nearly the same vector to every picture, and a mix-up of clips would not show. Scores are junk, but theirs alone.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

LINES = [
    "A cat sits on the sofa and looks at the camera.",
    "Two dogs run across a green field near the river.",
    "A man is cooking onions in a kitchen, then he eats them.",
    "A red car drives along the street at night.",
    "The woman talks about the weather while it rains.",
]
SIDE, PATCH, WIDTH = 32, 8, 32


def make_clip(folder: pathlib.Path) -> None:
    """CLIP as OpenAI and LAION publish it: shortest side resized, centre cropped, 77 tokens."""
    from transformers import CLIPConfig, CLIPModel

    tokenizer = _clip_tokenizer()
    text = _text_sizes(tokenizer) | {"projection_dim": 16}
    config = CLIPConfig(text_config=text, vision_config=_vision_sizes(), projection_dim=16)
    _save(folder, CLIPModel, config, tokenizer, _clip_image_processor())


def make_siglip(folder: pathlib.Path) -> None:
    """SigLIP 2 of fixed resolution: SigLIP's classes with Gemma's tokenizer, 64 tokens, padded on the right."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    tokenizer = _gemma_tokenizer()
    config = SiglipConfig(text_config=_text_sizes(tokenizer), vision_config=_vision_sizes("projection_dim"))
    processor = SiglipImageProcessor(size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    _save(folder, SiglipModel, config, tokenizer, processor, logit_scale=2.3, logit_bias=-3.0)


def make_siglip2_naflex(folder: pathlib.Path) -> None:
    """SigLIP 2 that keeps a picture's aspect: as many patches as fit, with a mask."""
    from transformers import Siglip2Config, Siglip2ImageProcessor, Siglip2Model

    tokenizer = _gemma_tokenizer()
    vision = _vision_sizes("projection_dim", "image_size") | {"num_patches": 16}
    config = Siglip2Config(text_config=_text_sizes(tokenizer), vision_config=vision)
    processor = Siglip2ImageProcessor(patch_size=PATCH, max_num_patches=16)
    _save(folder, Siglip2Model, config, tokenizer, processor, logit_scale=2.3, logit_bias=-3.0)


def make_dinov2(folder: pathlib.Path) -> None:
    """DINOv2: no text; resized, then centre cropped to less than it was trained at."""
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    config = Dinov2Config(
        image_size=48, patch_size=PATCH, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2
    )
    crop = {"height": SIDE, "width": SIDE}
    _save(folder, Dinov2Model, config, None, BitImageProcessor(size={"shortest_edge": 40}, crop_size=crop))


def make_dinov3(folder: pathlib.Path) -> None:
    """DINOv3 (ViT): no text, no crop, register tokens behind the class token."""
    from transformers import DINOv3ViTConfig, DINOv3ViTImageProcessor, DINOv3ViTModel

    sizes = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = DINOv3ViTConfig(image_size=SIDE, patch_size=PATCH, num_register_tokens=4, **sizes)
    _save(folder, DINOv3ViTModel, config, None, DINOv3ViTImageProcessor(size={"height": SIDE, "width": SIDE}))


def make_xclip(folder: pathlib.Path) -> None:
    """X-CLIP: four frames, whose text features are prompted by the video."""
    from transformers import VideoMAEImageProcessor, XCLIPConfig, XCLIPModel

    tokenizer = _clip_tokenizer()
    mit = {"mit_hidden_size": 16, "mit_intermediate_size": 32, "mit_num_attention_heads": 2, "num_frames": 4}
    config = XCLIPConfig(
        text_config=_text_sizes(tokenizer),
        vision_config=_vision_sizes("projection_dim") | mit,
        projection_dim=16,
        prompt_num_attention_heads=2,
        # Ten times the published start, so that the video's say in the text features shows.
        prompt_alpha=1.0,
    )
    crop = {"height": SIDE, "width": SIDE}
    processor = VideoMAEImageProcessor(size={"shortest_edge": SIDE}, crop_size=crop)
    _save(folder, XCLIPModel, config, tokenizer, processor)


def make_videoprism(folder: pathlib.Path) -> None:
    """VideoPrism's video-text model: four frames, squeezed, 64 tokens without an end token."""
    from transformers import LlavaOnevisionVideoProcessor, VideoPrismClipModel, VideoPrismConfig, VideoPrismProcessor

    tokenizer = _videoprism_tokenizer()
    vision = {
        **{"image_size": SIDE, "num_frames": 4, "tubelet_size": [1, PATCH, PATCH], "hidden_size": WIDTH},
        **{"num_attention_heads": 2, "intermediate_size": 64, "num_spatial_layers": 1, "num_temporal_layers": 1},
        "num_auxiliary_layers": 1,
    }
    size = {"height": SIDE, "width": SIDE}
    videos = LlavaOnevisionVideoProcessor(size=size, do_normalize=False, do_sample_frames=True, num_frames=4)
    processor = VideoPrismProcessor(videos, tokenizer)
    config = VideoPrismConfig(text_config=_text_sizes(tokenizer), vision_config=vision)
    _save(folder, VideoPrismClipModel, config, None, processor)


def make_siglip_of_2023(folder: pathlib.Path) -> None:
    """The first SigLIP, whose tokenizer is SentencePiece's (a package that it needs), without punctuation."""
    import sentencepiece
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    # As in T5's vocabulary: 0 pads there, 1 ends a text and pads it here.
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(map(str.lower, LINES * 5)),
        model_prefix=str(folder / "spiece"),
        vocab_size=50,
        **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "minloglevel": 2},
    )
    tokenizer = SiglipTokenizer(str(folder / "spiece.model"))
    config = SiglipConfig(text_config=_text_sizes(tokenizer), vision_config=_vision_sizes("projection_dim"))
    processor = SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
    _save(folder, SiglipModel, config, tokenizer, processor, logit_scale=2.3, logit_bias=-3.0)


def make_pe_video(folder: pathlib.Path) -> None:
    """Perception Encoder's video-text model; its pictures go through the package timm, which it needs."""
    from transformers import PeVideoConfig, PeVideoModel, PeVideoProcessor, PeVideoVideoProcessor

    tokenizer = _bert_tokenizer()
    timm = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": 1, "num_heads": 2}
    vision = {
        **{"model_type": "timm_wrapper", "architecture": "vit_pe_core_tiny_patch16_384", "num_classes": 16},
        **{"do_pooling": True, "global_pool": "map", "model_args": timm | {"ref_feat_shape": (4, 4)}},
    }
    video = _sizes() | {"vision_config": vision, "head_dim": 16, "num_hidden_layers": 1}
    special = {"pad_token_id": 0, "cls_token_id": 2, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3}
    text = _text_sizes(tokenizer) | {"model_type": "modernbert", "max_position_embeddings": 64} | special
    size = {"height": SIDE, "width": SIDE}
    steps = dict.fromkeys(["do_resize", "do_rescale", "do_normalize", "do_sample_frames"], True)
    videos = PeVideoVideoProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3, **steps)
    processor = PeVideoProcessor(videos, tokenizer)
    config = PeVideoConfig(text_config=text, video_config=video)
    values = {"text_video_logit_scale": 0.02, "text_video_logit_bias": -0.5}
    _save(folder, PeVideoModel, config, None, processor, **values)


def _vision_sizes(*without: str) -> dict[str, Any]:
    sizes = _sizes() | {"image_size": SIDE, "patch_size": PATCH, "projection_dim": 16}
    return {name: value for name, value in sizes.items() if name not in without}


def _text_sizes(tokenizer: Any) -> dict[str, Any]:
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    return _sizes() | special | {"vocab_size": len(tokenizer), "max_position_embeddings": tokenizer.model_max_length}


def _sizes() -> dict[str, Any]:
    return {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def _save(folder: pathlib.Path, kind: Any, config: Any, tokenizer: Any, processor: Any, **values: float) -> None:
    """Write a checkpoint; `values` are parameters of one number each."""
    import torch

    torch.manual_seed(0)
    model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=1.5 / parameter[0].numel() ** 0.5)
        for name, value in values.items():
            getattr(model, name).fill_(value)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _clip_image_processor() -> Any:
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def _clip_tokenizer() -> Any:
    """Byte-level pairs whose last piece of a word ends in `</w>`; the special tokens have the highest numbers."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator(LINES, trainer)
    merges = _merges(trained)
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def _gemma_tokenizer() -> Any:
    """Pairs over "▁" for a blank, bytes for what is unknown, `<eos>` behind each text; it keeps capitals apart."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import GemmaTokenizer

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False)
    trained.train_from_iterator([*LINES, *map(str.lower, LINES)], trainer)
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    learned = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    vocabulary = {token: number for number, token in enumerate([*special, *learned])}
    return GemmaTokenizer(
        vocab=vocabulary, merges=_merges(trained), model_max_length=64, add_bos_token=False, add_eos_token=True
    )


def _videoprism_tokenizer() -> Any:
    """Pieces with probabilities, as in T5, and nothing behind a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import VideoPrismTokenizer

    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False)
    trained.train_from_iterator(map(str.lower, LINES), trainer)
    vocabulary = [(token, score) for token, score in _model_of(trained)["vocab"]]
    return VideoPrismTokenizer(vocab=vocabulary, extra_ids=0, model_max_length=64)


def _bert_tokenizer() -> Any:
    """Whole words between `[CLS]` and `[SEP]`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trained.train_from_iterator(LINES, trainers.WordLevelTrainer(special_tokens=special, show_progress=False))
    trained.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=trained, model_max_length=64, **named)


def _merges(trained: Any) -> list[tuple[str, str]]:
    return [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in _model_of(trained)["merges"]]


def _model_of(trained: Any) -> dict[str, Any]:
    return json.loads(trained.to_str())["model"]
