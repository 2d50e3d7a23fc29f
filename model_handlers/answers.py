"""From what a model answered to a caption: chat, stock openings and repetition go; refusals are no captions.

    clean("Sure! Here is a caption: **The video shows a dog running on a beach.**")   # "A dog running on a beach."
    clean("I'm sorry, but I can't see the video.")                                    # UnusableAnswer: a refusal

What reads like a caption already stays as it is, to the letter.
"""

from __future__ import annotations

import itertools
import re
import unicodedata

from model_handlers import stock_phrases
from model_handlers.long_captions import sentence_ends
from model_handlers.quoting import COMMON_TOKENS

#: A caption has some hundred characters; what goes on for longer than this is a model that found no end.
MAX_CHARACTERS = 10_000
#: Of the raw answer, as much as a dead letter carries (its detail ends at 4,000 characters).
RAW_CHARACTERS = 2_000
#: How often in a row a phrase of one, two, or more words stands in a loop. Below lie "very very very", "over and over
#: and over again".
LOOPS = {1: 5, 2: 4}
LOOPS_FROM_THREE_WORDS = 3
MAX_LOOP_WORDS = 60
#: Fewer words than these are left over, not said.
MIN_LEFT_WORDS = 2

_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>.*?</\1>|◁think▷.*?◁/think▷", re.DOTALL | re.IGNORECASE)
_THOUGHT_ENDS = re.compile(r"</(?:think|thinking|thought|reasoning)>|◁/think▷", re.IGNORECASE)
_THOUGHT_BEGINS = re.compile(r"<(?:think|thinking|thought|reasoning)>|◁think▷", re.IGNORECASE)
# An answer decoded together with its prompt: what stands after the assistant's mark is the answer.
_ECHO = re.compile(
    r"\A.*?(?:<\|im_start\|>\s*assistant\b|<start_of_turn>\s*model\b|<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>"
    r"|<\|assistant\|>|\[/INST\])|\A(?:.*\n)?\s*assistant[ \t]*\n|\A\s*(?:user|human)\s*:.*?\b(?:assistant|gpt|ai)\s*:",
    re.DOTALL | re.IGNORECASE,
)
_ANSWER_ENDS = re.compile(
    r"<\|(?:im_end|endoftext|eot_id|eom_id|end|end_of_text)\|>|</s>|<eos>|<end_of_turn>|<end_of_utterance>|<\|im_start\|>"
    r"|\n\s*(?:user|human|question|###[^\n:]{0,40})\s*:",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<extra_id_\d+>|<row_\d+_col_\d+>|" + "|".join(map(re.escape, COMMON_TOKENS)), re.IGNORECASE
)
_TAG = re.compile(r"</?(?:answer|caption|summary|sentence|response|output|br|p|b|i|em|strong)\s*/?>", re.IGNORECASE)
_MARKDOWN = (
    (re.compile(r"```[\w-]*|\"\"\""), " "),
    (re.compile(r"`([^`\n]+)`"), r"\1"),
    (re.compile(r"(\*\*|__)(?=[^\s*_])(.+?)(?<=\S)\1"), r"\2"),
    (re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+)(?<=\S)\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<!\w)_(?=[^\s_])([^_\n]+)(?<=\S)_(?!\w)"), r"\1"),
    (re.compile(r"^\s*(?:#{1,6}|[-*•>]|\d{1,2}[.)])\s+", re.MULTILINE), ""),
    (re.compile(r"([^\w\s])\1{9,}"), r"\1"),
)
_LEFT_BEFORE = re.compile(r"\A(?:[-–—*#]+\s+|[:;,|>]+\s*)+")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "„": "“", "「": "」", "『": "』"}
_FINISHED = re.compile(r"[.!?…。！？｡؟۔।॥։።။។]\W*\Z")
_ONE_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
_STUTTER = re.compile(r"(\w.{0,11}?)\1{19,}")


class UnusableAnswer(ValueError):
    """An answer that holds no caption; the message says why.

    Attributes:
      raw: the whole answer. Its first 2,000 characters are also a note of the exception, and so end the detail of the
        dead letter that `Failure.of` makes of it.
    """

    def __init__(self, why: str, raw: str):
        super().__init__(why)
        self.raw = raw
        # A lone surrogate could not be written to a table.
        shown = raw[:RAW_CHARACTERS].encode("utf-8", "backslashreplace").decode("utf-8")
        self.add_note(f"the answer was: {shown}")

    def __reduce__(self) -> tuple[type[UnusableAnswer], tuple[str, str]]:
        return type(self), (str(self), self.raw)


def clean(raw: str) -> str:
    """The caption in a model's raw answer, on one line.

    Gone are thoughts, special tokens, an echo of the prompt, markdown, quotes round the whole, stock openings ("Sure!",
    "Here is a summary:", "The video shows", where what remains is a sentence, which then begins with a capital), what
    is said to the reader at the end, a sentence said before, all that follows the first round of a loop, and an
    unfinished last sentence behind a finished one. Cleaning twice changes nothing more.

    Raises:
      UnusableAnswer: nothing is left, or it is a refusal, an excuse or a question back.
    """
    text = raw[:MAX_CHARACTERS]
    while (tidier := _tidied(text, raw)) != text:
        text = tidier
    return text


def _tidied(text: str, raw: str) -> str:
    """One round of cleaning. Each change shortens the text, so that rounds come to an end."""
    text = _answered(text)
    for pattern, plain in _MARKDOWN:
        text = pattern.sub(plain, text)
    text = _unquoted(_LEFT_BEFORE.sub("", stock_phrases.without_opening(text.strip())))
    text = _finished(_unlooped(_told_once(" ".join(text.split())), raw))
    text = _caption_part(text, raw)
    if not any(map(str.isalpha, text)):
        why = "nothing but thoughts" if _THOUGHT_BEGINS.search(raw) else "no words"
        raise UnusableAnswer(why, raw)
    return text


def _answered(text: str) -> str:
    """The answer alone: no thoughts, no prompt before it, no next turn after it, no tokens and control characters."""
    text = _THOUGHT.sub(" ", text)
    text = _THOUGHT_BEGINS.split(_THOUGHT_ENDS.split(text)[-1])[0]
    answer = _ECHO.sub("", text)
    text = answer if any(map(str.isalpha, answer)) else text
    turns = (_TAG.sub(" ", _TOKEN.sub(" ", turn)) for turn in _ANSWER_ENDS.split(text))
    text = next((turn for turn in turns if any(map(str.isalpha, turn))), "")
    # Joiners stay, since emoji and Persian need them; U+FFFD is half a character at the token limit.
    return "".join(
        letter
        for letter in text
        if letter in "\n\t\u200c\u200d" or (unicodedata.category(letter)[0] != "C" and letter != "\ufffd")
    )


def _unquoted(text: str) -> str:
    """Without quotes round the whole, or half of such a pair; quotes inside stay."""
    text = text.strip()
    stop = text[-1:] if text[-1:] in (".", "!", "?") else ""
    for end in ("", stop):
        body = text.removesuffix(end) if end else text
        if len(body) > 2 and _QUOTES.get(body[0]) == body[-1] and not _quotes_in(body[1:-1], body[0]):
            inner = body[1:-1].strip()
            return inner if _FINISHED.search(inner) else inner + end
    if text.count('"') == 1:
        return text.strip('"').strip()
    if text.startswith("“") and "”" not in text:
        return text[1:].strip()
    return text


def _quotes_in(text: str, mark: str) -> bool:
    # An apostrophe between letters is none.
    return bool(re.search(r"(?<!\w)['’]|['’](?!\w)", text)) if mark in "'‘" else mark in text or _QUOTES[mark] in text


def _caption_part(text: str, raw: str) -> str:
    """The text up to where the model begins to excuse itself or to talk to the reader."""
    for start, end in itertools.pairwise([0, *sentence_ends(text)]):
        sentence = text[start:end].strip()
        if stock_phrases.refuses(sentence):
            if len(_ONE_WORD.findall(text[:start])) < MIN_LEFT_WORDS:
                raise UnusableAnswer("a refusal", raw)
            return text[:start].strip()
        if start and stock_phrases.takes_leave(sentence):
            return text[:start].strip()
    return text


def _told_once(text: str) -> str:
    """Without sentences that say what an earlier one said word for word."""
    told: set[tuple[str, ...]] = set()
    kept = []
    for start, end in itertools.pairwise([0, *sentence_ends(text)]):
        words = tuple(word.casefold() for word in _ONE_WORD.findall(text[start:end]))
        if not words or words not in told:
            kept.append(text[start:end])
        told.add(words)
    return "".join(kept).strip()


def _unlooped(text: str, raw: str) -> str:
    """The text up to the second round of a loop ("a man and a man and a man and")."""
    words = list(_ONE_WORD.finditer(text))
    stutter, loop = _STUTTER.search(text), _first_loop([word.group().casefold() for word in words])
    ends = [stutter.end(1)] if stutter else []
    ends += [words[loop - 1].end()] if loop else []
    if not ends:
        return text
    left = stock_phrases.without_loose_end(text[: min(ends)])
    if len(_ONE_WORD.findall(left)) < MIN_LEFT_WORDS:
        raise UnusableAnswer("nothing but repetition", raw)
    return left


def _first_loop(words: list[str]) -> int | None:
    """How many words there are up to the end of the first round of the first loop, or None."""
    first: tuple[int, int] | None = None
    for period in range(1, min(MAX_LOOP_WORDS, len(words) // 2) + 1):
        needed = (LOOPS.get(period, LOOPS_FROM_THREE_WORDS) - 1) * period
        run = 0
        for at in range(len(words) - period):
            run = run + 1 if words[at] == words[at + period] else 0
            if run == needed:
                start = at - needed + 1
                first = min(first or (start, period), (start, period))
                break
    return sum(first) if first else None


def _finished(text: str) -> str:
    """Without a last sentence that has no end, where one that has stands before it."""
    if _FINISHED.search(text):
        return text
    before = [0, 0, *sentence_ends(text)][-2]
    return text[:before].strip() or text
