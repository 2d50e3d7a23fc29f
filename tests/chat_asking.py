"""A tiny checkpoint of every family of chat models, and a teacher that speaks through it.

handler = teacher(checkpoint("smolvlm"), frames=1)      # `checkpoint` is a fixture: checkpoint = chat_asking.checkpoint
captions(handler, clips)                                # ["A ...", Failure(...)]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import tiny_chat
import tiny_llava

from model_handlers.chat_teacher import ChatTeacher
from model_handlers.settings import Settings
from transforms.records import Clip, Failure

MAKERS = {
    "qwen2.5-vl": tiny_chat.make_qwen2_5_vl,
    "qwen3-vl": tiny_chat.make_qwen3_vl,
    "smolvlm": tiny_chat.make_smolvlm,
    "internvl": tiny_chat.make_internvl,
    "llava-next-video": tiny_llava.make_llava_next_video,
    "video-llava": tiny_llava.make_video_llava,
    "video-llama-3": tiny_chat.make_video_llama_3,
    "llava-onevision": tiny_llava.make_llava_onevision,
    "gemma3": tiny_chat.make_gemma3,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The directory of a family's tiny checkpoint, made when it is first asked for."""
    made: dict[str, str] = {}

    def make(family: str) -> str:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            MAKERS[family](folder)
            made[family] = str(folder)
        return made[family]

    return make


def teacher(weights: str, **changes: Any) -> ChatTeacher:
    """A teacher over a checkpoint, which sees four frames unless told."""
    return ChatTeacher("tiny", Settings(weights, **{"frames": 4, "max_new_tokens": 16, **changes}))


def captions(handler: ChatTeacher, clips: Sequence[Clip]) -> list[str | Failure | None]:
    """The answer to each clip, or why there is none."""
    return [told.answer or told.failure for told in handler.run_inference(clips, handler.load_model())]
