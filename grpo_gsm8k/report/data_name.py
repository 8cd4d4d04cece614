"""The name of a run's data set, short enough for a heading."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

FILES = ("jsonl", "json", "csv", "parquet")
WRITTEN = {
    "gsm8k": "GSM8K",
    "gsm8k_socratic": "GSM8K (socratic)",
    "gsm_symbolic": "GSM-Symbolic",
    "math": "MATH",
    "math500": "MATH-500",
    "svamp": "SVAMP",
    "asdiv": "ASDiv",
}


def data_name(config: Mapping[str, Any]) -> str:
    """Return the name of the data set in a run's configuration; empty if unknown.

    It is the folder below artifacts/, which each file in conf/data names after its data set. A file that has the
    folder of `data=jsonl` is named by its path instead.
    """
    data = config.get("data") or {}
    folder, path = str(data.get("folder") or ""), data.get("train_path")
    if data.get("source") in FILES and folder in FILES and path:
        parts = PurePath(str(path)).parts[-2:]
        folder = parts[0] if parts[0].lower() in WRITTEN else "/".join(parts).removeprefix("/")
    return WRITTEN.get(folder.lower(), folder or str(data.get("name") or ""))
