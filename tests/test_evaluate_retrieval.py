"""Ranks counted by hand, against scikit-learn's, and retrieval by the selectors that jobs use."""

import json
import math

import numpy as np
import pytest
from lite_media import photographs, write_reel
from report_dataset import candidate, clip, video, write_dataset
from synthetic import make_video

from beam_pipeline.cli import main
from beam_pipeline.evaluate_bootstrap import Interval
from beam_pipeline.evaluate_gallery import Gallery, dataset_gallery
from beam_pipeline.evaluate_ranks import (
    Texts,
    chance_text_to_video,
    chance_video_to_text,
    recall,
    text_to_video,
    video_to_text,
)
from beam_pipeline.evaluate_references import Reference
from beam_pipeline.evaluate_retrieval import evaluate_retrieval, study_ranks
from beam_pipeline.evaluate_scoring import Scorer, scored
from beam_pipeline.evaluate_tables import left_out
from model_handlers import catalogue
from model_handlers.base import ElementwiseHandler
from transforms.records import Clip, MediaFacts, Span

CAPTIONS = {
    "cat": "A cat looks into the camera.",
    "coffee": "A cup of coffee stands on a table.",
    "rocket": "A rocket on its launch pad.",
    "temple": "A pagoda with a tall roof.",
    "flower": "A close-up of a flower.",
}


def test_ranks_are_those_counted_by_hand():
    texts = Texts.of([["p", "q"], ["r"], ["p"]])
    assert texts == Texts(("p", "q", "r"), ((0, 1), (2,), (0,)))
    #          p    q    r
    scores = np.array([[0.5, 0.1, 0.6], [0.7, 0.3, 0.2], [0.9, 0.2, 0.2]])
    # p of the first clip: only the second clip is wrong, and scores more. q: both others do. r: of the second clip,
    # the first scores more and the third the same, which counts as more. p of the third clip: nobody scores more.
    assert text_to_video(scores, texts).tolist() == [2, 3, 3, 1]
    # First clip: its best is p with .5, and r scores more. Second: r with .2 is the worst. Third: p is best.
    assert video_to_text(scores, texts).tolist() == [2, 3, 1]


def test_a_selector_that_scores_everything_alike_earns_nothing():
    texts = Texts.of([[str(number)] for number in range(20)])
    same = np.zeros((20, 20))
    assert text_to_video(same, texts).tolist() == [20] * 20
    assert recall(video_to_text(same, texts), 10) == 0.0


def test_recall_is_that_of_scikit_learn():
    from sklearn.metrics import top_k_accuracy_score

    scores = np.random.default_rng(3).normal(size=(300, 300)).astype(np.float32)
    texts = Texts.of([[str(number)] for number in range(300)])
    for most in (1, 5, 10):
        by_text = top_k_accuracy_score(np.arange(300), scores.T, k=most)
        assert recall(text_to_video(scores, texts), most) == pytest.approx(by_text)
        by_clip = top_k_accuracy_score(np.arange(300), scores, k=most)
        assert recall(video_to_text(scores, texts), most) == pytest.approx(by_clip)


def test_chance_is_what_blind_drawing_finds():
    texts = Texts.of([["a", "b"], ["c"], ["d"]])
    assert chance_text_to_video(texts, 1) == pytest.approx(1 / 3)
    assert chance_text_to_video(texts, 5) == 1.0
    # Of four texts two are right for the first clip, one for the others.
    assert chance_video_to_text(texts, 1) == pytest.approx((2 / 4 + 1 / 4 + 1 / 4) / 3)
    assert chance_video_to_text(texts, 2) == pytest.approx((1 - 1 / math.comb(4, 2) + 2 * (2 / 4)) / 3)


class ByLetters(ElementwiseHandler):
    """Scores a caption by its first letter: 1 where it is the clip's; knows no clip called `bad`."""

    def load(self):
        return object()

    def answer(self, requests, model):
        if any(request.clip.clip_id == "bad" for request in requests):
            raise ValueError("no such clip")
        return [tuple(float(one.text[0] == request.clip.clip_id) for one in request.candidates) for request in requests]


def by_letters() -> Scorer:
    handler = ByLetters("letters", max_batch=2)
    return Scorer(named("letters"), handler, handler.load_model())


def named(name: str) -> catalogue.Entry:
    return catalogue.Entry(name, "", "", "", "", lambda: None)


def plain(clip_id: str) -> Clip:
    span = Span(0.0, 1.0)
    return Clip(clip_id, "v", "v.mp4", span, (span,), MediaFacts(1.0, 2, 2, 1.0, ""), "", "")


def test_scores_come_text_by_text_in_pieces_and_a_clip_that_fails_costs_itself():
    texts = [f"{'abc'[number % 3]} {number}" for number in range(600)]
    with scored(by_letters(), [plain("a"), plain("bad"), plain("c")], texts) as matrix:
        assert matrix.failed == {"bad": "ValueError: no such clip"}
        expected = [[float(text[0] == name) for text in texts] for name in "ac"]
        np.testing.assert_array_equal(matrix.scores[[0, 2]], expected)
        assert np.isnan(matrix.scores[1]).all()


def test_a_clip_that_cannot_be_scored_is_left_out_of_all_figures_and_told():
    gallery = Gallery((plain("a"), plain("bad"), plain("b")), (("a 1",), ("bad",), ("b 1", "b 2")), ())
    found = evaluate_retrieval(gallery, [by_letters()])
    both = found.rows["letters"]
    assert (found.clips, found.texts) == (2, 3)
    assert [one.value for one in both["text to video"].recalls] == [1.0, 1.0, 1.0]
    assert (both["text to video"].queries, both["video to text"].queries) == (3, 2)
    assert both["video to text"].median_rank.value == 1.0
    assert found.notes[-1] == "left out: bad: letters: ValueError: no such clip"


def test_the_gain_of_a_selector_over_the_first_is_paired():
    texts = Texts.of([[str(number)] for number in range(40)])
    poor, good = np.full(40, 7), np.where(np.arange(40) < 10, 1, 7)
    found = study_ranks(texts, {"poor": (poor, poor), "good": (good, poor)})
    at_1, at_5, at_10 = found.gains["good - poor"]["text to video"]
    assert (at_1.value, at_5.value, at_10) == (0.25, 0.25, Interval(0.0, 0.0, 0.0))
    # Ten of forty: a standard error of .068.
    assert (at_1.low, at_1.high) == (pytest.approx(0.25 - 0.134, abs=0.03), pytest.approx(0.25 + 0.134, abs=0.03))
    assert found.gains["good - poor"]["video to text"][0] == Interval(0.0, 0.0, 0.0)


def test_where_no_clip_can_be_scored_the_first_reason_is_told():
    gallery = Gallery((plain("bad"),), (("bad",),), ())
    with pytest.raises(RuntimeError, match="no clip could be scored; the first: letters: ValueError: no such clip"):
        evaluate_retrieval(gallery, [by_letters()])


def test_of_many_clips_that_are_left_out_the_first_are_named():
    told = left_out({f"c{number}": "why" for number in range(23)})
    assert (len(told), told[0], told[-1]) == (21, "left out: c0: why", "left out: 3 more")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    pytest.importorskip("skimage")
    folder = tmp_path_factory.mktemp("retrieval") / "set"
    pictures = photographs()
    write_dataset(
        folder,
        videos=[video(name, 3.0) for name in pictures],
        clips=[clip(name, 0.0, 3.0, [candidate("frame", CAPTIONS[name], 0.9)]) for name in pictures],
    )
    (folder / "reels").mkdir()
    for name, picture in pictures.items():
        write_reel(folder / "reels" / f"{name}.arrow", [picture] * 6)
    return folder


def test_the_lite_selector_finds_photographs_by_their_captions(dataset, tmp_path, capsys):
    places = ["--json", str(tmp_path / "r.json"), "--html", str(tmp_path / "r.html")]
    assert main(["evaluate", "retrieval", str(dataset), *places]) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[0].split() == ["selector", "queries", "R@1", "R@5", "R@10", "median", "rank"]
    written = json.loads((tmp_path / "r.json").read_text("utf-8"))
    found = written["rows"]["conse"]["text to video"]
    assert (written["clips"], written["texts"], found["queries"]) == (5, 5, 5)
    assert found["R@1"]["value"] >= 0.8 and found["R@5"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert written["chance"]["text to video"] == {"R@1": 0.2, "R@5": 1.0, "R@10": 1.0}
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "<script" not in page and page.count("<svg") == 1


def test_a_dataset_gives_its_references_or_its_chosen_captions_and_a_sample_is_told(dataset):
    told = dataset_gallery(dataset, [Reference("cat", "a pet"), Reference("cat", "a cat")], 10)
    assert [(one.clip_id, one.reel) for one in told.clips] == [("cat-0-3000", str(dataset / "reels" / "cat.arrow"))]
    assert told.captions == (("a pet", "a cat"),)
    some = dataset_gallery(dataset, None, 3)
    assert len(some.clips) == 3 and some == dataset_gallery(dataset, None, 3)
    assert some.captions == tuple((CAPTIONS[one.video_id],) for one in some.clips)
    assert some.notes[-1] == "3 of 5 clips were drawn (--limit, --seed 0)"


def test_videos_with_a_file_of_captions_are_a_gallery(tmp_path, capsys):
    for name in ("a", "b"):
        make_video(tmp_path / f"{name}.mp4", [(1.0, "red"), (1.0, "blue")])
    (tmp_path / "bad.mp4").write_text("no video")
    rows = [{"file": f"{name}.mp4", "caption": f"a {name}"} for name in ("a", "b", "bad")]
    (tmp_path / "c.json").write_text(json.dumps(rows), "utf-8")
    given = ["--captions", str(tmp_path / "c.json"), "--json", str(tmp_path / "out.json")]
    assert main(["evaluate", "retrieval", *(str(tmp_path / f"{name}.mp4") for name in ("a", "b", "bad")), *given]) == 0
    written = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert (written["clips"], written["texts"]) == (2, 2)
    assert any(note.startswith(f"left out: {tmp_path / 'bad.mp4'}: ") for note in written["notes"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{folder}"], "is no dataset; of videos say with --captions FILE what is told of them"),
        (["{set}", "--selector", "konse"], "there is no selector 'konse'; did you mean 'conse'?"),
        (["{set}", "--captions", "{foreign}"], "no reference is about any clip"),
        (["{set}", "--limit", "0"], "'0' is not a number from 1 up"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(dataset, tmp_path, capsys, arguments, told):
    (tmp_path / "foreign.json").write_text(json.dumps({"nobody": "knows"}), "utf-8")
    names = {"folder": tmp_path, "set": dataset, "foreign": tmp_path / "foreign.json"}
    assert main(["evaluate", "retrieval", *(one.format(**names) for one in arguments)]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
