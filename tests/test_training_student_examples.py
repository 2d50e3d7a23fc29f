"""What a student sees in training: texts that come and go, an order by seed and epoch, features that are kept."""

import numpy as np
import pytest
from taught_dataset import write_taught, write_tiny

from beam_pipeline.training.examples import SplitShares
from beam_pipeline.training.student_examples import ClipOrder, Preparer, StudentExamples, epoch_order
from beam_pipeline.training.student_features import Looking
from beam_pipeline.training.student_model import read_wanted
from beam_pipeline.training.student_rows import Rules, StudentRows, select
from beam_pipeline.training.trainer import NothingReadable, TrainingError
from transforms.reel import ReelError


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A student at random with what reads for it, and 40 clips of which the third and the sixth have no reel."""
    folder = tmp_path_factory.mktemp("student")
    model, inputs = read_wanted(write_tiny(folder), {}).open("float32")
    write_taught(folder / "set", 40)
    found = select([folder / "set"], Rules(), SplitShares(0.1, 0.1, 0), str(folder))
    rows = StudentRows(found.path("train"))
    gone = [rows[at].clip.clip_id for at in (2, 5)]
    for at in (2, 5):
        (folder / "set" / "reels" / f"{rows[at].clip.video_id}.arrow").unlink()
    return folder, model, inputs, rows, gone


def titles(seen, count, epoch):
    return [
        prepared["sample"].texts.title is not None for prepared, _ in (seen[epoch * len(seen) + at] for at in count)
    ]


def test_texts_are_left_out_by_seed_epoch_and_clip_whatever_was_asked_for_before(parts):
    _, _, inputs, rows, _ = parts
    titled = [at for at in range(len(rows)) if rows[at].texts.title and at not in (2, 5)]
    seen, again = (StudentExamples(Preparer(inputs), rows, seed=3) for _ in range(2))
    first = titles(seen, titled, 0)
    assert titles(again, titled[::-1], 0)[::-1] == first
    assert titles(seen, titled, 1) != first
    shares = np.mean([titles(seen, titled, epoch) for epoch in range(20)])
    assert 0.4 < shares < 0.6
    always = StudentExamples(Preparer(inputs, keep=1.0), rows, seed=3)
    assert titles(always, titled, 0) == [True] * len(titled)


def test_clip_without_a_reel_is_replaced_by_the_next_and_named_in_the_batch(parts):
    _, _, inputs, rows, gone = parts
    seen = StudentExamples(Preparer(inputs), rows, seed=0)
    batch = seen.collate([seen[at] for at in (1, 2)])
    assert sorted(batch) == ["labels", "pixel_values", "text_ids", "text_mask", "unread"]
    assert list(batch["unread"]) == [gone[0]]
    assert (batch["pixel_values"][1] == Preparer(inputs).collate([seen[3][0]])["pixel_values"][0]).all()


@pytest.mark.parametrize("window", [1, 7, 1000])
def test_order_holds_every_clip_once_and_sources_stay_together_as_the_window_says(window):
    owners = np.repeat(np.arange(50), 4)
    order = epoch_order(owners, seed=1, epoch=2, window=window)
    assert sorted(order.tolist()) == list(range(200))
    spread = [np.ptp(np.flatnonzero(owners[order] == source)) for source in range(50)]
    # Four clips of a source in a row are three places apart; a window of w puts each off by up to w.
    assert {1: max(spread) == 3, 7: 3 < max(spread) <= 3 + 2 * 7, 1000: max(spread) > 100}[window]
    assert epoch_order(owners, 1, 2, window).tolist() == order.tolist() != epoch_order(owners, 1, 3, window).tolist()


def test_sampler_names_the_epoch_with_each_place():
    order = ClipOrder(np.arange(10), seed=0)
    order.set_epoch(3)
    assert sorted(order) == list(range(30, 40))


def test_kept_features_are_those_of_the_frames_and_stay_for_the_next_training(parts):
    import torch

    folder, model, inputs, rows, gone = parts
    clips = [one.clip for one in rows]
    lines = []
    for _ in range(2):
        looking = Looking(model, inputs, str(folder / "features"), limit_gb=1)
        features = looking.open(clips)
        looking.fill(features, lines.append)
    # The second one found them.
    assert lines == [f"looking at {4 * (len(rows) - 2)} frames: 0.00 GB of features"]
    one = rows[7]
    fresh = Preparer(inputs).prepare(one)
    wanted = model.encode_frames(Preparer(inputs).collate([fresh])["pixel_values"])
    kept = Preparer(inputs, features)
    batch = kept.collate([kept.prepare(one)])
    assert (batch["features"].dtype, "pixel_values" in batch) == (torch.float16, False)
    assert torch.allclose(batch["features"].float(), wanted, atol=2e-3 * float(wanted.abs().max()))
    with pytest.raises(ReelError, match="no readable reel"):
        kept.prepare(next(one for one in rows if one.clip.clip_id == gone[0]))


def test_features_that_a_kill_left_half_made_or_that_are_gone_are_made_anew(parts):
    folder, model, inputs, rows, _ = parts
    looking, lines = Looking(model, inputs, str(folder / "cut"), limit_gb=1), []
    features = looking.open(one.clip for one in rows)
    looking.fill(features, lines.append)
    # Another encoder's, killed in the midst: what they said of themselves before is true no more.
    features.allocate()
    looking.fill(features, lines.append)
    (folder / "cut" / "features.f16").unlink()
    looking.fill(features, lines.append)
    assert len(lines) == 3
    looking.fill(features, lines.append)
    assert len(lines) == 3


def test_features_that_take_too_much_are_refused_before_anything_is_looked_at(parts):
    folder, model, inputs, rows, _ = parts
    with pytest.raises(TrainingError, match=r"frames take 0\.0 GB, more than --cache-gb 1e-06; raise it"):
        Looking(model, inputs, str(folder / "more"), limit_gb=1e-6).open(one.clip for one in rows)
    assert not (folder / "more").exists()


def test_features_of_nothing_readable_are_refused(parts):
    folder, model, inputs, rows, gone = parts
    with pytest.raises(NothingReadable, match="no clip's reel can be read"):
        Looking(model, inputs, str(folder / "none"), 1).open(one.clip for one in rows if one.clip.clip_id in gone)
