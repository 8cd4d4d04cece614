"""Delete a folder once the process that started this one has ended, however it did: `python -m ... FOLDER`."""

from __future__ import annotations

import shutil
import signal
import sys


def main() -> None:
    """Wait until stdin ends, then delete the folder."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
