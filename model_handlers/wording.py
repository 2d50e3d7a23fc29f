"""From probabilities and hostile text to plain English: the wording that the lite teachers and the selector share.

    seen(labels, probabilities)             # "What looks like a golden retriever can be seen."
    sentences_of("<b>Hi!</b> How are you?") # ["Hi!", "How are you?"]

Pure functions, no model. Titles, descriptions and subtitles are other people's text: markup, links and control
characters go, and what is too long is dropped by whole sentences.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from model_handlers.labels import Labels

#: Probabilities from which a caption says "X", "what looks like X", "possibly X"; below, it only guesses. Of confident
#: (p >= 0.6) labels most are right on clear objects, under 0.12 most are wrong.
SURE, LIKELY, POSSIBLE = 0.6, 0.3, 0.12

MAX_SENTENCE_WORDS = 40
MAX_SENTENCES = 200

_TAG = re.compile(r"<[^<>]{0,200}>|\{\\[^{}]{0,200}\}")
_LINK = re.compile(r"(?:https?://|www\.)\S+|\S+@\S+\.\S+|[#@]\w+")
_CUE_TIME = re.compile(r"\d{1,2}:\d{2}(?::\d{2})?(?:[.,]\d{3})?(?:\s*-->\s*\S+)?")
_NOISE = re.compile(r"[\[(♪][^\])♪]{0,60}[\])♪]")
_END = re.compile(r"(?<=[.!?…。！？])[\"'”’)]*\s+|\s*\n\s*|\s+[|•·]\s+")
_STOCK = re.compile(
    r"^(?:(?:in )?(?:the|this|a|an) )?(?:short |brief |close[- ]?up )?"
    r"(?:video|clip|picture|photo|photograph|image|scene|frame|footage)"
    r" (?:of|shows|showing|depicts|features|in which|with)\s+"
    r"|^(?:there (?:is|are)|it (?:is|looks like)|it's|we see|this is)\s+"
    r"|^(?:the (?:video|clip|image|picture|photo) (?:shows|is of|depicts))\s+",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:possibly|perhaps|probably|maybe|likely|what looks like|(?:seems|appears) to be|can be seen"
    r"|(?:is|are) in view)\b",
    re.IGNORECASE,
)
_SPACE = re.compile(r"\s+")


def plain(text: str) -> str:
    """One line of text without markup, links, control and bidirectional characters; quotes become single."""
    text = unicodedata.normalize("NFKC", text)
    text = "".join(letter if unicodedata.category(letter)[0] != "C" or letter in "\n\t" else " " for letter in text)
    for pattern in (_TAG, _LINK, _CUE_TIME):
        text = pattern.sub(" ", text)
    text = text.replace("<", " ").replace(">", " ")
    return re.sub('["“”„«»`]', "'", text)


def sentences_of(text: str | None) -> list[str]:
    """The distinct sentences of a text, cleaned, in order, at most 200 of them.

    Sentences of more than 40 words are dropped whole; a text that is nothing else (speech recognition without a full
    stop) is cut into runs of 20 words, each marked with an ellipsis.
    """
    if not text:
        return []
    found = [_SPACE.sub(" ", part).strip(" -–—|,;:") for part in _END.split(_NOISE.sub(" ", plain(text)))]
    found = [part for part in dict.fromkeys(found) if any(letter.isalpha() for letter in part)]
    short = [part for part in found if len(part.split()) <= MAX_SENTENCE_WORDS and len(part) <= 400]
    if not short:
        words = [word for part in found for word in part.split() if len(word) <= 40]
        short = [" ".join(words[at : at + 20]) + " ..." for at in range(0, len(words), 20)]
    return short[:MAX_SENTENCES]


def scored_sentences(caption: str) -> list[str]:
    """A caption's sentences as the selector reads them: without stock openings and words of doubt. Never empty."""
    found = []
    for sentence in sentences_of(caption) or [caption]:
        content = _SPACE.sub(" ", _HEDGE.sub(" ", _STOCK.sub("", sentence))).strip(" ,.")
        found.append(content or sentence)
    return found


def sentence(text: str) -> str:
    """With a capital at its beginning and a full stop at its end."""
    text = _SPACE.sub(" ", text).strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def hedged(phrase: str, probability: float) -> str:
    """ "a dog", "what looks like a dog", "possibly a dog"."""
    if probability >= SURE:
        return phrase
    return f"what looks like {phrase}" if probability >= LIKELY else f"possibly {phrase}"


def best(probabilities: np.ndarray, count: int) -> list[int]:
    """The `count` most probable labels, of equals the lower number."""
    return [int(label) for label in np.argsort(-probabilities, kind="stable")[:count]]


def seen(labels: Labels, probabilities: np.ndarray) -> str:
    """One frame's sentence: its label, two when they are close, or an honest guess."""
    first, second = best(probabilities, 2)
    p, q = float(probabilities[first]), float(probabilities[second])
    if p >= LIKELY:
        return sentence(f"{hedged(labels.phrases[first], p)} can be seen")
    if p >= POSSIBLE:
        either = f" or {labels.phrases[second]}" if q >= p / 2 else ""
        return sentence(f"possibly {labels.phrases[first]}{either} can be seen")
    return f"The picture is hard to name; {labels.phrases[first]} or {labels.phrases[second]} would be a guess."


def voted(labels: Labels, probabilities: np.ndarray) -> str:
    """What most frames of a clip (n, 1000) agree on, and what else is there for part of it."""
    mean = probabilities.mean(axis=0)
    first = best(mean, 1)[0]
    group = labels.group_of == labels.group_of[first]
    share = float(np.mean(probabilities[:, group].sum(axis=1) >= LIKELY))
    others = [label for label in best(mean, 8) if mean[label] >= 0.05 and not group[label]]
    # Two labels of another group say little more than one.
    other = f", with {labels.phrases[others[0]]} perhaps in the picture too" if others else ""
    if share >= 0.75:
        return sentence(f"{hedged(labels.phrases[first], float(mean[first]))} can be seen for most of the clip{other}")
    if share >= 0.25:
        return sentence(
            f"{hedged(labels.phrases[first], float(mean[first]))} can be seen for a part of the clip{other}"
        )
    guesses = best(mean, 3)
    return f"The frames do not agree; they look like {_either([labels.phrases[label] for label in guesses])}."


def climbed(labels: Labels, probabilities: np.ndarray) -> tuple[str, float]:
    """The most exact noun phrase that the probabilities (1000,) carry, and how probable it is.

    From label to group to kind: "a golden retriever", "a dog, probably a golden retriever", "an animal, perhaps a dog".
    """
    by_group, by_kind = labels.by_group(probabilities), labels.by_kind(probabilities)
    label = best(probabilities, 1)[0]
    if probabilities[label] >= SURE:
        return labels.phrases[label], float(probabilities[label])
    group = int(np.argmax(by_group))
    inside = np.where(labels.group_of == group, probabilities, 0.0)
    likeliest = int(np.argmax(inside))
    if by_group[group] >= LIKELY:
        word = "probably" if inside[likeliest] >= by_group[group] / 2 else "perhaps"
        return f"{labels.group_names[group]}, {word} {labels.phrases[likeliest]},", float(by_group[group])
    kind = int(np.argmax(by_kind))
    group_of_kind = int(labels.group_of[int(np.argmax(np.where(labels.kind_of == kind, probabilities, 0.0)))])
    exact = labels.group_names[group_of_kind]
    name = labels.kind_names[kind]
    return (f"{name}, perhaps {exact}," if exact != name else name), float(by_kind[kind])


def _either(phrases: Sequence[str]) -> str:
    return f"{', '.join(phrases[:-1])} or {phrases[-1]}"


def quoted(text: str) -> str:
    """Somebody else's words between double quotes, of which they hold none themselves."""
    return f'"{text.rstrip(". ")}"'
