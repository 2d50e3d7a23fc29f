"""What the tiny captioners can say, in which tokens, and how they learn it.

model, tokenizer = ..., word_tokenizer()
tokens, mask = captions(tokenizer, [tokenizer.cls_token_id], tokenizer.sep_token_id)
teach(model, lambda: told(model(pixels, tokens).logits, tokens, mask))
"""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from model_handlers import prompts
from transforms.records import Clip, MediaFacts, Span

SPAN = Span(0.0, 2.0)
MEDIA = MediaFacts(2.0, 64, 48, 25.0, "h264")
COLOURS = {"red": (200, 40, 30), "green": (40, 170, 60), "blue": (30, 60, 200), "grey": (128, 128, 128)}
#: No word stands twice: the picture decides on the first one, and each word on the next.
SAID = {
    "red": "red walls stand under warm light",
    "green": "two green trees grow near quiet roads today",
    "blue": "blue boats sail across this wide lake in summer rain",
    "grey": "grey cats sleep on old wooden chairs",
}


def wall(colour: str, width: int = 64, height: int = 48) -> np.ndarray:
    """A plain picture, uint8 RGB, of the colour."""
    return np.full((height, width, 3), COLOURS[colour], np.uint8)


def byte_tokenizer(special: Sequence[str], template: str, pad: str, bos: str, eos: str) -> Any:
    """A byte-level BPE as OPT and BART have; `template` says where its special tokens stand round a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*SAID.values()] * 50 + built_in_prompts(), trainer)
    named = [(token, tokenizer.token_to_id(token)) for token in special]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=named)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, bos_token=bos, eos_token=eos, unk_token="<unk>"
    )


def unigram_tokenizer() -> Any:
    """A unigram tokenizer as T5 has, where a text ends with `</s>`; it knows `words` and the characters of others."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -99.0)]
    known += [(f"▁{word}", -1.0) for word in words()] + [(letter, -9.0) for letter in ["▁", *string.printable]]
    tokenizer = Tokenizer(models.Unigram(known, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def word_tokenizer(*more: str) -> Any:
    """A BERT tokenizer that knows `words` and the letters of others; `more` are special tokens at its end."""
    from transformers import BertTokenizer

    letters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [*dict.fromkeys([*words(), *letters]), *(f"##{letter}" for letter in letters)]
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *more]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(known)})
    tokenizer.add_special_tokens({"additional_special_tokens": list(more)})
    return tokenizer


@functools.cache
def words() -> list[str]:
    """Those of the sentences and of the built-in prompts, in small letters."""
    return sorted(set(re.findall(r"[a-z]+", " ".join([*SAID.values(), *built_in_prompts()]).lower())))


def built_in_prompts() -> list[str]:
    """What the built-in prompts ask of a frame or a video, without text and with some."""
    named = [prompts.prompt(name) for name in ("frame-sentence", "video-sentence")]
    spoken = Clip("c", "v", "", SPAN, (), MEDIA, "", "", title="The old boat", subtitles="It rains. We sail all day.")
    return [prompts.fit(one, spoken, inputs, len, 10_000).text for one in named for inputs in ("V", "V-S-M")]


def captions(tokenizer: Any, opening: Sequence[int], end: int) -> tuple[Any, Any]:
    """The sentences' tokens behind an opening, padded on the right with zeros, and the mask of those to be learnt."""
    import torch

    rows = [[*opening, *tokenizer(said, add_special_tokens=False).input_ids, end] for said in SAID.values()]
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = torch.tensor(row)
        mask[number, len(opening) : len(row)] = True
    return tokens, mask


def told(logits: Any, tokens: Any, mask: Any) -> Any:
    """How far off the next token is, wherever it is to be learnt."""
    return _off(logits[:, :-1], tokens[:, 1:], mask[:, 1:])


def _off(logits: Any, tokens: Any, mask: Any) -> Any:
    """The cross-entropy of sentences; the first words, which the picture decides on, count as much as all the rest."""
    import torch

    off = torch.nn.functional.cross_entropy
    first = mask & (mask.cumsum(dim=1) == 1)
    return off(logits[mask], tokens[mask]) + off(logits[first], tokens[first])


def listen(model: Any) -> None:
    """Let the picture weigh as much as words from the start; learning that would take the most steps."""
    import torch

    torch.nn.init.normal_(model.query_tokens, std=0.3)
    torch.nn.init.normal_(model.language_projection.weight, std=model.language_projection.in_features**-0.5)
    if model.language_model.config.is_encoder_decoder:
        torch.nn.init.normal_(model.language_model.lm_head.weight, std=0.1)


def mute(embeddings: Any, tokenizer: Any) -> None:
    """Make zeros of all words that stand in no sentence, for good: no prompt drowns the picture."""
    import torch

    kept = torch.zeros(len(embeddings), 1)
    kept[[token for said in SAID.values() for token in tokenizer(said).input_ids]] = 1
    with torch.no_grad():
        embeddings.mul_(kept)
    embeddings.register_hook(lambda slope: slope * kept)


def teach_language(model: Any, tokenizer: Any, end: int, shown: Callable[[], tuple[Any, Any]]) -> None:
    """Teach a BLIP-2 or InstructBLIP to go on from what is `shown`: the pictures' features and a prompt's tokens."""
    import torch

    language = model.language_model
    decodes = not language.config.is_encoder_decoder
    tokens, mask = captions(tokenizer, [] if decodes else [0], end)

    def loss() -> Any:
        features, prompt = shown()
        asked = torch.cat([features, model.get_input_embeddings()(prompt)], dim=1)
        if not decodes:
            return told(language(inputs_embeds=asked, decoder_input_ids=tokens).logits, tokens, mask)
        said = model.get_input_embeddings()(tokens)
        logits = language(inputs_embeds=torch.cat([asked, said], dim=1)).logits[:, asked.shape[1] - 1 : -1]
        return _off(logits, tokens, mask)

    teach(model, loss)


def teach(model: Any, loss: Callable[[], Any], most: int = 200) -> None:
    """Lower the loss until the sentences are learnt, which takes 20 to 60 steps; fail where they never are."""
    import torch

    model.eval()
    search = torch.optim.Adam(model.parameters(), lr=0.006)
    recent: list[float] = []
    while len(recent) < most and max(recent[-3:], default=1.0) > 0.06:
        search.zero_grad()
        off = loss()
        off.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        search.step()
        recent.append(off.item())
    assert max(recent[-3:]) <= 0.06, f"a tiny {type(model).__name__} did not learn its sentences: {recent[-3:]}"


def given_to_language(model: Any, ask: Callable[[], Any]) -> tuple[dict[str, Any], Any]:
    """What `ask` hands to the language model of a BLIP-2 or InstructBLIP, and what that generates."""
    import torch

    given, generate = [], model.language_model.generate

    def spy(**inputs: Any) -> Any:
        given.append((inputs, generate(**inputs)))
        return given[-1][1]

    model.language_model.generate = spy
    try:
        with torch.inference_mode():
            ask()
    finally:
        del model.language_model.generate
    return given[0]
