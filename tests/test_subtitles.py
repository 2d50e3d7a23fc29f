"""Reading subtitles: pytest tests/test_subtitles.py"""

import pathlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.records import Cue, Span
from transforms.subtitles import SubtitleError, align, parse_subtitles, plain_text

AUTOMATIC = """WEBVTT
Kind: captions
Language: en

00:00:00.320 --> 00:00:02.389 align:start position:0%
 
hello<00:00:00.640><c> everyone</c><00:00:00.900><c> &amp; all</c>

00:00:02.389 --> 00:00:02.399 align:start position:0%
hello everyone &amp; all
 

00:00:02.399 --> 00:00:04.000 align:start position:0%
hello everyone &amp; all
welcome<00:00:02.640><c> to</c><00:00:02.900><c> the</c><00:00:03.100><c> show</c>

00:00:04.000 --> 00:00:04.010 align:start position:0%
welcome to the show
 
"""


def test_rolling_captions_say_each_line_once():
    assert parse_subtitles(AUTOMATIC, ".vtt") == (
        Cue(0.32, 2.399, "hello everyone & all"),
        Cue(2.399, 4.01, "welcome to the show"),
    )


def test_a_line_that_grows_word_by_word_becomes_one_cue():
    steps = ((1, "we"), (2, "we are"), (3, "we are here"))
    grown = "WEBVTT\n" + "".join(f"\n00:0{at}.000 --> 00:0{at + 1}.000\n{words}\n" for at, words in steps)
    assert parse_subtitles(grown, ".vtt") == (Cue(1.0, 4.0, "we are here"),)


def test_a_word_said_again_after_a_pause_stays():
    twice = "WEBVTT\n\n00:01.000 --> 00:02.000\nyes\n\n00:03.000 --> 00:04.000\nyes\n"
    assert parse_subtitles(twice, ".vtt") == (Cue(1.0, 2.0, "yes"), Cue(3.0, 4.0, "yes"))


def test_notes_styles_names_of_cues_and_markup_are_not_speech():
    text = """WEBVTT - a title

STYLE
::cue { color: red }

NOTE this is
not said

intro
00:05.000 --> 00:06.500 line:0
<v Bob>The <b>answer</b> is
42

NOTE nor this

01:00:00.000 --> 01:00:01.000
5 &lt; 6
"""
    assert parse_subtitles(text, ".vtt") == (Cue(5.0, 6.5, "The answer is 42"), Cue(3600.0, 3601.0, "5 < 6"))


def test_subrip_keeps_its_last_line_of_digits_and_comes_sorted():
    text = "2\n00:00:03,000 --> 00:00:04,000\n{\\an8}<i>Count</i>\n10\n\n1\n00:00:01,000 --> 00:00:02,000\nFirst\n"
    assert parse_subtitles(text, ".srt") == (Cue(1.0, 2.0, "First"), Cue(3.0, 4.0, "Count 10"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_every_usual_encoding_and_line_end_reads_alike(encoding, line_end):
    text = "1\n00:00:01,000 --> 00:00:02,000\nDéjà vu, señor\n".replace("\n", line_end)
    assert parse_subtitles(text.encode(encoding), ".srt") == (Cue(1.0, 2.0, "Déjà vu, señor"),)


def test_the_text_says_what_it_is_where_the_suffix_is_wrong():
    assert parse_subtitles("WEBVTT\n\n00:01.000 --> 00:02.000\nhi\n", ".srt") == (Cue(1.0, 2.0, "hi"),)
    assert parse_subtitles("1\n00:00:01,000 --> 00:00:02,000\nhi\n", ".vtt") == (Cue(1.0, 2.0, "hi"),)


@pytest.mark.parametrize("nothing", [b"", b" \n\n", b"WEBVTT\n", b"WEBVTT\n\nNOTE only a note\n"])
def test_a_file_without_any_text_gives_no_cues(nothing):
    assert parse_subtitles(nothing, ".vtt") == ()


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (b"<!doctype html><title>404</title>\n", "not WebVTT or SubRip"),
        (b"WEBVTT\n\n00:xx --> 00:yy\nhi\n", "not WebVTT or SubRip"),
        (b"WEBVTT\n\n00:05.000 --> 00:02.000\nends before it begins\n", "a later end"),
        (b"\x00\x01\x02\x00mp4\x00\x00isom\xff\xfe" * 9, "neither UTF-8, UTF-16 nor Latin-1"),
        (b"\xff\xfe\x00\xd8\x00", "neither UTF-8, UTF-16 nor Latin-1"),
        (b"1\n00:00:01,000 --> 00:00:02,000\n" + b"x" * 20_000, "over 10000 characters"),
        (b"x" * (16 * 2**20 + 1), "larger than 16 MB"),
    ],
)
def test_what_is_no_subtitles_says_so_in_a_plain_sentence(broken, sentence):
    with pytest.raises(SubtitleError, match=sentence):
        parse_subtitles(broken, ".vtt")


def test_a_missing_file_a_directory_and_another_suffix_say_so(tmp_path):
    with pytest.raises(SubtitleError, match="No such file"):
        parse_subtitles(tmp_path / "gone.vtt", ".vtt")
    with pytest.raises(SubtitleError, match="Is a directory"):
        parse_subtitles(tmp_path, ".vtt")
    with pytest.raises(SubtitleError, match=r"\.vtt or \.srt, not in '\.docx'"):
        parse_subtitles("any\n", ".docx")


@pytest.mark.parametrize("unit", ["<a", "{", "{\\", "\n", "< ", "\n1", "\n \n", "&", "--> "])
def test_hostile_repetition_costs_linear_time(unit):
    text = "1\n00:00:00,000 --> 00:00:01,000\nhi\n" + unit * (500_000 // len(unit)) + "x"
    began = time.monotonic()
    try:
        cues = parse_subtitles(text, ".srt")
    except SubtitleError as error:
        assert "characters long" in str(error) or "no line of text" in str(error)
    else:
        assert cues[0].text.startswith("hi")
    # Quadratic patterns would take minutes.
    assert time.monotonic() - began < 10


@given(
    st.binary(max_size=400)
    | st.text(max_size=400).map(lambda text: ("WEBVTT\n\n00:01.000 --> 00:02.000\n" + text).encode())
)
def test_any_bytes_give_sorted_plain_cues_or_a_subtitle_error(raw):
    try:
        cues = parse_subtitles(raw, ".vtt")
    except SubtitleError:
        return
    assert [cue.start_s for cue in cues] == sorted(cue.start_s for cue in cues)
    assert all(cue.end_s > cue.start_s and cue.text == " ".join(cue.text.split()) != "" for cue in cues)


def test_plain_text_strips_markup_entities_and_direction_overrides():
    assert plain_text("{\\an8}<c.yellow>Fish &amp;\\N chips</c>\u202e\x07 <3") == "Fish & chips <3"


CUES = (
    Cue(0.0, 2.0, "before"),
    Cue(4.0, 8.0, "half in"),
    Cue(8.0, 9.0, "inside"),
    Cue(9.0, 10.0, "inside"),
    Cue(9.5, 40.0, "long"),
)


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (Span(6.0, 10.0), "half in inside"),
        (Span(6.1, 10.0), "inside"),
        (Span(10.0, 20.0), "long"),
        (Span(2.0, 4.0), None),
        (Span(0.0, 10.0), "before half in inside"),
        (Span(50.0, 60.0), None),
    ],
)
def test_a_cue_belongs_to_a_clip_that_has_half_of_it_or_that_it_half_fills(span, text):
    assert align(CUES, span) == text


def test_no_cues_align_to_none():
    assert align((), Span(0.0, 10.0)) is None


@pytest.mark.parametrize(
    ("name", "count", "last"),
    [
        ("---h-Df_mHE", 21, Cue(170.16, 174.96, "[Scene 21] Porsche logo on a white background.")),
        (
            "--56B73oBjg",
            11,
            Cue(85.919, 89.589, "[Scene 11] The video is about a woman playing a video game in an arcade."),
        ),
        (
            "--8tWKpDDRA",
            34,
            Cue(208.917, 212.045, "[Scene 34] Two men are sitting on chairs and talking to each other."),
        ),
    ],
)
def test_real_webvtt_reads_whole(shared_dir: pathlib.Path, name, count, last):
    cues = parse_subtitles(shared_dir / "captions" / "panda70m_vtt" / f"{name}.vtt", ".vtt")
    assert (len(cues), cues[-1]) == (count, last)


def test_real_subrip_reads_whole(shared_dir: pathlib.Path):
    folder = shared_dir / "videos" / "moviepy"
    assert parse_subtitles(folder / "subtitles-unicode.srt", ".srt") == (Cue(0.0, 5.0, "ÁÉíöÙ"),)
    assert [(c.start_s, c.text) for c in parse_subtitles(str(folder / "subtitles.srt"), ".srt")] == [
        (0.0, "Red!"),
        (2.0, "More Red!"),
        (5.0, "Green!"),
        (7.0, "Blue"),
        (9.0, "More Blue!"),
    ]
