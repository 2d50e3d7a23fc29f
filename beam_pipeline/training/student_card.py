"""A student's model card, in the form of the Hugging Face hub.

open("v1/README.md", "w").write(card(outcome, "models/student/v1", keep_frozen=True))
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from beam_pipeline.training.card import recipe_of, written

if TYPE_CHECKING:
    from beam_pipeline.training.student_outcome import Outcome


def card(outcome: Outcome, path: str, keep_frozen: bool) -> str:
    """The card as Markdown with its YAML front matter.

    Args:
      path: where the version will stand. keep_frozen: whether the frozen parts stand in it.
    """
    parts = ", ".join(sorted({part["weights"] for part in outcome.student()["parts"].values()}))
    front = {
        "license_name": f"those of {parts}, and of the captions that it was trained on",
        "pipeline_tag": "video-text-to-text",
        "tags": ["video-captioning", "panda-70m", "student"],
    }
    return written(front, _body(outcome, path, keep_frozen))


def _body(outcome: Outcome, path: str, keep_frozen: bool) -> Iterator[str]:
    told = outcome.student()
    yield "# A student captioner"
    yield ""
    yield "Says in a sentence what a video clip shows, from its frames and, where there are some, its title,"
    yield "description and subtitles. The architecture is that of Panda-70M's student (arXiv 2402.19479, section 3.4);"
    yield "it learned from the captions that a selector chose among several teachers'."
    yield ""
    for role, part in told["parts"].items():
        yield f"- {role}: `{part['weights']}`, {part['version']}"
    yield f"- trained on: SHA-256 `{told['trained_on']['fingerprint']}` of clip ids, spans, captions and texts"
    yield f"- weights: of step {outcome.best_step:,}, the best on the validation part; `train.jsonl` is the whole log"
    if not keep_frozen:
        yield "- the frozen parts are not in this directory: `config.json` says where they were, and their digests"
    yield ""
    yield "| part | clips | sources |"
    yield "|---|---:|---:|"
    for name, clips in outcome.selection.clips.items():
        yield f"| {name} | {clips:,} | {outcome.selection.sources[name]:,} |"
    yield ""
    yield "No source stands in two parts. `test_clips.txt` names the clips of the test part."
    yield from (f"Left out: {count:,} {why}." for why, count in told["trained_on"]["left_out"].items())
    yield ""
    yield "## How near it comes to the captions it learned from"
    yield ""
    yield "CIDEr in hundredths against one reference a clip, the dataset's own caption, with 95 % bootstrap intervals"
    yield 'over clips. "Without text" leaves title, description and subtitles out.'
    yield ""
    yield "| held-out clips | clips | loss | CIDEr |"
    yield "|---|---:|---:|---:|"
    for row in outcome.rows():
        yield f"| {' | '.join(row)} |"
    yield ""
    yield "## Use"
    yield ""
    yield "As a teacher, alone or beside others:"
    yield ""
    yield "```yaml"
    yield "extends: lite"
    yield outcome.profile_line(path)
    yield "```"
    yield ""
    yield "Or as a model of Transformers:"
    yield ""
    yield "```python"
    yield "from model_handlers.student_network import register"
    yield "from transformers import AutoModel"
    yield ""
    yield "register()"
    yield f"model = AutoModel.from_pretrained({path!r})"
    yield "```"
    yield ""
    yield "`StudentInputs.load` of `model_handlers.student_inputs` makes its tensors out of frames and texts."
    yield ""
    yield from recipe_of(outcome.recipe)
    yield "## Limits"
    yield ""
    yield "- It says what its teachers would have said: their mistakes are its own. `reelscribe evaluate captions`"
    yield "  judges it by people's references."
    yield "- The validation figures flatter a little: the best weights were chosen by them."
    yield "- The licences of the frozen parts, of the captions and of the clips it learned from go with the weights."
    if outcome.unread:
        yield f"- {len(outcome.unread):,} clips were left out, as their reels could not be read."
