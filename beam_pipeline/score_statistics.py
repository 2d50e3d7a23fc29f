"""How the measures of a dataset are distributed, and what a threshold would drop: for the summary and the report.

    for line in describe(gather(Snapshot.open("out").scan)): print(line)

Clips that a filter has dropped are in here, too: whoever moves a threshold has to see both sides of it.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.measure_columns import MEASURED, MeasureColumn
from transforms.schemas import FILTER_STAGE

#: The shares of clips whose bounds the summary tells.
SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
#: A label or two more says nothing in a line.
_LABELS = 8


@dataclasses.dataclass(frozen=True)
class Score:
    """One measure's column over all clips.

    Attributes:
      values: of a number, sorted. labels: of a text, how many clips have each, the most frequent first.
    """

    column: MeasureColumn
    values: np.ndarray
    labels: Mapping[str, int]

    @property
    def clips(self) -> int:
        """How many clips it was measured of."""
        return len(self.values) or sum(self.labels.values())


@dataclasses.dataclass(frozen=True)
class Scores:
    """All measures of a dataset; `dropped` counts the clips that filters dropped, by reason."""

    clips: int
    scores: Sequence[Score]
    dropped: Mapping[str, int]


def gather(scan: Callable[[str, list[str]], Iterable[pa.RecordBatch]]) -> Scores:
    """Read the measures in one pass over each table, in memory that grows with what was measured.

    Args:
      scan: a table's rows with these columns, batch by batch (`transforms.tables.Snapshot.scan`).
    """
    told = [column for column in MEASURED if column.is_number or pa.types.is_string(column.kind)]
    there: dict[str, list[pa.Array]] = {column.name: [] for column in told}
    reasons: list[str] = []
    kept = 0
    for name, about in (("clips", ["clip_id"]), ("rejected", ["stage", "reason"])):
        for batch in scan(name, [*about, *there]):
            for column, found in there.items():
                found.append(batch.column(column).drop_null())
            if name == "clips":
                kept += batch.num_rows
            else:
                dropped = pc.equal(batch.column("stage"), FILTER_STAGE)
                reasons += batch.column("reason").filter(dropped).to_pylist()
    scores = [_score(column, there[column.name]) for column in told]
    return Scores(kept + len(reasons), [score for score in scores if score.clips], _counted(reasons))


def _score(column: MeasureColumn, chunks: Sequence[pa.Array]) -> Score:
    found = pa.chunked_array(chunks, column.kind)
    if not column.is_number:
        return Score(column, np.empty(0), _counted(found.to_pylist()))
    values = found.to_numpy().astype(np.float64)
    return Score(column, np.sort(values[np.isfinite(values)]), {})


def _counted(words: Sequence[str]) -> dict[str, int]:
    return dict(collections.Counter(words).most_common())


def describe(found: Scores) -> Iterator[str]:
    """The distributions as lines for people; none where nothing was measured."""
    numbers = [score for score in found.scores if len(score.values)]
    labels = [score for score in found.scores if score.labels]
    if numbers:
        yield "scores    so many of the clips are below; a min there drops them, a max there the others"
        yield "          " + f"{'':22}" + "".join(f"{share:>9.0%}" for share in SHARES)
    for score in numbers:
        bounds = np.quantile(score.values, SHARES)
        yield "          " + f"{score.column.name:22}" + "".join(f"{bound:>9.3g}" for bound in bounds)
    for score in labels:
        told = ", ".join(f"{label} {count / score.clips:.0%}" for label, count in list(score.labels.items())[:_LABELS])
        more = f" and {len(score.labels) - _LABELS} more" if len(score.labels) > _LABELS else ""
        yield f"          {score.column.name:22} {told}{more}"
    for reason, count in found.dropped.items():
        yield f"dropped   {count} clips ({count / found.clips:.1%}): {reason}"
