"""What a trained selector is told to be: what it learned from, and how well it agrees with people.

    told(entry.trained.as_json())     # trained on 800 clips; 36.0 % agreement with people on 100 held-out clips, ...

It is told by whoever wrote `selector.json`; numbers that are none are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: The parts whose clips were not trained on; the best epoch was chosen by the second.
_HELD_OUT = {"test": "held-out", "validation": "validation"}


def told(training: Mapping[str, Any]) -> str:
    """One line of `Trained.as_json`'s values."""
    return "; ".join(_parts(training))


def _parts(training: Mapping[str, Any]) -> Iterator[str]:
    learned = training.get("trained_on")
    clips, sources = _number(learned, "examples", "train"), _number(learned, "sources", "train")
    counts = [f"{count:,.0f} {what}" for count, what in ((clips, "clips"), (sources, "sources")) if count is not None]
    yield f"trained on {' of '.join(counts)}" if counts else "trained"
    found = training.get("metrics")
    for part, name in _HELD_OUT.items():
        trained, untrained = (_number(found, part, which, "value") for which in ("trained", "untrained"))
        if trained is not None:
            clips = _number(found, part, "clips")
            on = f"on {clips:,.0f} {name} clips" if clips is not None else f"on {name} clips"
            before = f", {100 * untrained:.1f} % untrained" if untrained is not None else ""
            yield f"{100 * trained:.1f} % agreement with people {on}{before}"
            break
    curve, limit = training.get("calibration"), training.get("abstain_below")
    calibrated = f"scores calibrated ({curve})" if isinstance(curve, str) else "scores not calibrated"
    yield f"{calibrated}, abstains below {limit:.3g}" if isinstance(limit, int | float) else calibrated


def _number(values: Any, *keys: str) -> float | None:
    """The number that stands there, from nought to a million million."""
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    whole = isinstance(values, int | float) and not isinstance(values, bool)
    return float(values) if whole and 0 <= values <= 1e12 else None
