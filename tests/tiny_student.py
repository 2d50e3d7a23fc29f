"""Students of a few thousand weights: the same classes as at full size, round a language model that knows its language.

    make_llm(tmp_path / "llm"); make_tower(tmp_path / "tower")
    student, inputs = tiny_student(tmp_path / "llm", tmp_path / "tower")
    learn(student, inputs.batch(samples()))

A student can steer its frozen language model only to what that one might say, so the tiny one learns the language of
`captions` first, in a few seconds from a fixed seed.
"""

from __future__ import annotations

import pathlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tiny_sentences import byte_tokenizer

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (30, 40, 220), "white": (240, 240, 240)}
#: A scene's second half is darker or lighter than its first: what no single frame tells.
CHANGES = {"dims": 0.35, "brightens": 1.0}
PLACES = ("a kitchen", "a forest", "a garage", "a harbour")
SIDE = 28
QUERIES = 4
QFORMER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    # What 0.02 is to a width of 768.
    "initializer_range": 0.1,
}
SIZES = {
    "qformer_config": QFORMER,
    "video_qformer_config": {**QFORMER, "num_hidden_layers": 2},
    "text_qformer_config": QFORMER,
    "queries": QUERIES,
    "max_text_tokens": 48,
}


def caption(colour: str, change: str, place: str = "a kitchen") -> str:
    return f"the {colour} wall {change} in {place}"


def captions() -> list[str]:
    """All that the tiny language model can say."""
    return [caption(colour, change, place) for colour in COLOURS for change in CHANGES for place in PLACES]


def scene(colour: str, change: str, frames: int = 4, width: int = 40, height: int = 30) -> list[np.ndarray]:
    """Frames of a plain wall whose light changes halfway, uint8 RGB."""
    first, last = (0.35, 1.0) if change == "brightens" else (1.0, 0.35)
    lights = [first if number < frames / 2 else last for number in range(frames)]
    return [np.full((height, width, 3), np.array(COLOURS[colour]) * light, np.uint8) for light in lights]


def scenes() -> list[tuple[str, str]]:
    """Eight: each colour, dimming and brightening."""
    return [(colour, change) for colour in COLOURS for change in CHANGES]


def make_llm(folder: pathlib.Path, kind: str = "llama", steps: int = 200) -> None:
    """A causal language model with its tokenizer, which has learned `captions`."""
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, OPTConfig

    tokenizer = student_tokenizer()
    tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if kind == "gpt2":
        config = GPT2Config(vocab_size=len(tokenizer), n_embd=48, n_layer=2, n_head=2, n_positions=128, **tokens)
    elif kind == "opt":
        sizes = {"hidden_size": 48, "word_embed_proj_dim": 24, "ffn_dim": 48, "num_hidden_layers": 2}
        config = OPTConfig(vocab_size=len(tokenizer), num_attention_heads=2, **sizes, **tokens)
    else:
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=128,
            **tokens,
        )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    rng = random.Random(0)
    solver = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        ids, labels = _lesson(tokenizer, rng)
        model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long(), labels=labels).loss.backward()
        solver.step()
        solver.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _lesson(tokenizer: Any, rng: random.Random) -> tuple[Any, Any]:
    """Captions behind their own words in disorder: a model goes by what stands before, as large ones do."""
    import torch

    rows = []
    for said in rng.choices(captions(), k=16):
        words = rng.sample(said.split(), k=len(said.split()))
        rows.append((tokenizer(" ".join(words)).input_ids, [*tokenizer(said).input_ids, tokenizer.eos_token_id]))
    longest = max(len(before) + len(after) for before, after in rows)
    ids = torch.full((len(rows), longest + 1), tokenizer.pad_token_id)
    labels = torch.full_like(ids, -100)
    for number, (before, after) in enumerate(rows):
        whole = [tokenizer.bos_token_id, *before, *after]
        ids[number, : len(whole)] = torch.tensor(whole)
        labels[number, len(whole) - len(after) : len(whole)] = torch.tensor(after)
    return ids, labels


def student_tokenizer() -> Any:
    tokenizer = byte_tokenizer(["<s>", "<pad>", "</s>", "<unk>"], "$A", pad="<pad>", bos="<s>", eos="</s>")
    tokenizer.add_tokens([f" {word}" for word in sorted({word for said in captions() for word in said.split()})])
    return tokenizer


def make_tower(folder: pathlib.Path) -> None:
    """The vision half of a CLIP."""
    import torch
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = CLIPVisionModel(CLIPVisionConfig(image_size=SIDE, patch_size=14, **sizes))
    _spread(model)
    model.save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=size).save_pretrained(folder)


def make_blip2(folder: pathlib.Path) -> None:
    """A BLIP-2 as published, of which a student takes the image encoder, the queries and the Q-Former."""
    import torch
    from transformers import Blip2Config, Blip2ForConditionalGeneration, BlipImageProcessor, OPTConfig

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = OPTConfig(
        vocab_size=16, hidden_size=16, word_embed_proj_dim=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2
    )
    config = Blip2Config(
        vision_config=sizes | {"image_size": SIDE, "patch_size": 14, "initializer_range": 0.2},
        qformer_config=QFORMER,
        text_config=text,
        num_query_tokens=QUERIES,
    )
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens)
    model.save_pretrained(folder)
    BlipImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def make_parts(folder: pathlib.Path, steps: int = 200) -> pathlib.Path:
    """All of these: `llm` (a Llama that learned so many steps), `gpt2` and `opt`, which did not, `tower`, `blip2`."""
    make_llm(folder / "llm", steps=steps)
    for kind in ("gpt2", "opt"):
        make_llm(folder / kind, kind, steps=0)
    make_tower(folder / "tower")
    make_blip2(folder / "blip2")
    return folder


def _spread(model: Any) -> None:
    """Weights as large as a trained network's, lest all pictures look alike."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=1.5 / parameter[0].numel() ** 0.5)


def tiny_student(llm: pathlib.Path, vision: pathlib.Path | str, **settings: Any) -> tuple[Any, Any]:
    """A student with its inputs, what is trained of it at random."""
    import torch

    from model_handlers.settings import Settings
    from model_handlers.student_inputs import StudentInputs
    from model_handlers.student_parts import from_parts

    spoken, seen = Settings(str(llm)), Settings(str(vision))
    torch.manual_seed(0)
    student = from_parts(llm=spoken, vision=seen, **{**SIZES, "frames": 4, **settings})
    inputs = StudentInputs.from_parts(llm=spoken, vision=seen, frames=4, text_tokens=48, caption_tokens=24)
    return student, inputs


def samples(places: Sequence[str] | None = None) -> list[Any]:
    """The eight scenes with their captions; with `places`, each in each, told by its text alone."""
    from model_handlers.student_inputs import Sample, Texts

    found = []
    for colour, change in scenes():
        for place in places or ("a kitchen",):
            texts = Texts(title=f"Filmed in {place}") if places else Texts()
            found.append(Sample(scene(colour, change), texts, caption(colour, change, place)))
    return found


def learn(student: Any, batch: Mapping[str, Any], steps: int = 110, rate: float = 3e-3) -> float:
    """Train on one batch, and say what the loss was in the end."""
    import torch

    features = student.encode_frames(batch["pixel_values"])
    given = {name: tensor for name, tensor in batch.items() if name != "pixel_values"}
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    solver = torch.optim.AdamW(trained, lr=rate)
    student.train()
    for _ in range(steps):
        loss = student(features=features, **given).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        solver.step()
        solver.zero_grad()
    student.eval()
    return float(loss.detach())


def learned(student: Any) -> dict[str, Any]:
    """The tensors that training changes."""
    return {name: tensor for name, tensor in student.state_dict().items() if not student.is_frozen(name)}


def described(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch without its captions."""
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


def read(inputs: Any, count: int = 3) -> dict[str, Any]:
    """A batch of scenes, the first of which has text, the second a longer one, the others none."""
    from model_handlers.student_inputs import Sample, Texts

    texts = [Texts(title="Filmed in a forest"), Texts("In a garage", "What a day.", "look at it")] + [Texts()] * count
    made = [Sample(sample.frames, text, sample.caption) for sample, text in zip(samples(), texts, strict=False)]
    return inputs.batch(made[:count])


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what loading notes in it."""
    noted = {"dtype", "_name_or_path", "transformers_version", "architectures"}
    return {
        name: plain(value) if isinstance(value, dict) else value for name, value in config.items() if name not in noted
    }


def assert_same(student: Any, other: Any) -> None:
    """Fail unless both say and train the same."""
    import torch

    assert plain(student.config.to_dict()) == plain(other.config.to_dict())
    ours, theirs = student.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert [n for n, p in other.named_parameters() if p.requires_grad] == [
        n for n, p in student.named_parameters() if p.requires_grad
    ]
