"""Delete a folder once the process that started this one has ended, however it did: `python -m ... FOLDER`.

A worker process of Ray's kills its children when it ends, so this one forks and goes on as nobody's child; the process
that was started ends at once.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys


def main() -> None:
    """Fork, wait until stdin ends, then delete the folder."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.fork() == 0:
        sys.stdin.buffer.read()
        shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
