"""Tiny text classifiers for the tests: real checkpoints of Transformers, fitted to a few words.

make_namer(folder)                          # labels "anna" and "smith" as PER, all else as O
make_judge(folder)                          # finds some sentences with "stupid" toxic
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "anna",
    "smith",
    "maria",
    "paris",
    "##s",
    "##son",
    "a",
    "dog",
    "runs",
    "in",
    "and",
    "'",
    "s",
    ".",
    ",",
    "stupid",
    "you",
]

HARMLESS = ("a dog runs .", "anna and smith .", "a dog runs in paris .")
HARMFUL = ("you stupid dog .", "you stupid smith .")


def _bert(kind: str, labels: Sequence[str], **config: Any) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    settings = transformers.BertConfig(
        vocab_size=len(WORDS),
        max_position_embeddings=64,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        **shape,
        **config,
    )
    return getattr(transformers, kind)(settings).eval()


def _write(model: Any, folder: pathlib.Path) -> None:
    from transformers import BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(WORDS)}, model_max_length=64)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder, safe_serialization=True)


def _fit(head: Any, features: Any, targets: Sequence[int]) -> None:
    """Fit a linear head to the label of each row of features."""
    import torch

    wanted = torch.tensor(targets)
    solver = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Any:
        solver.zero_grad()
        off = torch.nn.functional.cross_entropy(head(features), wanted)
        off.backward()
        return off

    solver.step(loss)


def make_namer(folder: pathlib.Path, labels: Sequence[str] = ("O", "B-PER", "I-PER", "B-LOC")) -> pathlib.Path:
    """A token classifier that labels "anna" the second, "smith" the third and "paris" the fourth label, others "O".

    It attends to nothing: each token is labelled as if it stood alone.
    """
    import torch

    model = _bert("BertForTokenClassification", labels)
    with torch.no_grad():
        # What attention and positions add would make a token's label depend on its neighbours.
        for name, weight in model.named_parameters():
            if "attention.output.dense" in name or "position_embeddings" in name:
                weight.zero_()
    tokens = [[WORDS.index(edge) for edge in ("[CLS]", word, "[SEP]")] for word in WORDS[5:]]
    with torch.no_grad():
        states = model.bert(torch.tensor(tokens)).last_hidden_state[:, 1]
    named = {"anna": 1, "smith": 2, "paris": len(labels) - 1}
    _fit(model.classifier, states, [named.get(word, 0) for word in WORDS[5:]])
    _write(model, folder)
    return folder


def make_judge(folder: pathlib.Path, labels: Sequence[str] = ("neutral", "toxic")) -> pathlib.Path:
    """A text classifier that gives `HARMLESS` the first label and `HARMFUL` the last one."""
    import torch

    model = _bert("BertForSequenceClassification", labels)
    texts = [*HARMLESS, *HARMFUL]
    with torch.no_grad():
        pooled = [model.bert(torch.tensor([_numbers(text)])).pooler_output for text in texts]
    _fit(model.classifier, torch.cat(pooled), [0] * len(HARMLESS) + [len(labels) - 1] * len(HARMFUL))
    _write(model, folder)
    return folder


def _numbers(text: str) -> list[int]:
    return [WORDS.index(word) for word in ["[CLS]", *text.split(), "[SEP]"]]
