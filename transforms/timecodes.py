"""Times as people and Panda-70M's files write them.

timecode(15.982)    # "0:00:15.982"
"""

from __future__ import annotations


def timecode(seconds: float) -> str:
    """Seconds as "H:MM:SS.mmm", the form that Panda-70M's files use; hours go past 24.

    >>> timecode(3723.5)
    '1:02:03.500'
    """
    total_ms = round(seconds * 1000)
    minutes, ms = divmod(total_ms, 60_000)
    return f"{minutes // 60}:{minutes % 60:02d}:{ms // 1000:02d}.{ms % 1000:03d}"
