"""Long text cut where it hurts least: into sentences, and into pieces that a selector's text encoder reads whole.

    texts = pieces(caption, count_tokens, 32)             # ["A chef cuts onions.", "He fries them in butter."]
    score = combine(scores, [count_tokens(text) for text in texts])

Text encoders of video-text models end at 32 to 128 tokens and cut silently; here nothing is lost. The lite
teachers' `wording.sentences_of` is another thing: it drops what is long or said twice, and needs blanks between words.
"""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

#: Offsets at which a text may be cut, in order.
Cutter = Callable[[str], Iterable[int]]

#: A sentence of more words is none (speech recognition without a full stop): it is cut into runs of about twenty words,
#: at the end of a clause where there is one after the tenth.
MAX_SENTENCE_WORDS, RUN_WORDS, CLAUSE_FROM_WORDS = 40, 20, 10
#: A Chinese or Japanese word has about two characters.
SPACELESS_WORDS = 0.5

_HAN = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_OTHER_SPACELESS = "\u0e01-\u0e4e\u0e81-\u0ece\u1000-\u103f\u1780-\u17d3"
_CLOSERS = "\"'”’»)\\]」』）】》〉"
# The first kind ends a sentence wherever it stands; the other needs a blank behind it (3.5, example.org, "?v=").
_SENTENCE_END = re.compile(
    rf"(?:[。！？｡؟۔।॥։።။។]|(?<=[{_HAN}])[!?]|(?<![.!?…])[.!?…]++(?=[{_CLOSERS}]*+(?:\s|$)))[.!?…。！？｡]*[{_CLOSERS}]*|[\n\r\v\f\x85\u2028\u2029]+"
)
# Titles, initials, "e.g.", ordinals and list numbers: their full stop ends nothing. A false friend costs little: two
# sentences stay together.
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'“‘])(?:[^\W\d_]|\d{1,2}|[^\W\d_](?:\.[^\W\d_])+"
    r"|mrs?|ms|mx|dr|prof|st|jr|sr|vs|fig|approx|ca|bzw|nr|sra|mme|mlle)$",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(
    rf"[,;:][{_CLOSERS}]*(?=\s)|[，、；：،؛—–]|\s-(?=\s)"
    r"|(?=\s(?:and|but|then|while|where|whereas|which|who|before|after|as)\s)"
)
_MARKS = "\u0e30-\u0e3a\u0e45\u0e47-\u0e4e\u0eb0-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u17b4-\u17d3\u3099\u309a\u30fc"
_PUNCTUATION = "。，、；：！？」』）】》〉"
# A word, or one character of a script that sets no blanks: with the marks and the punctuation that cling to it.
_WORD = re.compile(
    rf"[「『（【《〈]*[\u0e40-\u0e44\u0ec0-\u0ec4]*[{_HAN}{_OTHER_SPACELESS}][{_MARKS}]*[{_PUNCTUATION}]*"
    rf"|[^\s{_HAN}{_OTHER_SPACELESS}]+"
)
_SPACELESS = re.compile(rf"[{_HAN}{_OTHER_SPACELESS}]")
_SPACELESS_EDGE = re.compile(rf"[{_HAN}{_OTHER_SPACELESS}{_PUNCTUATION}]")


def sentences(text: str) -> list[str]:
    """The sentences of a text in any language, in order, each on one line; no word is lost, cut or changed.

    They end at line breaks and at the full stops, question and exclamation marks of Latin, Chinese, Japanese, Arabic,
    Indic, Armenian, Ethiopic, Burmese and Khmer writing. Unpunctuated runs are cut at the end of a clause or every 20
    words; where a script sets no blanks, between characters, which may be inside a word.
    """
    found: list[str] = []
    for start, end in itertools.pairwise([0, *sentence_ends(text)]):
        line = " ".join(text[start:end].split())
        found += _parts(line, _run_cuts(line)) if _words(line) > MAX_SENTENCE_WORDS else filter(None, [line])
    return found


def sentence_ends(text: str) -> list[int]:
    """Offsets at which the sentences of a text end, the last one at its end; unpunctuated runs stay whole.

    Each sentence holds a letter or a digit, if the text does.
    """
    return _solid(text, [*_sentence_cuts(text), len(text)])


def joined(parts: Sequence[str]) -> str:
    """Sentences on one line again: with a blank between two, but not where neither side's script sets one."""
    text = ""
    for part in parts:
        spaceless = text and _SPACELESS_EDGE.match(text[-1]) and _SPACELESS_EDGE.match(part[:1])
        text += part if not text or spaceless else f" {part}"
    return text


def pieces(caption: str, count_tokens: Callable[[str], int], limit: int) -> list[str]:
    """Cut a caption into pieces of at most `limit` tokens; one that fits stays in one piece.

    Neighbouring sentences are packed greedily. A sentence too long alone is cut at clauses, a clause at words, and a
    word longer than the limit at characters: each piece holds whole sentences, or a part of one.

    Args:
      count_tokens: what the encoder counts, its special tokens included.

    Raises:
      ValueError: the limit holds not even one character.
    """
    return _pack(caption.strip(), count_tokens, limit, (_sentence_cuts, _clause_cuts, _word_cuts, _character_cuts))


def combine(scores: Sequence[float], weights: Sequence[int]) -> float:
    """The score of a caption whose pieces have `scores`: their mean, weighted by tokens.

    A wrong sentence lowers the mean by its share of the text, so the caption loses to the same one without it. A right
    caption of n pieces scores as high as its pieces do, however large n is, and its noise falls with n. The minimum
    would fail in this: scores are noisy, and the lowest of n draws sinks as n grows, so that long right captions would
    lose for being long; a sum would reward length, the maximum hide the error. Tokens as weights make it matter
    little where the cuts fell: a fragment of two words can't sink a caption.

    Args:
      scores: of the pieces, any scale (probabilities, cosines). weights: their tokens, each at least 1.

    Raises:
      ValueError: none, not as many weights as scores, a weight below 1, or a score that is not finite.
    """
    if len(scores) == 0 or len(scores) != len(weights):
        raise ValueError(
            f"a score needs pieces, one weight each; there are {len(scores)} scores, {len(weights)} weights"
        )
    if min(weights) < 1 or not all(map(math.isfinite, scores)):
        raise ValueError("every weight must be at least 1 and every score finite")
    # Relative to the first: equal scores give exactly that score, so that equal captions tie.
    above = math.fsum(weight * (score - scores[0]) for score, weight in zip(scores, weights, strict=True))
    mean = scores[0] + above / sum(weights)
    return min(max(mean, min(scores)), max(scores))


def _pack(text: str, count: Callable[[str], int], limit: int, levels: Sequence[Cutter]) -> list[str]:
    if not text:
        return []
    if count(text) <= limit:
        return [text]
    if not levels:
        raise ValueError(f"a limit of {limit} tokens is too small: {text!r} alone has {count(text)}")
    ends = [*levels[0](text), len(text)]
    packed: list[str] = []
    start, current, at = 0, "", 0
    for end in _solid(text, ends) if len(levels) > 1 else ends:
        longer, alone = text[start:end].strip(), text[at:end].strip()
        if current and count(longer) <= limit:
            current = longer
        elif alone:
            packed += [current] if current else []
            start, current = at, alone
            if count(alone) > limit:
                packed += _pack(alone, count, limit, levels[1:])
                start, current = end, ""
        at = end
    return [*packed, current] if current else packed


def _parts(text: str, cuts: Iterable[int]) -> list[str]:
    """What lies between the cuts, without blanks at its edges."""
    ends = _solid(text, [*cuts, len(text)])
    return [part for part in (text[start:end].strip() for start, end in itertools.pairwise([0, *ends])) if part]


def _solid(text: str, ends: Iterable[int]) -> list[int]:
    """The ends of parts that hold a letter or a digit each: a stray quote or dash stays with the part before it."""
    kept: list[int] = []
    start, says = 0, False
    for end in ends:
        says = says or any(map(str.isalnum, text[start:end]))
        start = end
        if says:
            kept.append(end)
            says = False
        elif kept:
            kept[-1] = end
    return kept or [len(text)]


def _sentence_cuts(text: str) -> Iterator[int]:
    for end in _SENTENCE_END.finditer(text):
        before = text[max(0, end.start() - 24) : end.start()]
        if not (end.group().rstrip("\"'”’») ") == "." and _ABBREVIATION.search(before)):
            yield end.end()


def _clause_cuts(text: str) -> Iterator[int]:
    return (end.end() for end in _CLAUSE_END.finditer(text))


def _word_cuts(text: str) -> Iterator[int]:
    return (word.start() for word in _WORD.finditer(text))


def _character_cuts(text: str) -> Iterator[int]:
    # An accent, a vowel sign or a joiner belongs to the letter before it.
    clings = [unicodedata.category(letter)[0] in "MC" for letter in text]
    return (at for at in range(1, len(text)) if not clings[at] and text[at - 1] != "\u200d")


def _words(line: str) -> float:
    return sum(_weight(word.group()) for word in _WORD.finditer(line))


def _weight(word: str) -> float:
    return SPACELESS_WORDS if _SPACELESS.search(word) else 1.0


def _run_cuts(line: str) -> Iterator[int]:
    clauses = {end for end in _clause_cuts(line)}
    words = 0.0
    for word in _WORD.finditer(line):
        at_clause = word.start() in clauses or word.start() - 1 in clauses
        if words >= RUN_WORDS or (words >= CLAUSE_FROM_WORDS and at_clause):
            yield word.start()
            words = 0.0
        words += _weight(word.group())
