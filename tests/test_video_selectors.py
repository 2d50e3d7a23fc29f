"""What video models are given; how they score is tested beside the picture models, in test_dual_selectors."""

import pytest

from model_handlers.frames import exactly
from model_handlers.video_selectors import VideoPrismReader


@pytest.mark.parametrize(
    ("frames", "count", "expected"),
    [
        ("abc", 8, "aaabbbcc"),
        ("a", 4, "aaaa"),
        ("abcd", 4, "abcd"),
        ("abcd", 6, "aabccd"),
        ("abcde", 8, "aabbcdde"),
        ("abcdefgh", 4, "aceg"),
    ],
)
def test_missing_frames_are_repeated_and_spare_ones_left_out_in_order(frames, count, expected):
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
