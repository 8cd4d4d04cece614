"""Sources of problems: GSM8K on the hub, JSONL files, or generators."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from grpo_gsm8k.config import DataConfig
from grpo_gsm8k.data.gold import ENGLISH, Notation
from grpo_gsm8k.data.problems import parse_problem, read_jsonl
from grpo_gsm8k.data.reasoning import load_reasoning_gym
from grpo_gsm8k.data.turkish_finance import load_turkish_finance
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.answers import Locale
from grpo_gsm8k.grading.problem import Problem

SourceSplit = Literal["train", "test"]
_GSM8K = "openai/gsm8k"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_NO_HUB = "data.source=jsonl data.train_path=FILE data.test_path=FILE takes local files instead"


@dataclass(frozen=True, slots=True)
class SourceProblems:
    """All problems of a source in its own order; `train` still includes the validation problems.

    `files` are the local files by split; empty for the hub and for generators.
    """

    train: list[Problem]
    test: list[Problem]
    files: dict[SourceSplit, Path] = field(default_factory=dict)


def notation_of(config: DataConfig, prompt_locale: Locale) -> Notation:
    """Return the notation of gold numbers: data.locale, or English for GSM8K and generators, or the prompt's."""
    if config.locale is not None:
        return Notation(config.locale, given=True)
    if config.source == "reasoning_gym" or (config.source == "hub" and config.hub_id == _GSM8K):
        return ENGLISH
    return Notation(prompt_locale, given=False)


def load_source(config: DataConfig, notation: Notation = ENGLISH) -> SourceProblems:
    """Load or generate all problems. Raises UserError with the key or the line."""
    match config.source:
        case "hub":
            return _hub(config, notation)
        case "jsonl":
            return _jsonl(config, notation)
        case "reasoning_gym":
            return SourceProblems(*load_reasoning_gym(config))
        case "turkish_finance":
            return SourceProblems(*load_turkish_finance(config))


def source_files(config: DataConfig) -> dict[SourceSplit, Path]:
    """Return the local files that `load_source` reads, by split."""
    if config.source != "jsonl":
        return {}
    assert config.train_path is not None  # validated by DataConfig
    assert config.test_path is not None
    return {"train": config.train_path, "test": config.test_path}


def _jsonl(config: DataConfig, notation: Notation) -> SourceProblems:
    files = source_files(config)
    splits = {split: read_jsonl(path, split, notation) for split, path in files.items()}
    for split, path in files.items():
        if not splits[split]:
            raise UserError(f"data.{split}_path: {path} contains no problem")
    return SourceProblems(splits["train"], splits["test"], files)


def _hub(config: DataConfig, notation: Notation) -> SourceProblems:
    snapshot = _download(config)
    train, test = (_hub_split(config, snapshot, split, notation) for split in ("train", "test"))
    return SourceProblems(train, test)


def _download(config: DataConfig) -> Path:
    """Download one commit of the data set's repository into the Hugging Face cache.

    `datasets.load_dataset(hub_id, revision=...)` would not do: without a network it retries for half a minute and then
    returns the newest cached revision instead of the requested one. A snapshot is the requested commit or an error.
    """
    if not _COMMIT.fullmatch(config.revision):
        raise UserError(f"data.revision={config.revision} is not a fixed commit: give the full hash (40 hex digits)")
    if not _HUB_ID.fullmatch(config.hub_id):
        raise UserError(f"data.hub_id={config.hub_id} is not a hub id: give OWNER/NAME")
    import huggingface_hub  # lazy: local sources need no hub client

    try:
        return Path(
            huggingface_hub.snapshot_download(
                config.hub_id, repo_type="dataset", revision=config.revision, ignore_patterns=["*.py", "*.zip"]
            )
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"data.hub_id={config.hub_id} at {config.revision[:12]} is neither reachable nor cached "
            f"({_first_line(error)}): check the network and the id; {_NO_HUB}"
        ) from None


def _hub_split(config: DataConfig, snapshot: Path, split: str, notation: Notation) -> list[Problem]:
    import datasets  # lazy: it takes two seconds

    where = f"{config.hub_id}/{config.name}/{split}"
    try:
        # Streaming reads the snapshot's files directly, without a copy in the datasets cache.
        rows = list(datasets.load_dataset(str(snapshot), config.name, split=split, streaming=True))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"{where} cannot be read ({_first_line(error)}): check data.name and data.hub_id") from None
    if not rows:
        raise UserError(f"{where} contains no problem: check data.name and data.hub_id")
    return [
        parse_problem(row, f"{split}-{index:05d}", f"{where} row {index}", notation) for index, row in enumerate(rows)
    ]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
