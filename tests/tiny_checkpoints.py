"""A tiny checkpoint for every entry of the catalogue: the same classes, made by the tests.

changes = write_checkpoint("qwen3-vl-8b", folder)       # {"weights": ...}, for Entry.changed or a profile
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable
from typing import Any

import tiny_captioners
import tiny_chat
import tiny_dual
import tiny_llava
import umt_weights_maker
import wordy_student

from model_handlers.umt_network import UmtSizes

#: By the beginning of an entry's name, the longest first.
MAKERS: dict[str, Callable[[pathlib.Path], None]] = {
    "blip2-opt": tiny_captioners.make_blip2_opt,
    "blip2-flan": tiny_captioners.make_blip2_t5,
    "blip-": tiny_captioners.make_blip,
    "git-base-vatex": tiny_captioners.make_git_video,
    "git-": tiny_captioners.make_git,
    "instructblip-flan": tiny_captioners.make_instructblip_t5,
    "instructblip-": tiny_captioners.make_instructblip_vicuna,
    "florence2": tiny_captioners.make_florence2,
    "video-llava": tiny_llava.make_video_llava,
    "videollama3": tiny_chat.make_video_llama_3,
    "internvl3": tiny_chat.make_internvl,
    "qwen2.5-7b-tags": tiny_chat.make_qwen2,
    "qwen3-4b-tags": tiny_chat.make_qwen2,
    "qwen3-vl": tiny_chat.make_qwen3_vl,
    "qwen2.5-vl": tiny_chat.make_qwen2_5_vl,
    "llava-next-video": tiny_llava.make_llava_next_video,
    "llava-onevision": tiny_llava.make_llava_onevision,
    "student": wordy_student.make_wordy,
    "gemma3": tiny_chat.make_gemma3,
    "smolvlm2": tiny_chat.make_smolvlm,
    "clip-": tiny_dual.make_clip,
    "siglip": tiny_dual.make_siglip,
    "dinov2": tiny_dual.make_dinov2,
    "dinov3": tiny_dual.make_dinov3,
    "xclip": tiny_dual.make_xclip,
    "videoprism": tiny_dual.make_videoprism,
}

#: As the published checkpoints where nothing in the file tells it: 224 pixels, heads of 64.
UMT_SIZES = UmtSizes(
    video_width=64,
    video_layers=1,
    text_width=64,
    text_layers=2,
    fusion_layer=1,
    embed_width=16,
    patch=16,
    vocabulary=len(umt_weights_maker.VOCABULARY),
    positions=40,
    side=224,
    head_width=64,
)


def maker_of(name: str) -> Callable[[pathlib.Path], None]:
    """What makes a checkpoint of an entry's class."""
    return MAKERS[max((start for start in MAKERS if name.startswith(start)), key=len)]


def write_checkpoint(name: str, folder: pathlib.Path) -> dict[str, Any]:
    """Write a tiny checkpoint for an entry; returns the settings that name it."""
    if name.startswith("umt"):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "umt.pth"
        sha256 = umt_weights_maker.write_checkpoint(path, umt_weights_maker.retrieval_tensors(UMT_SIZES))
        tokenizer = umt_weights_maker.write_tokenizer(folder / "tokenizer")
        return {"weights": str(path), "sha256": sha256, "tokenizer": tokenizer}
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        maker_of(name)(folder)
    return {"weights": str(folder)}


def folder_name(name: str) -> str:
    """One folder for all entries of a class."""
    return re.sub(r"\W", "_", maker_of(name).__name__ if not name.startswith("umt") else "umt")
