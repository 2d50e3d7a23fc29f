"""Tiny chat models in the form in which the families publish theirs: Qwen-VL, SmolVLM, InternVL and others.

    make_qwen2_5_vl(tmp_path / "qwen")          # what AutoModelForImageTextToText and AutoProcessor load

Each maker saves a model, a processor, a trained tokenizer and the family's chat template.
"""

from __future__ import annotations

import pathlib
from typing import Any

from tiny_words import (
    HIDDEN,
    SLOTS,
    decoder_sizes,
    gpt2_tokenizer,
    only_token,
    qwen_tokenizer,
    save,
    teach,
    train_sentencepiece,
    vision_sizes,
)

#: As Qwen2-VL and its successors publish it, without tools.
QWEN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_qwen2_5_vl(folder: pathlib.Path) -> None:
    """Qwen2.5-VL: flattened patches of any size, times as rotary positions."""
    import torch
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    size = {"shortest_edge": 56 * 56, "longest_edge": 84 * 84}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(size=size), tokenizer, Qwen2VLVideoProcessor(size=size), chat_template=QWEN_TEMPLATE
    )
    config = Qwen2_5_VLConfig(
        text_config={
            **decoder_sizes(tokenizer),
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10_000.0},
        },
        vision_config={**qwen_vision_sizes(), "fullatt_block_indexes": [1]},
        **qwen_token_ids(tokenizer),
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    teach(model, processor, tokenizer.eos_token_id)
    # As published.
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.generation_config.update(eos_token_id=ends, pad_token_id=ends[1], repetition_penalty=1.05)
    save(folder, model, processor)


def qwen_vision_sizes() -> dict[str, int]:
    return {"depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": HIDDEN}


def qwen_token_ids(tokenizer: Any) -> dict[str, int]:
    tokens = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in tokens.items()}


SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}"
    "{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}"
    "{% elif line['type'] == 'video' %}{{ '<video>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def make_smolvlm(folder: pathlib.Path) -> None:
    """SmolVLM2: frames squeezed to one size, each with its time in words; an image in tiles."""
    import torch
    from transformers import (
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    torch.manual_seed(0)
    tokenizer = gpt2_tokenizer(
        ["<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>"]
        + [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    )
    small, large = {"longest_edge": 32}, {"longest_edge": 64}
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(size=large, max_image_size=small),
        tokenizer,
        SmolVLMVideoProcessor(
            max_image_size=small, size=small, video_sampling={"fps": 1, "max_frames": 64, "video_size": small}
        ),
        image_seq_len=4,
        chat_template=SMOLVLM_TEMPLATE,
    )
    config = SmolVLMConfig(
        text_config={"model_type": "llama", **decoder_sizes(tokenizer)},
        vision_config={**vision_sizes(), "image_size": 32, "patch_size": 8},
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = SmolVLMForConditionalGeneration(config)
    teach(model, processor, tokenizer.eos_token_id)
    save(folder, model, processor)


def make_qwen3_vl(folder: pathlib.Path) -> None:
    """Qwen3-VL: flattened patches, the time of every pair of frames in words."""
    import torch
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    processor = Qwen3VLProcessor(
        Qwen2VLImageProcessor(patch_size=16, size={"shortest_edge": 64 * 64, "longest_edge": 96 * 96}),
        tokenizer,
        Qwen3VLVideoProcessor(size={"shortest_edge": 4 * 64 * 64, "longest_edge": 4 * 96 * 96}),
        chat_template=QWEN_TEMPLATE,
    )
    config = Qwen3VLConfig(
        text_config={
            **decoder_sizes(tokenizer),
            "head_dim": 16,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
                "rope_theta": 10_000.0,
            },
        },
        vision_config={
            **qwen_vision_sizes(),
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        **qwen_token_ids(tokenizer),
    )
    model = Qwen3VLForConditionalGeneration(config)
    teach(model, processor, tokenizer.eos_token_id)
    save(folder, model, processor)


INTERNVL_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif content['type'] == 'video' %}{{ '<video>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{'<|im_end|>\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)


def make_internvl(folder: pathlib.Path) -> None:
    """InternVL 3: numbered frames of one size, an image in tiles, all of them in `pixel_values`."""
    import torch
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    torch.manual_seed(0)
    tokenizer = qwen_tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    size = {"height": 32, "width": 32}
    processor = InternVLProcessor(
        GotOcr2ImageProcessor(size=size, max_patches=4),
        tokenizer,
        InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=INTERNVL_TEMPLATE,
    )
    config = InternVLConfig(
        text_config={"model_type": "qwen2", **decoder_sizes(tokenizer)},
        vision_config={**vision_sizes(), "image_size": 32, "patch_size": 8},
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    model = InternVLForConditionalGeneration(config)
    teach(model, processor, tokenizer.eos_token_id)
    save(folder, model, processor)


def make_video_llama_3(folder: pathlib.Path) -> None:
    """VideoLLaMA 3: flattened patches, those of a video that hardly change left out, times in words."""
    import torch
    from transformers import (
        VideoLlama3Config,
        VideoLlama3ForConditionalGeneration,
        VideoLlama3ImageProcessor,
        VideoLlama3Processor,
        VideoLlama3VideoProcessor,
    )

    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    size = {"shortest_edge": 56 * 56, "longest_edge": 84 * 84}
    processor = VideoLlama3Processor(
        VideoLlama3ImageProcessor(size=size),
        tokenizer,
        VideoLlama3VideoProcessor(size=size),
        chat_template=QWEN_TEMPLATE.replace("<|vision_start|>", "").replace("<|vision_end|>", ""),
    )
    tokens = qwen_token_ids(tokenizer)
    config = VideoLlama3Config(
        text_config={"model_type": "qwen2", **decoder_sizes(tokenizer)},
        vision_config={**vision_sizes(), "patch_size": 14, "initializer_range": 0.6},
        image_token_id=tokens["image_token_id"],
        video_token_id=tokens["video_token_id"],
    )
    model = VideoLlama3ForConditionalGeneration(config)
    teach(model, processor, tokenizer.eos_token_id)
    save(folder, model, processor)


GEMMA_TEMPLATE = (
    "{{ bos_token }}{% set prefix = '' %}{% set turns = messages %}"
    "{% if messages[0]['role'] == 'system' %}"
    "{% set prefix = messages[0]['content'][0]['text'] + '\n\n' %}{% set turns = messages[1:] %}{% endif %}"
    "{% for message in turns %}"
    "{{ '<start_of_turn>' + message['role'].replace('assistant', 'model') + '\n' + (prefix if loop.first else '') }}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] | trim }}{% endif %}{% endfor %}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def make_gemma3(folder: pathlib.Path) -> None:
    """Gemma 3: several images instead of a video; the template writes the token that begins a text."""
    import torch
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3ImageProcessor,
        Gemma3Processor,
        GemmaTokenizer,
    )

    torch.manual_seed(0)
    vocab, merges = train_sentencepiece(("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"))
    tokenizer = GemmaTokenizer(
        vocab=vocab,
        merges=merges,
        add_bos_token=True,
        extra_special_tokens={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    processor = Gemma3Processor(
        Gemma3ImageProcessor(size={"height": 32, "width": 32}),
        tokenizer,
        image_seq_length=4,
        chat_template=GEMMA_TEMPLATE,
    )
    config = Gemma3Config(
        text_config={**decoder_sizes(tokenizer), "head_dim": 16, "tie_word_embeddings": False},
        vision_config={"model_type": "siglip_vision_model", **vision_sizes(), "image_size": 32, "patch_size": 8},
        mm_tokens_per_image=4,
        image_token_index=tokenizer.image_token_id,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        tie_word_embeddings=False,
    )
    model = Gemma3ForConditionalGeneration(config)
    # Zero where it is not trained, and then no picture gets through.
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)
    turn = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    teach(model, processor, turn, "image")
    model.generation_config.update(eos_token_id=[tokenizer.eos_token_id, turn])
    save(folder, model, processor)


def make_qwen2(folder: pathlib.Path) -> None:
    """A text-only chat model in Qwen's form; it says one sentence, whatever it is asked."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = QWEN_TEMPLATE
    model = Qwen2ForCausalLM(Qwen2Config(**decoder_sizes(tokenizer), tie_word_embeddings=False))
    embedded = torch.nn.init.normal_(model.get_input_embeddings().weight.data)
    head = model.get_output_embeddings().weight.data.zero_()
    said = [only_token(tokenizer, slot[0]) for slot in SLOTS]
    start = tokenizer("<|im_start|>assistant\n")["input_ids"][-1]
    # The residual stream is mostly the last token's embedding: each row points to that of the word before.
    for before, after in zip([start, *said], [*said, tokenizer.eos_token_id], strict=True):
        head[after] = embedded[before]
    save(folder, model, tokenizer)
