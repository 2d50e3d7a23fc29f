"""Labels as examples: distinct captions, parts that share no source and stay as they are while a dataset grows."""

import datetime

import pytest
from annotated_dataset import write_judged
from report_dataset import candidate, clip, video, write_dataset, write_reel

from beam_pipeline.training.examples import (
    Examples,
    ExamplesError,
    SplitShares,
    example_of,
    examples_of,
    split_examples,
)
from beam_pipeline.training.trainable import Example
from transforms.annotations import Label
from transforms.judgements import Choice, Judgement, store
from transforms.lease import WriterLease
from transforms.records import Clip, MediaFacts, Span

WHEN = datetime.datetime(2026, 3, 9, tzinfo=datetime.UTC)


def clip_named(video_id: str, number: int = 0) -> Clip:
    span = Span(0.0, 1.0)
    return Clip(
        f"{video_id}-{number}", video_id, "v.mp4", span, (span,), MediaFacts(1.0, 16, 16, 2.0, ""), "r.arrow", "f"
    )


def label(chosen, *captions, good=()):
    choices = tuple(Choice(caption, (f"t{at}",)) for at, caption in enumerate(captions))
    right = frozenset(good) if chosen is None else frozenset({chosen, *good})
    return Label("c", "v", choices, chosen, (0,) * (len(choices) + 1), good=right)


def judge(folder, chosen_by_clip):
    """Store a judgement a clip; the choices are the clip's candidates."""
    told = []
    for (clip_id, video_id, captions), chosen in chosen_by_clip.items():
        choices = tuple(Choice(caption, (f"t{at}",)) for at, caption in enumerate(captions))
        told.append(Judgement(clip_id, video_id, "a", choices, chosen, None, (), None, WHEN, "s"))
    with WriterLease(folder, owner="test"):
        store(folder, told)


@pytest.mark.parametrize(
    ("told", "captions", "chosen", "good"),
    [
        (label(1, "a dog", "a cat"), ("a dog", "a cat"), 1, {1}),
        (label(2, "A dog.", "a dog", "a cat"), ("A dog.", "a cat"), 1, {1}),
        (label(1, "A dog.", "a  Dog", "a cat"), ("A dog.", "a cat"), 0, {0}),
        (label(None, "a dog", "a cat"), ("a dog", "a cat"), None, set()),
        (label(0, "a dog", "a cat", "A cat.", "rain", good=(2,)), ("a dog", "a cat", "rain"), 0, {0, 1}),
    ],
)
def test_captions_that_say_the_same_are_one_and_what_is_good_moves_with_them(told, captions, chosen, good):
    one = clip_named("v")
    assert example_of(told, one) == Example(one, captions, chosen, frozenset(good))


def test_parts_share_no_source_and_a_source_stays_where_it_is_while_the_dataset_grows():
    shares = SplitShares(0.2, 0.2, seed=3)
    examples = [Example(clip_named(f"v{at}", part), ("a", "b"), 0) for at in range(200) for part in range(2)]
    few, many = split_examples(examples[:100], [], shares), split_examples(examples, [], shares)
    for name in ("train", "validation", "test"):
        assert {one.clip.clip_id for one in few[name]} <= {one.clip.clip_id for one in many[name]}
    sources = {name: {one.clip.video_id for one in part} for name, part in many.items()}
    assert sum(map(len, sources.values())) == len(set().union(*sources.values())) == 200
    assert {name: len(part) for name, part in sources.items()} == {"train": 127, "validation": 42, "test": 31}
    assert split_examples(examples, [], SplitShares(0.2, 0.2, seed=4)) != many


def test_sources_that_are_duplicates_of_each_other_fall_into_one_part():
    examples = [Example(clip_named(f"v{at}"), ("a", "b"), 0) for at in range(100)]
    pairs = [(f"v{at}", f"v{at + 1}") for at in range(0, 100, 2)]
    parts = split_examples(examples, pairs, SplitShares(0.3, 0.3, seed=0))
    part_of = {one.clip.video_id: name for name, part in parts.items() for one in part}
    assert [part_of[one] for one, _ in pairs] == [part_of[other] for _, other in pairs]
    assert set(part_of.values()) == {"train", "validation", "test"}


def test_fingerprint_is_that_of_captions_and_choices_in_whatever_order_and_part():
    one, other = Example(clip_named("v"), ("a", "b"), 0), Example(clip_named("w"), ("c", "d"), None)
    told = Examples((one,), (other,), ()).fingerprint
    assert Examples((other,), (), (one,)).fingerprint == told
    assert Examples((Example(one.clip, ("a", "b"), 1),), (other,), ()).fingerprint != told
    # That the chosen one is good need not be said; that another one is good changes what is learned.
    assert Examples((Example(one.clip, ("a", "b"), 0, frozenset({0})),), (other,), ()).fingerprint == told
    assert Examples((Example(one.clip, ("a", "b"), 0, frozenset({0, 1})),), (other,), ()).fingerprint != told


def many_clips(folder, sources, without_reel=()):
    """One judged clip a source."""
    videos = [video(f"v{at}", 5.0) for at in range(sources)]
    said = [candidate("t0", "a dog", 0.5), candidate("t1", "a cat", 0.25)]
    clips = [clip(f"v{at}", 0.0, 4.0, said) for at in range(sources)]
    write_dataset(folder, videos=videos, clips=clips)
    for at in range(sources):
        if at not in without_reel:
            write_reel(folder, f"v{at}", 1.0, (64, 36))
    judge(folder, {(f"v{at}-0-4000", f"v{at}", ("a dog", "a cat")): (None, 0, 1)[at % 3] for at in range(sources)})
    return str(folder)


def test_clips_without_a_reel_are_left_out_and_told_and_datasets_are_read_together(tmp_path):
    first = many_clips(tmp_path / "first", 24, without_reel=(3, 4))
    found = examples_of([first], SplitShares(0.2, 0.2))
    assert found.left_out["clips have no reel"] == 2
    assert sum(map(len, found.parts.values())) == 22
    assert "left out: 2 clips have no reel" in found.describe()
    counts = found.counts()
    assert sum(count["all_bad"] for count in counts.values()) == 7
    # The same sources again: they stand twice.
    second = many_clips(tmp_path / "second", 26)
    both = examples_of([first, second], SplitShares(0.2, 0.2))
    assert (both.left_out["clips stand twice"], sum(map(len, both.parts.values()))) == (22, 26)


def of_clips_gone(folder):
    """A dataset whose judged clips are no more in it."""
    write_judged(folder)
    judge(folder, {("v9-0-4000", "v9", ("a dog", "a cat")): 0})
    return str(folder)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (of_clips_gone, "none of the 1 judged clips .* is left: 1 judged clips are gone; have clips judged that are"),
        (lambda folder: str(write_judged(folder)), "nobody has judged clips of .*annotate export"),
        (
            lambda folder: many_clips(folder, 4, without_reel=range(4)),
            "none of the 4 judged clips .* is left: 4 clips have no reel; run curate again without --reels drop",
        ),
        (lambda folder: many_clips(folder, 2), "2 judged clips are too few"),
    ],
)
def test_too_little_to_train_on_is_said_with_what_to_do(tmp_path, make, told):
    with pytest.raises(ExamplesError, match=told):
        examples_of([make(tmp_path / "set")], SplitShares())


@pytest.mark.parametrize(("validation", "test", "told"), [(0.5, 0.5, "nothing to train on"), (0.0, 0.1, "above 0")])
def test_shares_that_leave_nothing_are_refused(validation, test, told):
    with pytest.raises(ExamplesError, match=told):
        SplitShares(validation, test)
