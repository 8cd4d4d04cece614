"""The report of `report.live=true`: nothing is written, the page is served."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from grpo_gsm8k.report.live_page import LivePage
from grpo_gsm8k.report.live_server import serve_page


def serve_report(build: Callable[[str], str], folders: Sequence[Path], target: Path, port: int) -> int:
    """Serve the page that `build` renders about these runs until Ctrl-C; returns exit code 0. Raises UserError.

    The address on the server reflects the place that the page would have as `report.html` in `target`, so that its
    relative links to run files work.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    page = target.resolve() / "report.html"
    root = Path(os.path.commonpath([page.parent, *(folder.resolve() for folder in folders)]))
    try:
        serve_page(LivePage(build, folders, root, f"/{page.relative_to(root).as_posix()}"), port)
    except KeyboardInterrupt:
        print("\nended")
    return 0
