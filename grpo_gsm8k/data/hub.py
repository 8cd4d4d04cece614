"""Data sets of the Hugging Face Hub, each pinned to one commit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.data.readers import Row
from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.files.hub_client import hub_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grpo_gsm8k.config import DataConfig

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_SHOWN = 400  # characters of a library's message
_NO_HUB = "data=jsonl data.train_path=FILE data.test_path=FILE takes local files instead"


def hub_rows(config: DataConfig, snapshot: Path, split: str) -> Iterator[Row]:
    """Yield the rows of one split, of all configurations in `data.name`. Raises UserError."""
    for name in config.name if isinstance(config.name, list) else [config.name]:
        yield from _rows(config, snapshot, name, split)


def download(config: DataConfig) -> Path:
    """Download one commit of the data set's repository into the Hugging Face cache.

    `datasets.load_dataset(hub_id, revision=...)` would not do: without a network it retries for half a minute and then
    returns the newest cached revision instead of the requested one. A snapshot is the requested commit or an error.
    """
    if config.revision is None:
        raise UserError(
            f"data.revision is not set: pin {config.hub_id} to a commit, data.revision=HASH; the hash of 40 digits is "
            f"under Files and versions, History, on the page of the data set"
        )
    if not _COMMIT.fullmatch(config.revision):
        raise UserError(f"data.revision={config.revision} is not a fixed commit: give the full hash (40 hex digits)")
    if not _HUB_ID.fullmatch(config.hub_id):
        raise UserError(f"data.hub_id={config.hub_id} is not a hub id: give OWNER/NAME")
    try:
        return hub_snapshot(
            config.hub_id, repo_type="dataset", revision=config.revision, ignore_patterns=["*.py", "*.zip"]
        )
    except LabError as error:
        raise UserError(
            f"data.hub_id={config.hub_id} at {config.revision[:12]} is neither reachable nor cached "
            f"({str(error)[:_SHOWN]}): check the network and the id; {_NO_HUB}"
        ) from None


def _rows(config: DataConfig, snapshot: Path, name: str | None, split: str) -> Iterator[Row]:
    import datasets  # lazy: it takes two seconds

    where = "/".join(part for part in (config.hub_id, name, split) if part)
    number = 0
    try:
        # Streaming reads the snapshot's files directly, without a copy in the datasets cache.
        for number, row in enumerate(datasets.load_dataset(str(snapshot), name, split=split, streaming=True), start=1):
            yield Row(f"{where} row {number}", dict(row))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        after = f" after row {number}" if number else ""
        raise UserError(
            f"{where} cannot be read{after} ({_first_line(error)}): check data.name, data.{_key(config, split)}, "
            "data.hub_id"
        ) from None
    if not number:
        raise UserError(f"{where} contains no problem: check data.name and data.hub_id")


def _key(config: DataConfig, split: str) -> str:
    return "train_split" if split == config.train_split else "test_split"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:_SHOWN]
