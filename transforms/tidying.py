"""A caption told once and without stock openings, and with no person's name in it: pure functions of text.

    tidied("the video shows a dog dog dog in a park.", without_opening)     # "A dog in a park."
    without_names("John Smith's dog runs.", [(0, 10)])                      # "Person's dog runs."

What model handlers do to a raw answer is another thing: they cut off a loop with all that follows it and refuse what is
no caption. Here every caption comes out as a caption.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

#: What stands for a person's name (Panda-70M, section 3.3).
PERSON = "person"

#: How many words a loop of one, two, three words has at least: three rounds, or two and most of a third. A phrase of
#: four and more need only stand twice; "up and down and up" is none, "very very" and "bye bye" are none.
_LEAST_LOOP = {1: 3, 2: 6, 3: 8}
_MAX_PERIOD = 30

_SLIPS = "a an and are at as by for from into is its of on or the to with"
_DANGLING = """
    a an and are as at but by for from in into is next of on or that the their to was were which while who with
"""
#: Doubled, these are slips; "that that" and "had had" need not be.
_NEVER_DOUBLED = frozenset(_SLIPS.split())
#: Said again and again on purpose.
_SOUNDS = frozenset({"cha", "ha", "ho", "la", "na"})
#: What a cut leaves loose at the end.
_LOOSE = frozenset(_DANGLING.split())

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_SENTENCE = re.compile(r".+?(?:[.!?…]+[\"'”’)]*(?=\s|$)|[。！？]|$)", re.DOTALL)
_ENDING = re.compile(r"[.!?…。！？]+[\"'”’)]*$")
_MEDIUM = r"(?:video|clip|footage|image|picture|photo|photograph|frame|scene|screenshot|shot|gif)"
# "An image of a dog" names what it shows; the openings of sentences are the caller's. What follows must be a noun
# phrase, or a part of the caption would go ("a video of how to bake", "a picture of New York").
_NAMES_THE_MEDIUM = re.compile(
    rf"\A(?:(?:an?|the|this)\s+)?(?:(?:short|brief|close-?up|blurry|still|video)\s+){{0,2}}{_MEDIUM}\s+"
    r"(?:of|showing|shows|depicting|depicts|featuring|features|is\s+of)\s+"
    r"(?=(?:an?|one|two|three|four|five|six|several|many|some|multiple|various|people)\s)",
    re.IGNORECASE,
)
# Its second verb belongs to the medium, which would be gone.
_MEDIUM_GOES_ON = re.compile(
    r"(?:\band|\bthen|,)\s+(?:then\s+)?(?:shows|ends|starts|begins|cuts|explains|includes|features|depicts|is\s+shown)\b",
    re.IGNORECASE,
)
_HONORIFIC = re.compile(
    r"\b(?:(?:mr|mrs|ms|mx|miss|dr|prof|sir|madam|mister|professor|doctor)\.?\s+)+\Z", re.IGNORECASE
)
# Behind an s, "James' wife"; a closing quote would not have another word behind it.
_BARE_POSSESSIVE = re.compile(r"(?<=s)['’](?=\s\w)")
_POSSESSIVE = re.compile(r"['’]s?\Z", re.IGNORECASE)
#: Between two parts of one name: blanks, and in "Jean-Luc", "O'Neil", "J. R."; the stop of a word ends a sentence.
_WITHIN_NAME = re.compile(r"\s*|[-‐·'’]|(?<=\b[^\W\d_])\.\s*")
#: Scripts without blanks between words: there the tokens' own borders are all there is.
_SPACELESS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def tidied(caption: str, without_opening: Callable[[str], str] = str) -> str:
    """The caption on one line, without stock openings and repetition, beginning with a capital.

    Gone are "a video of" before a noun phrase, a word said three times and more in a row, a doubled article or
    preposition, looping phrases, and a sentence said before. The mark that ended the caption stays its end. Tidying
    twice changes nothing more, and a caption of which no word would be left stays as it is.

    Args:
      without_opening: takes the stock opening off a sentence, if there is one.
    """
    text = " ".join(caption.split())
    while (tidier := _round(text, without_opening)) != text:
        text = tidier
    return text if any(map(str.isalnum, text)) else caption


def _round(text: str, without_opening: Callable[[str], str]) -> str:
    """One round; it makes the text shorter or a letter a capital, so that rounds come to an end."""
    text = _without_medium(without_opening(text))
    ending = _ENDING.search(text)
    shorter = _unlooped(_unstuttered(_told_once(text)))
    if ending and shorter and not _ENDING.search(shorter):
        shorter += ending.group()
    return _capitalised(shorter)


def _capitalised(text: str) -> str:
    # Some capitals are two letters (ß), and a caption never grows.
    return text[:1].upper() + text[1:] if len(text[:1].upper()) == 1 else text


def _without_medium(text: str) -> str:
    rest = _NAMES_THE_MEDIUM.sub("", text, count=1)
    return text if _MEDIUM_GOES_ON.search(rest) else rest


def _told_once(text: str) -> str:
    told: set[tuple[str, ...]] = set()
    kept = []
    for sentence in _SENTENCE.findall(text):
        words = tuple(word.casefold() for word in _WORD.findall(sentence))
        # "Mr." and "No." may well come again.
        if len(words) < 2 or words not in told:
            kept.append(sentence)
        told.add(words)
    return "".join(kept).strip()


def _unstuttered(text: str) -> str:
    """Without a slip of the pen: "the the dog", "a dog dog dog"; only blanks may stand between."""
    words = list(_WORD.finditer(text))
    kept, start, at = [], 0, 0
    while at < len(words):
        same = words[at].group().casefold()
        end = at + 1
        while end < len(words) and words[end].group().casefold() == same and _only_blanks(text, words, end):
            end += 1
        most = 1 if same in _NEVER_DOUBLED else 2
        if end - at > most and same not in _SOUNDS:
            kept.append(text[start : words[at].end()])
            start = words[end - 1].end()
        at = end
    return "".join([*kept, text[start:]])


def _only_blanks(text: str, words: Sequence[re.Match[str]], at: int) -> bool:
    return text[words[at - 1].end() : words[at].start()].isspace()


def _unlooped(text: str) -> str:
    """Without the further rounds of the first loop; what follows it stays."""
    words = list(_WORD.finditer(text))
    loop = _first_loop([word.group().casefold() for word in words])
    if loop is None:
        return text
    start, period, length = loop
    over = length % period
    if start + length == len(words):
        # The caption ends within the loop, which was cut wherever the model's answer ended.
        last = start + period - 1
        while last > start and words[last].group().casefold() in _LOOSE:
            last -= 1
        return text[: words[last].end()]
    # The rest goes on from the round that was begun: from its words alone where these are most of one.
    kept = over if over * 2 >= period else period + over
    return text[: words[start + kept - 1].end()] + text[words[start + length - 1].end() :]


def _first_loop(words: Sequence[str]) -> tuple[int, int, int] | None:
    """The first word, the period and the length of the earliest loop, in words; of these the shortest period."""
    found: tuple[int, int, int] | None = None
    for period in range(2, min(_MAX_PERIOD, len(words) // 2) + 1):
        least = _LEAST_LOOP.get(period, 2 * period)
        run = 0
        for at in range(period, len(words) + 1):
            if at < len(words) and words[at] == words[at - period]:
                run += 1
                continue
            start = at - run - period
            if period + run >= least and (found is None or start < found[0]):
                found = start, period, period + run
            run = 0
    return found


def without_names(text: str, names: Iterable[tuple[int, int]], word: str = PERSON) -> str:
    """The text with each name replaced by "person", with a capital where a sentence begins.

    Names that stand side by side are one ("John" "Smith"), a title goes with its name ("Mr. Smith"), and a possessive
    stays ("Anna's dog" becomes "person's dog"). A name that ends within a word takes all of it, except where a script
    sets no blanks.

    Args:
      names: [start, end) in characters of the text, in any order; they may overlap.
    """
    parts: list[str] = []
    at = 0
    for start, end in _merged(text, names):
        before = text[at:start]
        said = "".join([*parts, before]).rstrip(" \"'“‘(")
        opens = not said or bool(_ENDING.search(said))
        parts += [before, word.capitalize() if opens else word]
        at = end
        if possessive := _BARE_POSSESSIVE.match(text, end):
            parts.append(f"{possessive.group()}s")
            at = possessive.end()
    return "".join([*parts, text[at:]])


def _merged(text: str, names: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Whole names, in order, none touching the next."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(_whole_words(text, *span) for span in names):
        if start >= end:
            continue
        if merged and (start <= merged[-1][1] or _WITHIN_NAME.fullmatch(text, merged[-1][1], start)):
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return [_bare(text, start, end) for start, end in merged]


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """The span grown to the borders of words, without blanks at its ends."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    while 0 < start < end and _joined(text, start):
        start -= 1
    while start < end < len(text) and _joined(text, end):
        end += 1
    return start, end


def _joined(text: str, at: int) -> bool:
    """Whether the characters before and at an offset are of one word."""
    pair = text[at - 1 : at + 1]
    return all(letter.isalnum() or letter == "_" for letter in pair) and not _SPACELESS.search(pair)


def _bare(text: str, start: int, end: int) -> tuple[int, int]:
    """Without a possessive at its end, and with the title before it."""
    possessive = _POSSESSIVE.search(text, start, end)
    if possessive and possessive.start() > start:
        end = possessive.start()
    if title := _HONORIFIC.search(text, 0, start):
        start = title.start()
    return start, end
