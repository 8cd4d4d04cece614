"""Sources of problems: files, data sets of the hub, or generators."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from grpo_gsm8k.config import FILE_SOURCES, DataConfig
from grpo_gsm8k.data.gold import ENGLISH, Notation
from grpo_gsm8k.data.hub import download, hub_rows
from grpo_gsm8k.data.problems import ReadProblems, RowRules, problems_of
from grpo_gsm8k.data.readers import FileKind, read_rows
from grpo_gsm8k.data.reasoning import load_reasoning_gym
from grpo_gsm8k.data.turkish_finance import load_turkish_finance
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.answers import AnswerKind, Locale

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grpo_gsm8k.data.readers import Row
    from grpo_gsm8k.grading.problem import Problem

SourceSplit = Literal["train", "test"]
_GSM8K = "openai/gsm8k"


@dataclass(frozen=True, slots=True)
class SourceProblems:
    """All problems of a source in its own order; `train` still includes the validation problems.

    `test` is None if the test problems are drawn from `train`. `files` are the local files by split; empty for the hub
    and for generators. `dropped` counts the rows that were left out, by reason.
    """

    train: list[Problem]
    test: list[Problem] | None
    files: dict[SourceSplit, Path] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)


def notation_of(config: DataConfig, prompt_locale: Locale) -> Notation:
    """Return the notation of gold numbers: data.locale, or English for GSM8K and generators, or the prompt's."""
    if config.locale is not None:
        return Notation(config.locale, given=True)
    if config.source == "reasoning_gym" or (config.source == "hub" and config.hub_id == _GSM8K):
        return ENGLISH
    return Notation(prompt_locale, given=False)


def rules_of(config: DataConfig, notation: Notation, kind: AnswerKind) -> RowRules:
    """Return how the rows of the configured source become problems."""
    return RowRules(notation, kind, config.columns, config.where, drop=config.invalid == "drop")


def load_source(config: DataConfig, rules: RowRules | None = None) -> SourceProblems:
    """Load or generate all problems. Raises UserError with the key or the line."""
    rules = rules or rules_of(config, ENGLISH, AnswerKind.NUMBER)
    if config.source == "reasoning_gym":
        return SourceProblems(*load_reasoning_gym(config))
    if config.source == "turkish_finance":
        return SourceProblems(*load_turkish_finance(config))
    rows = _rows(config)
    found = {split: problems_of(split_rows, split, rules) for split, split_rows in rows.items()}
    for split, read in found.items():
        if not read.problems:
            raise UserError(f"{_place(config, split)} contains no problem{_reasons(read)}")
    train, test = found.get("train"), found.get("test")
    dropped = sum((read.dropped for read in found.values()), Counter[str]())
    return SourceProblems(
        train.problems if train else [], test.problems if test else None, source_files(config), dropped
    )


def source_files(config: DataConfig) -> dict[SourceSplit, Path]:
    """Return the local files that `load_source` reads, by split."""
    if config.source not in FILE_SOURCES:
        return {}
    paths: dict[SourceSplit, Path | None] = {"train": config.train_path, "test": config.test_path}
    return {split: path for split, path in paths.items() if path is not None}


def _rows(config: DataConfig) -> dict[SourceSplit, Iterable[Row]]:
    if config.source == "hub":
        snapshot = download(config)
        splits: dict[SourceSplit, str | None] = {"train": config.train_split, "test": config.test_split}
        return {split: hub_rows(config, snapshot, name) for split, name in splits.items() if name is not None}
    kind: FileKind = config.source  # type: ignore[assignment]  # reasoning_gym has no rows
    return {split: read_rows(path, kind) for split, path in source_files(config).items()}


def _place(config: DataConfig, split: SourceSplit) -> str:
    files = source_files(config)
    return f"data.{split}_path: {files[split]}" if split in files else f"the {split} split of {config.hub_id}"


def _reasons(read: ReadProblems) -> str:
    """Return the counts of the rows that were left out by reason, the most frequent first, and the first error."""
    reasons = ", ".join(f"{count} ({reason})" for reason, count in read.dropped.most_common())
    first = f"; the first: {read.first_error}" if read.first_error else ""
    return f": left out {reasons}{first}" if reasons else ""
