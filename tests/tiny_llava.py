"""Tiny LLaVAs: LLaVA-NeXT-Video, Video-LLaVA and LLaVA-OneVision, in the form in which they are published.

make_video_llava(tmp_path / "video-llava")
"""

from __future__ import annotations

import pathlib

from tiny_words import decoder_sizes, llama_tokenizer, qwen_tokenizer, save, teach, vision_sizes

LLAVA_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'][0]['text'] }} "
    "{% else %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>\n' }}{% endfor %}"
    "{% if message['role'] != 'system' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def make_llava_next_video(folder: pathlib.Path) -> None:
    """LLaVA-NeXT-Video: Vicuna's form, frames pooled, an image in tiles."""
    import torch
    from transformers import (
        LlavaNextImageProcessor,
        LlavaNextVideoConfig,
        LlavaNextVideoForConditionalGeneration,
        LlavaNextVideoProcessor,
        LlavaNextVideoVideoProcessor,
    )

    torch.manual_seed(0)
    tokenizer = llama_tokenizer()
    square, pinpoints = {"height": 32, "width": 32}, [[32, 64], [64, 32], [64, 64]]
    processor = LlavaNextVideoProcessor(
        LlavaNextVideoVideoProcessor(size={"shortest_edge": 32}, crop_size=square),
        LlavaNextImageProcessor(size={"shortest_edge": 32}, crop_size=square, image_grid_pinpoints=pinpoints),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )
    config = LlavaNextVideoConfig(
        text_config={"model_type": "llama", **decoder_sizes(tokenizer)},
        vision_config={"model_type": "clip_vision_model", **vision_sizes(), "image_size": 32, "patch_size": 8},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
    )
    model = LlavaNextVideoForConditionalGeneration(config)
    teach(model, processor, tokenizer.eos_token_id)
    save(folder, model, processor)


def make_video_llava(folder: pathlib.Path) -> None:
    """Video-LLaVA as first published: Vicuna's form, and no chat template."""
    import torch
    from transformers import (
        VideoLlavaConfig,
        VideoLlavaForConditionalGeneration,
        VideoLlavaImageProcessor,
        VideoLlavaProcessor,
        VideoLlavaVideoProcessor,
    )

    torch.manual_seed(0)
    tokenizer = llama_tokenizer()
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = VideoLlavaProcessor(
        VideoLlavaImageProcessor(**sizes),
        VideoLlavaVideoProcessor(**sizes),
        tokenizer,
        patch_size=8,
        chat_template=LLAVA_TEMPLATE,
    )
    config = VideoLlavaConfig(
        text_config={"model_type": "llama", **decoder_sizes(tokenizer)},
        vision_config={"model_type": "clip_vision_model", **vision_sizes(), "image_size": 32, "patch_size": 8},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
    )
    model = VideoLlavaForConditionalGeneration(config)
    teach(model, processor, tokenizer.eos_token_id)
    processor.chat_template = None
    save(folder, model, processor)


ONEVISION_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + content['text'] }}"
    "{% endfor %}{{'<|im_end|>'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_llava_onevision(folder: pathlib.Path) -> None:
    """LLaVA-OneVision: SigLIP and Qwen2, frames pooled, one image in tiles and several without."""
    import torch
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    torch.manual_seed(0)
    tokenizer = qwen_tokenizer(["<image>", "<video>"])
    size, pinpoints = {"height": 32, "width": 32}, [[32, 32], [32, 64], [64, 32], [64, 64]]
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=pinpoints),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=ONEVISION_TEMPLATE,
    )
    config = LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **decoder_sizes(tokenizer)},
        vision_config={
            "model_type": "siglip_vision_model",
            **vision_sizes(),
            "image_size": 32,
            "patch_size": 8,
            "vision_use_head": False,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
    )
    model = LlavaOnevisionForConditionalGeneration(config)
    teach(model, processor, tokenizer.eos_token_id)
    save(folder, model, processor)
