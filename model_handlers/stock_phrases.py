"""What chat models say round a caption: openings, farewells and refusals, recognised.

    without_opening("In this video, a man plays guitar.")       # "A man plays guitar."
    refuses("I'm sorry, but I can't view the video.")           # True

Patterns are bounded, so that no answer makes them slow. English: our prompts ask for English.
"""

from __future__ import annotations

import re

_MEDIUM = (
    r"(?:video(?: (?:clip|frame|footage|sequence|segment))?|clip|image|picture|photo(?:graph)?|frame|scene|footage"
    r"|screenshot|still|shot|segment|sequence|animation|gif)"
)
_KIND = (
    r"(?:short|brief|given|provided|entire|whole|animated|close-up|opening|following|above|blurry|still|single|colou?r"
    r"|black[- ]and[- ]white|time-?lapse|slow-motion)"
)
_TELLING = r"(?:summary|summari[sz]ation|caption|description|sentence|answer|response)"
_TOLD = (
    r"(?:one|single|short|brief|concise|faithful|possible|suitable|simple|plain|final|accurate|detailed|english|factual"
    r"|objective|single[- ]sentence|one[- ]sentence|video|clip|image|frame|best)"
)
_SOURCE = (
    r"(?:the|this|your|its|provided|given|available|accompanying|video(?:'s)?|and|of|in|from|titles?|descriptions?"
    r"|subtitles?|tags?|texts?|metadata|information|context|contents?|frames?|images?|clip(?:'s)?|transcript|words|spoken"
    r"|visuals?|visible|above|you|us|me)"
)

_INTERJECTION = re.compile(
    r"\A(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok|no problem|gladly|alright)\s*[!,.:;–—-]+\s+",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"\A(?:assistant|ai|bot|chatgpt|answer|response|output|final answer"
    rf"|(?:(?:a|an|the|one|your|my)\s+)?(?:{_TOLD}\s+){{0,5}}{_TELLING}"
    r"(?:\s+(?:of|for|about|based|in|from|describing|which|would|could|might|is|summari[sz]ing)\b[^.!?:：\n]{0,120})?)"
    # A colon, or the caption's own quote: The caption could be "A dog runs".
    r"\s*(?:[:：]|(?<=\bbe)\s(?=[\"“])|(?<=\bis)\s(?=[\"“]))\s*",
    re.IGNORECASE,
)
_ANNOUNCEMENT = re.compile(
    rf"\A(?:here(?:['’]s| is| are)|below is|the following is)\s[^.!?:：\n]{{0,160}}?\b{_TELLING}\b[^.!?:：\n]{{0,120}}"
    rf"(?:[:：.]\s*|\n+)|\Athis is\s[^.!?:：\n]{{0,80}}?\b{_TELLING}\b[^.!?:：\n]{{0,120}}[:：]\s*",
    re.IGNORECASE,
)
_BASED_ON = re.compile(
    r"\A(?:based (?:only |solely )?(?:up)?on|according to|judging (?:by|from)|given)\s+"
    rf"(?:{_SOURCE},?\s+){{0,30}}{_SOURCE},\s+",
    re.IGNORECASE,
)
_SEE = r"(?:(?:we|you|one|i) (?:can )?(?:see|observe)\s+)?"
_SUBJECT = (
    r"(?:an?|the|this|that|these|there|two|three|four|five|six|several|many|some|one|people|some(?:one|body)|he|she|they"
    r"|it|we|you|i|his|her|their|various|multiple|men|women|children)"
)
_IN_VIDEO = re.compile(
    rf"\A(?:in|throughout|during)\s+(?:this|the)\s+(?:{_KIND}\s+){{0,2}}{_MEDIUM}(?:,\s+|\s+(?={_SUBJECT}\s)){_SEE}",
    re.IGNORECASE,
)
_SHOWS = re.compile(
    rf"\A(?:the|this)\s+(?:{_KIND}\s+){{0,3}}{_MEDIUM}\s+(?:also\s+|clearly\s+|mainly\s+|primarily\s+)?"
    r"(?:shows|depicts|features|displays|captures|presents|showcases|portrays|illustrates|contains|is showing|is of"
    r"|is about|(?:seems|appears) to show)\s+(?:us\s+)?(?:that\s+)?",
    re.IGNORECASE,
)
# "shows how to bake" and "shows off a car" leave no sentence behind them.
_NO_SENTENCE = re.compile(
    r"(?:how|what|why|where|when|who|whom|whose|whether|off|up|out|to|of|from|and|or|but|for|with|in|on|at|by|as|more"
    r"|itself|is|are|was|were|them|him|us|not|above|below|here|only|both)\b",
    re.IGNORECASE,
)
# Its second verb belongs to the video, which would be gone: "shows a cook and explains how to bake".
_GOES_ON = re.compile(
    r"(?:\band|\bthen|\balso|\bbut|\bbefore|,)\s+(?:then\s+|also\s+|finally\s+)?(?:starts|begins|opens|ends|closes|shows"
    r"|explains|demonstrates|includes|concludes|provides|discusses|highlights|features|emphasi[sz]es|presents|depicts"
    r"|captures|transitions|cuts|switches|moves on|showing how|it (?:shows|ends|cuts|switches))\b",
    re.IGNORECASE,
)
_GERUND = re.compile(r"\w+ing\b", re.IGNORECASE)
# Something that happens: "a man diving into a pool", but not "a nice card trick".
_HAPPENS = re.compile(
    r"\b(?:\w{2,}(?:ing|ed)|is|are|was|were|has|have|can|seen|shown|held|worn|made|sits?|stands?)\b", re.IGNORECASE
)
#: Each opening with whether the words behind it must make a sentence without it.
_OPENINGS = (
    (_INTERJECTION, False),
    (_ANNOUNCEMENT, False),
    (_LABEL, False),
    (_BASED_ON, True),
    (_IN_VIDEO, True),
    (_SHOWS, True),
)
MIN_SENTENCE_WORDS = 3


def without_opening(text: str) -> str:
    """The text without stock openings; what then comes first gets a capital."""
    whole = text
    while True:
        for opening, needs_sentence in _OPENINGS:
            rest = opening.sub("", text, count=1)
            if rest != text and any(map(str.isalpha, rest)) and (not needs_sentence or _stands_alone(rest, opening)):
                text = rest
                break
        else:
            break
    # Some capitals are two letters (ß); a caption never grows.
    return text if text == whole or len(text[0].upper()) > 1 else text[0].upper() + text[1:]


def _stands_alone(rest: str, opening: re.Pattern[str]) -> bool:
    if len(rest.split()) < MIN_SENTENCE_WORDS or _NO_SENTENCE.match(rest) or _GERUND.match(rest):
        return False
    if opening is not _SHOWS:
        return True
    return bool(_HAPPENS.search(rest, rest.index(" "))) and not _GOES_ON.search(rest)


_LOOSE_END = re.compile(
    r"(?:[\s,;:–—-]+|(?:(?<=\s)|\A)(?:and|or|but|then|with|an?|the|of|in|on|to|at|by|for|from|into|is|are|that|who|which"
    r"|while|as|his|her|its|their))\Z",
    re.IGNORECASE,
)


def without_loose_end(text: str) -> str:
    """Without the conjunctions, articles and commas that a cut left at the end."""
    while (shorter := _LOOSE_END.sub("", text)) != text:
        text = shorter
    return text


_SEEN = (
    r"(?:videos?|clips?|images?|pictures?|photos?|frames?|footage|visuals?|media|files?|attachments?|links?|content)\b"
)
_CANNOT = r"(?:can't|cannot|can not|could not|couldn't|am unable to|do not|don't|did not|didn't|won't|will not)"
_GIVEN = r"(?:provided|attached|uploaded|given|shared|included|available|accessible|supplied)\b"
_MORE = r"(?:more|further|additional) (?:context|information|details)\b"
_SORRY = r"(?:i(?:'m| am) )?(?:very |so |really |terribly )?sorry"
_THERE = r"(?:it (?:looks|seems|appears)(?: like| that| as if)? )?there (?:is|are|was|were)"
_REFUSALS = (
    r"as an? (?:ai|artificial|large|language|text|vision|visual|multimodal)\b.{0,40}?\b(?:model|assistant|ai)\b",
    r"i(?:'m| am) (?:just |only )?(?:an? (?:ai|language|text)|unable|not able|incapable|not (?:designed|capable))\b",
    rf"{_SORRY}[.!]*\Z",
    rf"{_SORRY}\b[^.!?]{{0,60}}\b(?:can't|cannot|can not|couldn't|unable|not able|don't|do not|didn't|doesn't|isn't"
    rf"|without|won't|need|no {_SEEN})",
    r"(?:my )?apologies\b|i (?:must )?apologi[sz]e\b",
    rf"i {_CANNOT} (?:\w+ly )?(?:see|view|watch|open|play|find|receive|detect)\b[^.!?]{{0,60}}\b{_SEEN}",
    rf"i {_CANNOT} (?:\w+ly )?(?:access|assist|fulfill?|comply|describe|summari[sz]e|caption|provide|analy[sz]e"
    r"|generate|determine|identify|answer|create|help (?:you|with)|tell what)\b",
    rf"i {_CANNOT} have (?:access|the ability|enough|sufficient|any)\b",
    rf"{_THERE} no (?:\w+ )?(?:{_SEEN}|(?:subtitles?|text|information)\b)[^.!?]{{0,40}}\b"
    rf"(?:{_GIVEN}|to (?:describe|summari[sz]e|caption)\b)",
    rf"no (?:{_SEEN}|subtitles?|text|information)(?: (?:was|is|were|are|has been|have been))? {_GIVEN}",
    r"(?:please|(?:could|can|would|if) you(?: please| could| can)?) (?:provide|upload|share|attach|give me|send|supply"
    r"|describe|specify|clarify)\b",
    rf"you (?:have not|haven't|did not|didn't) {_GIVEN}",
    rf"without (?:seeing|viewing|watching|access to|being able to see|the (?:actual )?{_SEEN}|{_MORE})",
    rf"(?:the|this|your) {_SEEN} (?:is|was|are|were)(?: not|n't) (?:{_GIVEN}|visible\b|loading\b)",
    rf"(?:the|this|your) {_SEEN} (?:cannot|can't|could not|couldn't) be (?:opened|loaded|accessed|viewed|played)\b",
    r"it(?: is|'s) (?:not possible|impossible|unclear) (?:for me )?to (?:describe|determine|summari[sz]e|caption|tell"
    r"|say|provide|see|identify)\b",
    rf"i (?:would |'d )?(?:need|require) (?:{_MORE}|(?:to see |access to )?(?:the|a) {_SEEN})",
    r"(?:how (?:can|may) i (?:help|assist)|what would you like)\b",
    r"(?:unanswerable|n/?a|none|unknown|null|undefined|no (?:caption|answer|description|summary))\W*\Z",
)
_REFUSAL = re.compile(
    rf"\A[\"'(*\s]*(?:(?:but|however|unfortunately|oops|hmm|hello|hi|well)[,.!]?\s+){{0,4}}(?:{'|'.join(_REFUSALS)})",
    re.IGNORECASE,
)
_FAREWELL = re.compile(
    r"\A[\"'(*\s]*(?:let me know|i hope|hope (?:this|that)|feel free|please (?:let|note)|note(?: that|\s*:)"
    r"|(?:explanation|disclaimer)\s*:|if you (?:need|have|would|want)|would you like|is there anything"
    r"|do you (?:want|need|have))",
    re.IGNORECASE,
)


def refuses(sentence: str) -> bool:
    """Whether a sentence is the model's excuse, refusal or question instead of a caption, or announces one in vain."""
    return bool(_REFUSAL.match(sentence.replace("’", "'")) or _ANNOUNCEMENT.fullmatch(sentence))


def takes_leave(sentence: str) -> bool:
    """Whether a sentence is said to the reader behind the caption."""
    return bool(_FAREWELL.match(sentence.replace("’", "'")))
