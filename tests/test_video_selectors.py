"""What video models are given; how they score is tested beside the picture models, in test_dual_selectors."""

import pytest

from model_handlers.video_selectors import VideoPrismReader, exactly


@pytest.mark.parametrize(
    ("frames", "count", "expected"),
    [("abc", 8, "aaabbbcc"), ("a", 4, "aaaa"), ("abcd", 4, "abcd"), ("abcdefgh", 4, "aceg"), ("abcde", 8, "aabbcdde")],
)
def test_frames_are_repeated_in_order(frames, count, expected):
    assert "".join(exactly(frames, count)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "hello world."),
        ("Hello,World..", "hello world."),
        ("  A man's   DOG ", "a man s dog."),
        ("It rains. Two dogs run.", "it rains two dogs run."),
        ("猫。", "猫。."),
        ("", "."),
    ],
)
def test_videoprism_reads_lower_case_words_and_a_full_stop(text, expected):
    assert VideoPrismReader(None, 64).tidy(text) == expected
