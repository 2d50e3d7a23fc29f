"""The lite teachers: their wording as tables, and real captions of real pictures."""

import numpy as np
import pytest
from lite_media import clip_of, photographs, texture, write_reel

from model_handlers import catalogue, motion, teachers, wording
from model_handlers.frames import open_reel
from model_handlers.labels import load_labels
from model_handlers.motion import Motion

LABELS = load_labels()
GOLDEN, LABRADOR, TABBY, SOFA = 207, 208, 281, 831
VISUAL = ("lite-frame", "lite-frames", "lite-motion", "lite-scene", "lite-hedged")


def probabilities(**of: float) -> np.ndarray:
    """1000 probabilities: `l207=0.7` and the rest spread evenly."""
    given = {int(name[1:]): value for name, value in of.items()}
    spread = np.full(1000, (1 - sum(given.values())) / (1000 - len(given)))
    for label, value in given.items():
        spread[label] = value
    return spread


@pytest.fixture(scope="module")
def caption():
    """Ask one teacher for its caption of one clip, through its handler."""

    def ask(name, clip):
        handler = catalogue.teacher(name).build()
        (told,) = handler.run_inference([clip], handler.load_model())
        return told

    return ask


@pytest.fixture(scope="module")
def cat_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("reels") / "cat.arrow"
    return clip_of(write_reel(path, [photographs()["cat"]] * 6), 6)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"l207": 0.7}, "A golden retriever can be seen."),
        ({"l207": 0.4}, "What looks like a golden retriever can be seen."),
        ({"l207": 0.2, "l208": 0.05}, "Possibly a golden retriever can be seen."),
        ({"l207": 0.2, "l208": 0.15}, "Possibly a golden retriever or a Labrador retriever can be seen."),
        (
            {"l207": 0.05, "l281": 0.04},
            "The picture is hard to name; a golden retriever or a tabby cat would be a guess.",
        ),
    ],
)
def test_words_of_doubt_follow_from_the_probability(given, sentence):
    assert wording.seen(LABELS, probabilities(**given)) == sentence


@pytest.mark.parametrize(
    ("frames", "sentence"),
    [
        ([{"l207": 0.7}] * 4, "A golden retriever can be seen for most of the clip."),
        (
            [{"l207": 0.8}, {"l207": 0.8}, {"l831": 0.8}, {"l831": 0.4}],
            "What looks like a golden retriever can be seen for a part of the clip, "
            "with a sofa perhaps in the picture too.",
        ),
        (
            [{"l207": 0.1, "l281": 0.09, "l831": 0.08}] * 4,
            "The frames do not agree; they look like a golden retriever, a tabby cat or a sofa.",
        ),
    ],
)
def test_frames_vote(frames, sentence):
    assert wording.voted(LABELS, np.stack([probabilities(**frame) for frame in frames])) == sentence


@pytest.mark.parametrize(
    ("given", "phrase"),
    [
        ({"l207": 0.7}, "a golden retriever"),
        ({"l207": 0.3, "l208": 0.2}, "a dog, probably a golden retriever,"),
        ({"l207": 0.15, "l208": 0.12, "l222": 0.1}, "a dog, perhaps a golden retriever,"),
        ({"l207": 0.1, "l281": 0.12, "l340": 0.1}, "an animal, perhaps a cat,"),
    ],
)
def test_unsure_of_the_label_it_climbs_to_group_and_kind(given, phrase):
    assert wording.climbed(LABELS, probabilities(**given))[0] == phrase


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (None, []),
        ("   \n ", []),
        ("<b>Hi there!</b> How are you?  ", ["Hi there!", "How are you?"]),
        ("<script>alert</script> A dog.", ["alert A dog."]),
        ("Look\x00 here\u202e now. Look here now.", ["Look here now."]),
        ("Buy at https://spam.example/x #ad @me today.", ["Buy at today."]),
        ("00:01:02.500 --> 00:01:04.000 Hello you. [Music] ♪ la la ♪", ["Hello you."]),
        ('He said "stop".', ["He said 'stop'."]),
        ("{\\an8}Top line", ["Top line"]),
        ("12 34 !!", []),
    ],
)
def test_hostile_text_is_cleaned_into_sentences(text, sentences):
    assert wording.sentences_of(text) == sentences


def test_long_sentences_are_dropped_whole():
    long = " ".join(["word"] * 60) + "."
    assert wording.sentences_of(f"A short one. {long} Another one.") == ["A short one.", "Another one."]


def test_speech_without_full_stops_is_cut_into_marked_runs():
    runs = wording.sentences_of(" ".join(f"w{chr(97 + n % 26)}" for n in range(50)))
    assert [len(run.split()) for run in runs] == [21, 21, 11]
    assert all(run.endswith(" ...") for run in runs)


def test_text_of_a_megabyte_is_bounded():
    assert len(wording.sentences_of("An endless story, part %d. " * 40_000)) == 1
    assert len(wording.sentences_of(" ".join(f"This is line {n}." for n in range(5000)))) == 200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame, n: frame, "in a picture that hardly moves"),
        (lambda frame, n: np.roll(frame, -12 * n, axis=1), "while the camera moves to the right"),
        (lambda frame, n: np.roll(frame, 12 * n, axis=1), "while the camera moves to the left"),
        (lambda frame, n: np.roll(frame, -12 * n, axis=0), "while the camera moves down"),
        (lambda frame, n: zoomed(frame, 1.06**n), "while the camera comes nearer"),
        (lambda frame, n: zoomed(frame, 1.06 ** (8 - n)), "while the camera draws back"),
        (lambda frame, n: texture(seed=n), "while much of the picture moves"),
        (lambda frame, n: with_patch(frame, n), "while something moves in front of a still camera"),
    ],
    ids=["still", "right", "left", "down", "nearer", "back", "unlike", "patch"],
)
def test_motion_is_named_from_neighbouring_frames(change, words):
    frames = [change(texture(), number) for number in range(8)]
    measured = motion.measure(frames, [number * 0.5 for number in range(8)], [0] * 8)
    assert motion.phrase(measured) == words


def zoomed(frame: np.ndarray, factor: float) -> np.ndarray:
    import cv2

    height, width = frame.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 0, factor)
    return cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)


def with_patch(frame: np.ndarray, number: int) -> np.ndarray:
    """A patch as large as half the picture that wanders over it."""
    changed = frame.copy()
    at = 10 + 30 * number
    changed[60:300, at : at + 320] = texture(seed=99)[:240, :320]
    return changed


def test_frames_of_two_shots_say_nothing_about_motion():
    frames = [texture(seed=1), texture(seed=2)]
    assert motion.measure(frames, [0.0, 0.5], [0, 1]) == Motion(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0)
    assert motion.phrase(motion.measure(frames[:1], [0.0], [0])) == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lite-frame", "An Egyptian cat can be seen."),
        ("lite-frames", "An Egyptian cat can be seen for most of the clip."),
        ("lite-hedged", "An Egyptian cat can be seen."),
        ("lite-motion", "An Egyptian cat can be seen in a picture that hardly moves."),
    ],
)
def test_photograph_of_a_cat_is_captioned_as_one(caption, cat_clip, name, text):
    assert caption(name, cat_clip).answer == text


def test_photograph_of_a_cat_retrieves_a_sentence_about_cats(caption, cat_clip):
    assert "cat" in wording.sentences_of(caption("lite-scene", cat_clip).answer)[0]


@pytest.mark.parametrize("name", VISUAL)
def test_captions_do_not_change_between_runs(caption, cat_clip, name):
    assert caption(name, cat_clip).answer == caption(name, cat_clip).answer


def test_random_frame_comes_from_the_middle_and_is_drawn_by_the_clip_id(tmp_path):
    reel = write_reel(tmp_path / "r.arrow", [texture(160, 96)] * 40)
    rows = {teachers.random_middle_row(open_reel(reel), clip_of(reel, 40, f"clip-{n}")) for n in range(60)}
    assert min(rows) >= 12 and max(rows) < 28
    assert len(rows) > 10
    clip = clip_of(reel, 40, "clip-7")
    assert teachers.random_middle_row(open_reel(reel), clip) == teachers.random_middle_row(open_reel(reel), clip)


def test_text_teacher_quotes_title_and_what_is_said(caption):
    clip = clip_of(
        "no-reel",
        4,
        title="How to <i>sharpen</i> a kitchen knife",
        subtitles="Hello and welcome. Draw the knife over the stone at a steady angle. Please like and subscribe.",
    )
    assert caption("lite-text", clip).answer == (
        'A video titled "How to sharpen a kitchen knife" in which someone says: '
        '"Draw the knife over the stone at a steady angle".'
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ({"title": "Sunset at sea"}, 'A video titled "Sunset at sea".'),
        ({"description": "A walk in the park."}, 'A video, described as: "A walk in the park".'),
        ({"subtitles": "Hello you"}, 'A video in which someone says: "Hello you".'),
    ],
)
def test_text_teacher_makes_do_with_what_there_is(caption, text, expected):
    assert caption("lite-text", clip_of("no-reel", 4, **text)).answer == expected


@pytest.mark.parametrize("name", ["lite-text", "lite-frames-text"])
def test_text_that_is_all_markup_fails_that_teacher_in_plain_words(caption, cat_clip, name):
    clip = clip_of(cat_clip.reel, 6, title="<b></b> https://x.example")
    told = caption(name, clip)
    assert told.answer is None
    assert (told.failure.error_class, told.failure.message) == (
        "NoUsableText",
        "title, description and subtitles hold no words",
    )


def test_frames_and_text_teacher_takes_the_sentence_that_fits_the_picture(caption, cat_clip):
    clip = clip_of(
        cat_clip.reel,
        6,
        description="The stock market fell today. Our cat is resting on the sofa. Subscribe for more.",
    )
    assert caption("lite-frames-text", clip).answer.endswith('The text with it says: "Our cat is resting on the sofa".')


def test_frames_and_text_teacher_keeps_silent_about_text_that_does_not_fit(caption, cat_clip):
    clip = clip_of(cat_clip.reel, 6, description="Quarterly interest rates were revised.")
    assert caption("lite-frames-text", clip).answer == caption("lite-scene", cat_clip).answer


def test_clip_without_a_reel_costs_its_request_only(caption, cat_clip, tmp_path):
    handler = catalogue.teacher("lite-frames").build()
    clips = [cat_clip, clip_of(str(tmp_path / "none.arrow"), 4, "clip-2")]
    good, bad = handler.run_inference(clips, handler.load_model())
    assert good.answer == "An Egyptian cat can be seen for most of the clip."
    assert (bad.answer, bad.failure.error_class) == (None, "ReelError")
