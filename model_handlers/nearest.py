"""A word that is none of those known, told with the one that was probably meant.

raise ValueError(f"there is no prompt {name!r}; {nearest(name, prompts)}")
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def nearest(name: Any, known: Iterable[str]) -> str:
    """Which of the words known is nearest, and all of them."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
    return f"did you mean {near[0]!r}? Known: {', '.join(known)}"
