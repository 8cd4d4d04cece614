"""The section `data`: sources of problems, and the sizes of the splits."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from grpo_gsm8k.config.fields import FolderName, Section, Seed, StopTexts
from grpo_gsm8k.grading.answers import AnswerKind, Locale

FILE_SOURCES = ("jsonl", "json", "csv", "parquet")
GENERATORS = ("reasoning_gym", "turkish_finance")


class DataConfig(Section):
    """The source of the problems, and the sizes of the splits."""

    folder: FolderName
    source: Literal["hub", "jsonl", "json", "csv", "parquet", "reasoning_gym", "turkish_finance"]
    name: str | list[str] | None
    hub_id: str
    revision: str | None
    train_split: str | None = "train"
    test_split: str | None = "test"
    train_path: Path | None
    test_path: Path | None
    columns: dict[Literal["id", "question", "answer", "gold"], str | list[str]] = Field(default_factory=dict)
    where: dict[str, str | int | float | bool | list[str | int | float | bool]] = Field(default_factory=dict)
    invalid: Literal["stop", "drop"] = "stop"
    answer_kind: AnswerKind | None = None
    val_size: int = Field(ge=1)
    train_size: int = Field(ge=1)
    test_size: int | float = Field(ge=0)
    params: dict[str, int | float | bool | str]
    seed: Seed
    locale: Locale | None = None
    stop: StopTexts = []  # noqa: RUF012 - pydantic copies it
    sampler: Literal["uniform", "difficulty"] = "uniform"

    @model_validator(mode="after")
    def _check_train(self) -> Self:
        if self.source in FILE_SOURCES and self.train_path is None:
            raise ValueError(f"source={self.source} needs data.train_path=FILE")
        if self.source == "reasoning_gym" and not isinstance(self.name, str):
            raise ValueError(f"name={self.name}: source=reasoning_gym needs the name of one generator")
        return self

    @model_validator(mode="after")
    def _check_test(self) -> Self:
        share = self.test_size if isinstance(self.test_size, float) else 0
        if share and (share >= 1 or self.source in GENERATORS):  # 1.0 could be one problem or all of them
            raise ValueError(f"test_size={self.test_size}: give a number of problems, or a share below 1 of a source's")
        if self.source in GENERATORS:
            return self
        key = "test_path" if self.source in FILE_SOURCES else "test_split"
        given = getattr(self, key)
        if (given is None) == (self.test_size == 0):
            state = "neither is set" if given is None else f"both are set: set data.{key}=null or data.test_size=0"
            raise ValueError(f"source={self.source} needs data.{key} or data.test_size=N, but {state}")
        if self.source == "hub" and self.train_split is None and self.test_size:
            raise ValueError(f"test_size={self.test_size} draws from the train split: set data.train_split=NAME")
        return self
