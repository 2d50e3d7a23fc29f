"""Prompts out of YAML: pytest tests/test_prompt_files.py"""

import re

import pytest

from model_handlers.prompts import Prompt, PromptError, load_prompts, prompt

MINE = """
mine:
  version: 3
  request: Describe it.
  request_with_text: |-
    {title}
    {description}
    {subtitles}
    Describe it.
  introductions: {title: "T:", description: "D:", subtitles: "S:"}
"""


@pytest.fixture
def mine(tmp_path) -> Prompt:
    (tmp_path / "mine.yaml").write_text(MINE)
    return prompt("mine", str(tmp_path / "mine.yaml"))


def test_a_prompt_of_the_users_stands_beside_the_built_in_ones_and_its_id_follows_its_wording(tmp_path, mine):
    assert re.fullmatch(r"mine-3-[0-9a-f]{8}", mine.prompt_id)
    (tmp_path / "other.yaml").write_text(MINE.replace("Describe it.", "Describe this."))
    other = load_prompts(str(tmp_path / "other.yaml"))
    assert sorted(other) == ["frame-sentence", "mine", "tags-sentence", "video-sentence"]
    assert other["mine"].prompt_id != mine.prompt_id
    assert prompt("mine", str(tmp_path / "mine.yaml")) == mine


def test_a_prompt_of_the_users_goes_before_a_built_in_one_of_its_name(tmp_path):
    (tmp_path / "mine.yaml").write_text(MINE.replace("mine:", "video-sentence:"))
    assert prompt("video-sentence", str(tmp_path / "mine.yaml")).request == "Describe it."
    assert prompt("video-sentence").prompt_id == "video-sentence-1"


#: Of the prompt above, what is replaced by what, and how the message begins.
WRONG = {
    "a key": ("request:", "requests:", "there is no key 'requests' in the prompt 'mine'; did you mean 'request'?"),
    "a slot": ("{title}", "{titel}", "there is no slot 'titel' in the prompt 'mine'; did you mean 'title'?"),
    "an introduced slot": (
        "title:",
        "tittle:",
        "there is no slot 'tittle' in the prompt 'mine'; did you mean 'title'?",
    ),
    "no line": ("    {title}\n", "", "the prompt 'mine' needs both a line {title} and its introduction"),
    "no introduction": ('title: "T:", ', "", "the prompt 'mine' needs both a line {title} and its introduction"),
    "inline": (
        "    {title}",
        "    T: {title}",
        "{title} must stand once in a template of the prompt 'mine', on a line",
    ),
    "twice": (
        "{title}",
        "{title}\n    {title}",
        "{title} must stand once in a template of the prompt 'mine', on a line",
    ),
    "text without text": (
        "request: D",
        'request: "{title}" #',
        "request of the prompt 'mine' goes out without text and",
    ),
    "no words": ("request: Describe it.", "request:", "the prompt 'mine' needs words under request, not None"),
    "a number": ('"T:"', "1", "the prompt 'mine' needs words under introduction of title, not 1"),
    "no version": ("  version: 3\n", "", "the prompt 'mine' needs a version, 1 or more, not None; a new wording is a"),
    "a version of words": ("version: 3", "version: true", "the prompt 'mine' needs a version, 1 or more, not True; "),
    "a name": ("mine:", "My Prompt:", "the prompt 'My Prompt' needs a name of small letters, digits and dashes"),
    "no mapping": (MINE, "mine: Describe it.", "the prompt 'mine' must be a mapping with the keys version, system,"),
    "a list": (MINE, "- mine", "FILE must be a mapping of prompt names to prompts, as model_handlers/prompts.yaml is"),
    "no YAML": (MINE, "mine: [", "cannot read the prompts in FILE: while parsing a flow node"),
}


@pytest.mark.parametrize(("old", "new", "why"), WRONG.values(), ids=WRONG)
def test_a_prompt_that_cannot_be_meant_says_what_is_wrong_in_one_line(tmp_path, old, new, why):
    file = tmp_path / "wrong.yaml"
    file.write_text(MINE.replace(old, new))
    with pytest.raises(PromptError) as caught:
        load_prompts(str(file))
    message = str(caught.value).replace(str(file), "FILE")
    assert (message[: len(why)], "\n" in message) == (why, False)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(PromptError, match=r"^cannot read the prompts in .*none\.yaml: .*No such file"):
        load_prompts(str(tmp_path / "none.yaml"))


def test_an_unknown_prompt_names_the_nearest_right_one():
    wrong = "there is no prompt 'video-sentense'; did you mean 'video-sentence'?"
    with pytest.raises(PromptError, match=f"^{re.escape(wrong)} Known: video-sentence, frame-sentence, tags-sentence$"):
        prompt("video-sentense")
