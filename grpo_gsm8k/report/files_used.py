"""Links to the files that a report was made from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from grpo_gsm8k.report.material import FileLink, Run

FILES = (
    *("config.yaml", "manifest.json", "metrics.jsonl", "summary.json", "ledger.jsonl", "events.jsonl", "trace.json"),
    *("predictions.jsonl", "eval_results.json", "regression.json", "rollouts/", "validation/", "logs/"),
)


def file_links(runs: Sequence[Run], target: Path) -> tuple[tuple[str, tuple[FileLink, ...]], ...]:
    """Return for each run the files that exist, with addresses relative to the folder `target` of the report."""
    return tuple((run.name, tuple(_links(run.folder, target))) for run in runs)


def _links(folder: Path, target: Path) -> list[FileLink]:
    to_run = Path(os.path.relpath(folder.resolve(), target.resolve()))
    found = [name for name in FILES if (folder / name).exists()]
    # `./` keeps a folder name with a colon from being read as the scheme of an address.
    return [FileLink(name, f"./{quote((to_run / name).as_posix())}{'/' if name[-1] == '/' else ''}") for name in found]
