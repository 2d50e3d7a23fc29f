"""A version's model card, in the form of the Hugging Face hub.

open("v1/README.md", "w").write(card(outcome, "models/selector/v1"))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from beam_pipeline.training.outcome import Outcome


def card(outcome: Outcome, path: str) -> str:
    """The card as Markdown with its YAML front matter.

    Args:
      path: where the version will stand.
    """
    licence = f"{outcome.entry.licence} (base weights); the clips' captions have their own"
    tags = ["video-text-retrieval", "caption-selection", "panda-70m"]
    return written({"license_name": licence, "language": "en", "tags": tags}, _body(outcome, path))


def written(front: Mapping[str, Any], body: Iterable[str]) -> str:
    """A card of these lines below its front matter, of which every card of ours has the beginning."""
    told = {"license": "other", "library_name": "reelscribe", **front}
    return (
        "\n".join(
            ["---", yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=1000).strip(), "---", "", *body]
        )
        + "\n"
    )


def recipe_of(recipe: Mapping[str, Any]) -> Iterator[str]:
    """The section that tells all that shaped the weights."""
    yield "## Recipe"
    yield ""
    yield "| | |"
    yield "|---|---|"
    for name, value in sorted(recipe.items()):
        yield f"| {name} | {value} |"
    yield ""


def _body(outcome: Outcome, path: str) -> Iterator[str]:
    entry, told = outcome.entry, outcome.selector()
    yield f"# {entry.name}, trained on people's choices"
    yield ""
    yield "Scores how well each candidate caption fits a video clip. It is reelscribe's"
    yield f"`{entry.name}` ({entry.summary}),"
    yield "fine-tuned on which of several captions people chose, as Panda-70M's selector was (arXiv 2402.19479)."
    yield ""
    yield f"- base: `{entry.model}`, revision `{entry.revision}`"
    yield f"- trained on: SHA-256 `{told['trained_on']['fingerprint']}` of clip ids, captions and choices"
    yield f"- weights: of epoch {outcome.best_epoch:g}, the best on the validation part; `train.jsonl` is the whole log"
    yield ""
    yield "| part | clips | sources | all bad |"
    yield "|---|---:|---:|---:|"
    for name, count in outcome.examples.counts().items():
        yield f"| {name} | {count['clips']:,} | {count['sources']:,} | {count['all_bad']:,} |"
    yield ""
    yield "No source stands in two parts. `test_clips.txt` names the clips of the test part."
    yield ""
    yield "## Agreement with people"
    yield ""
    yield "R@1 in hundredths, with 95 % bootstrap intervals over clips; the gain's is paired."
    yield ""
    yield "| part | clips | untrained | trained | gain |"
    yield "|---|---:|---:|---:|---:|"
    for name, one in outcome.compared.items():
        figures = (one.untrained.told(scale=100), one.trained.told(scale=100), one.gain.told("+.1f", scale=100))
        yield f"| {name} | {one.clips:,} | {' | '.join(figures)} |"
    yield ""
    yield f"In short: {outcome.verdict}."
    yield ""
    if worth := list(outcome.worth()):
        yield "## Scores"
        yield ""
        yield from (f"- {line}" for line in worth)
        yield ""
    yield "## Use"
    yield ""
    yield "```yaml"
    yield "extends: lite"
    yield outcome.profile_line(path)
    yield "```"
    yield ""
    yield "With this as `--config`, `reelscribe curate` scores the captions of a dataset anew without captioning again."
    yield ""
    yield from recipe_of(outcome.recipe)
    yield "## Limits"
    yield ""
    yield "- It learned from captions by certain teachers on certain footage; elsewhere judge it anew, with"
    yield "  `reelscribe evaluate selection`."
    yield "- The validation figures are a little too good, as the best epoch was chosen by them; the test's are not."
    yield "- A score says which caption fits better, not that what it says is true."
    if outcome.unread:
        yield f"- {len(outcome.unread):,} clips were left out, as their reels could not be read."
