"""The lite teachers: seven small, honest ways to caption a clip, each with inputs of its own as in the paper.

    clips | RunInference(catalogue.teacher("lite-scene").build())     # answers the caption, a sentence or two

None of them generates language. Each says what a network of 1000 labels recognises, in a sentence whose words of doubt
follow from the probabilities, or retrieves a sentence that somebody wrote.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model_handlers import motion, wording
from model_handlers.frames import random_middle_row
from model_handlers.lite import Lite, LiteHandler
from transforms.records import Clip

#: ConSE cosine from which a retrieved sentence is said with "it looks like", below with "perhaps"; never plainly, since
#: the bank's people and actions are not what the network saw.
SCENE_LIKELY = 0.35
#: Under this cosine no sentence of the text is about the picture: nine of ten captions of other clips lie below.
TEXT_FITS = 0.5
MOTION_PAIRS = 16


class NoUsableText(ValueError):
    """A clip whose title, description and subtitles hold nothing but markup and links."""


class LiteTeacher(LiteHandler[Clip, str]):
    """A teacher that captions clip by clip; subclasses implement `caption`."""

    def answer(self, requests: Sequence[Clip], model: Lite) -> list[str]:
        return [self.caption(clip, model) for clip in requests]

    def caption(self, clip: Clip, lite: Lite) -> str:
        """One plain sentence, or a few."""
        raise NotImplementedError


class FrameTeacher(LiteTeacher):
    """Names what one random frame of the clip's middle shows."""

    def caption(self, clip: Clip, lite: Lite) -> str:
        reel, _ = lite.clip_rows(clip)
        row = random_middle_row(reel, clip)
        return wording.seen(lite.labels, lite.vision.look(reel, [row]).probabilities[0])


class FramesTeacher(LiteTeacher):
    """Lets twelve uniform frames vote on what the clip shows."""

    def caption(self, clip: Clip, lite: Lite) -> str:
        return wording.voted(lite.labels, lite.clip_sight(clip).probabilities)


class MotionTeacher(LiteTeacher):
    """Says what is there and how the picture moves."""

    def caption(self, clip: Clip, lite: Lite) -> str:
        reel, _ = lite.clip_rows(clip)
        rows = reel.uniform(clip.span.start_s, clip.span.end_s, MOTION_PAIRS + 1)
        times, shots = [reel.times[row] for row in rows], [reel.shots[row] for row in rows]
        moves = motion.phrase(motion.measure(reel.frames(rows), times, shots))
        name, probability = wording.climbed(lite.labels, lite.clip_sight(clip).probabilities.mean(axis=0))
        return wording.sentence(f"{wording.hedged(name, probability)} can be seen {moves}")


class SceneTeacher(LiteTeacher):
    """Retrieves the sentence about scenes and activities that fits the clip best."""

    def caption(self, clip: Clip, lite: Lite) -> str:
        return scene(lite, lite.conse.picture(lite.clip_sight(clip).probabilities))


class HedgedTeacher(LiteTeacher):
    """Climbs from labels to groups and kinds until it is sure enough."""

    def caption(self, clip: Clip, lite: Lite) -> str:
        name, probability = wording.climbed(lite.labels, lite.clip_sight(clip).probabilities.mean(axis=0))
        if probability >= wording.LIKELY:
            return wording.sentence(f"{name} can be seen")
        return wording.sentence(f"it is hard to say what can be seen, but it may be {name.rstrip(',')}")


class TextTeacher(LiteTeacher):
    """Quotes title and the most central sentence of the subtitles or, without these, of the description."""

    def caption(self, clip: Clip, lite: Lite) -> str:
        titles = wording.sentences_of(clip.title)
        said, written = wording.sentences_of(clip.subtitles), wording.sentences_of(clip.description)
        if not (titles or said or written):
            raise NoUsableText("title, description and subtitles hold no words")
        video = f"a video titled {wording.quoted(titles[0])}" if titles else "a video"
        if said:
            return wording.sentence(f"{video} in which someone says: {wording.quoted(central(lite, said, titles))}")
        if written:
            return wording.sentence(f"{video}, described as: {wording.quoted(central(lite, written, titles))}")
        return wording.sentence(video)


class FramesTextTeacher(LiteTeacher):
    """Joins the scene with the sentence of title, description or subtitles that fits the picture best."""

    def caption(self, clip: Clip, lite: Lite) -> str:
        picture = lite.conse.picture(lite.clip_sight(clip).probabilities)
        view = scene(lite, picture)
        texts = [*wording.sentences_of(clip.title), *wording.sentences_of(clip.description)]
        texts = list(dict.fromkeys([*texts, *wording.sentences_of(clip.subtitles)]))
        if not texts:
            raise NoUsableText("title, description and subtitles hold no words")
        fits = lite.conse.fit(lite.conse.recall(picture), texts)
        best = int(np.argmax(fits))
        if fits[best] < TEXT_FITS:
            return view
        return f"{view} The text with it says: {wording.quoted(texts[best])}."


def scene(lite: Lite, picture: np.ndarray) -> str:
    """The bank's best sentence for a picture's vector, with as much doubt as its cosine asks for."""
    fits = lite.conse.bank_vectors @ picture
    best = int(np.argmax(fits))
    text = lite.conse.bank[best]
    opening = "It looks like" if fits[best] >= SCENE_LIKELY else "Perhaps"
    return f"{opening} {text[0].lower()}{text[1:]}"


def central(lite: Lite, sentences: Sequence[str], context: Sequence[str]) -> str:
    """The sentence nearest to all the others and to the context: what the text is about, not how it ends."""
    vectors = lite.sentences.encode(list(sentences))
    around = np.concatenate([vectors, lite.sentences.encode(list(context))]) if context else vectors
    # Two words are seldom what a text is about.
    length = np.array([min(len(sentence.split()), 6) / 6 for sentence in sentences])
    return sentences[int(np.argmax((vectors @ around.mean(axis=0)) * length))]
