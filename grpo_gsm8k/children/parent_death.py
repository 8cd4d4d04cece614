"""Child processes that end with their parent."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1
PARENT = "GRPO_PARENT"  # the process id of the parent, in the environment of a child that is to end with it


def die_with(parent: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process the signal `by` when `parent` (a process id) ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def die_with_named_parent() -> None:
    """End with the process named by PARENT in the environment, if it is there.

    The package calls this when it is imported, so before anything that takes seconds to import: a child would otherwise
    outlive its parent until it is done with that.
    """
    parent = os.environ.pop(PARENT, "")
    if parent:
        die_with(int(parent))
