"""The memory allocator of processes that compute on a CPU: a better one than the C library's, where it is installed.

The heap of glibc 2.36 grew to nearly twice what a learner used, as its freed tensors were seldom the place of new ones.
With tcmalloc an update of SmolLM2-135M's shape took 40.0 s and 4,313 MiB at its peak instead of 48.2 s and 7,331 MiB,
with jemalloc 41.6 s and 4,333 MiB (docs/log.md). Results do not depend on it.
"""

from __future__ import annotations

import functools
import os
from ctypes.util import find_library

LIBRARIES = ("tcmalloc_minimal", "tcmalloc", "jemalloc")  # the fastest first
PRELOAD = "LD_PRELOAD"  # read by the dynamic loader
# tcmalloc writes a line about every larger block, and weights are larger than its default of 1 GiB.
LARGEST = {"TCMALLOC_LARGE_ALLOC_REPORT_THRESHOLD": str(2**60)}


@functools.cache
def installed_allocator() -> str | None:
    """Return the file name of the first of `LIBRARIES` that the dynamic loader knows."""
    return next((file for name in LIBRARIES if (file := find_library(name)) is not None), None)


def allocator_variables() -> dict[str, str]:
    """Return the variables that make a new process use it; none if LD_PRELOAD is set, be it to nothing."""
    library = installed_allocator()
    return {} if library is None or PRELOAD in os.environ else {PRELOAD: library, **LARGEST}
