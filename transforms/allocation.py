"""How the C library deals with the memory of pictures, in a process that decodes.

keep_freed_memory()
"""

from __future__ import annotations

import ctypes

#: Options of glibc's mallopt, and blocks of up to what size they shall hold for.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _KEPT_BYTES = -1, -3, 256 << 20


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next picture, instead of giving it back to the kernel each time.

    A picture of a few megabytes would otherwise cost thousands of page faults, several times its conversion.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc
        for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            mallopt(option, _KEPT_BYTES)
