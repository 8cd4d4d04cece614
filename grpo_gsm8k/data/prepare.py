"""Prepared data: `artifacts/<folder>/{train,val,test}.jsonl` with a manifest, written once and verified before use."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from grpo_gsm8k.data.problems import read_jsonl, write_jsonl
from grpo_gsm8k.data.sources import SourceProblems, load_source, notation_of, source_files
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.aside import refuse_link, written_aside
from grpo_gsm8k.grading.answers import Locale
from grpo_gsm8k.grading.problem import Problem

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.config import DataConfig

Split = Literal["train", "val", "test"]
MANIFEST = "manifest.json"
_FILES: dict[Split, str] = {"train": "train.jsonl", "val": "val.jsonl", "test": "test.jsonl"}
_FIX = "run command=data with the same data settings to prepare it again, or set data.folder to another name"
# Keys that determine a source's problems, in addition to source, val_size and seed. Checksums identify jsonl files.
_SOURCE_KEYS = {
    "hub": ("hub_id", "name", "revision"),
    "jsonl": (),
    "reasoning_gym": ("name", "params", "train_size", "test_size"),
    "turkish_finance": ("train_size", "test_size"),
}


@dataclass(frozen=True, slots=True)
class DataFolder:
    """A prepared folder and the number of problems per split."""

    path: Path
    train: int
    val: int
    test: int


class _SourceFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    sha256: str


class _SplitFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    count: int
    sha256: str


class _Manifest(BaseModel):
    """Sources and contents of a folder. It has no time and no host, so that it is reproducible."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["grpo_gsm8k.data"]
    config: dict[str, Any]
    sources: dict[Literal["train", "test"], _SourceFile]
    files: dict[Split, _SplitFile]


def prepare_data(config: DataConfig, artifacts: Path, prompt_locale: Locale = Locale.EN) -> DataFolder:
    """Write the three splits and the manifest, replacing an older folder of the same name.

    The same settings give the same bytes. `prompt_locale` is the notation of gold numbers where the settings name none.
    Raises UserError for bad input, or if the folder contains files that this function did not write.
    """
    target = artifacts / config.folder
    _refuse_foreign(target)
    notation = notation_of(config, prompt_locale)
    source = load_source(config, notation)
    splits = _split(config, source)
    with written_aside(target) as folder:
        for split, problems in splits.items():
            write_jsonl(folder / _FILES[split], problems)
        manifest = _write_manifest(folder, _settings(config, notation.locale), source, splits)
    return _data_folder(target, manifest)


def ensure(config: DataConfig, artifacts: Path, prompt_locale: Locale = Locale.EN) -> DataFolder:
    """Return the prepared folder; prepare it if it does not exist.

    Raises UserError if the folder was prepared with other settings or from other files, or if one of its files has
    changed since.
    """
    target = artifacts / config.folder
    refuse_link(target)
    if not target.exists():
        return prepare_data(config, artifacts, prompt_locale)
    manifest = _read_manifest(target)
    _check_settings(target, manifest, _settings(config, notation_of(config, prompt_locale).locale))
    _check_sources(target, manifest, config)
    for split, entry in manifest.files.items():
        file = target / _FILES[split]
        if not file.is_file() or _sha256(file) != entry.sha256:
            raise UserError(f"{file} is missing or was changed after it was prepared: {_FIX}")
    return _data_folder(target, manifest)


def load_split(folder: DataFolder, split: Split) -> list[Problem]:
    """Read the problems of one split, in file order."""
    return read_jsonl(folder.path / _FILES[split], split, notation=None)


def _split(config: DataConfig, source: SourceProblems) -> dict[Split, list[Problem]]:
    """Hold out `val_size` train problems; all splits keep the order of the source."""
    _refuse_overlap(source)
    counts = Counter(_key(problem) for problem in source.train)
    # A duplicated question could end up in both splits, so it stays in train.
    unique = [problem for problem in source.train if counts[_key(problem)] == 1]
    if config.val_size > len(unique) or config.val_size >= len(source.train):
        raise UserError(
            f"data.val_size={config.val_size} leaves nothing to train on: the source has {len(source.train)} train "
            f"problems, {len(unique)} of them with a unique question; lower data.val_size"
        )
    # Ranked by hash instead of a random generator, so that the split does not depend on the version of numpy.
    ranked = sorted(unique, key=lambda problem: hashlib.sha256(f"{config.seed}:{problem.id}".encode()).digest())
    held_out = {problem.id for problem in ranked[: config.val_size]}
    return {
        "train": [problem for problem in source.train if problem.id not in held_out],
        "val": [problem for problem in source.train if problem.id in held_out],
        "test": source.test,
    }


def _refuse_overlap(source: SourceProblems) -> None:
    train = {_key(problem): problem.id for problem in source.train}
    train_ids = set(train.values())
    for problem in source.test:
        if _key(problem) in train:
            raise UserError(
                f"test problem {problem.id} asks the same question as train problem {train[_key(problem)]}: "
                "remove one of them"
            )
        if problem.id in train_ids:
            raise UserError(f"the id {problem.id} occurs in both train and test problems: rename one of them")


def _key(problem: Problem) -> str:
    return " ".join(problem.question.split())


def _settings(config: DataConfig, locale: Locale) -> dict[str, Any]:
    keys = ("source", "val_size", "seed", *_SOURCE_KEYS[config.source])
    dumped = config.model_dump(mode="json")
    return {**{key: dumped[key] for key in keys}, "locale": locale.value}


def _write_manifest(
    folder: Path, settings: dict[str, Any], source: SourceProblems, splits: dict[Split, list[Problem]]
) -> _Manifest:
    manifest = _Manifest(
        kind="grpo_gsm8k.data",
        config=settings,
        sources={split: _SourceFile(path=str(path), sha256=_sha256(path)) for split, path in source.files.items()},
        files={
            split: _SplitFile(count=len(problems), sha256=_sha256(folder / _FILES[split]))
            for split, problems in splits.items()
        },
    )
    text = json.dumps(manifest.model_dump(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8", newline="\n")
    return manifest


def _read_manifest(target: Path) -> _Manifest:
    try:
        manifest = _Manifest.model_validate_json((target / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        manifest = None
    if manifest is None or manifest.files.keys() != _FILES.keys():
        raise UserError(f"{target} has no {MANIFEST} of a prepared data set: move it away, or set data.folder=NAME")
    return manifest


def _data_folder(target: Path, manifest: _Manifest) -> DataFolder:
    files = manifest.files
    return DataFolder(target, files["train"].count, files["val"].count, files["test"].count)


def _refuse_foreign(target: Path) -> None:
    """Raise UserError if replacing `target` would delete anything but an earlier result of this module."""
    refuse_link(target)
    if not target.exists():
        return
    _read_manifest(target)
    foreign = sorted(path.name for path in target.iterdir() if path.name not in {MANIFEST, *_FILES.values()})
    if foreign:
        raise UserError(
            f"{target} contains {foreign[0]}, which would be deleted: move it away, or set data.folder=NAME"
        )


def _check_settings(target: Path, manifest: _Manifest, wanted: dict[str, Any]) -> None:
    made = {"locale": Locale.EN.value, **manifest.config}  # folders without the key were read in English notation
    for key in sorted(made.keys() | wanted.keys()):
        if made.get(key) != wanted.get(key):
            raise UserError(
                f"{target} was prepared with data.{key}={made.get(key)}, now data.{key}={wanted.get(key)}: {_FIX}"
            )


def _check_sources(target: Path, manifest: _Manifest, config: DataConfig) -> None:
    """Raise UserError if a source file has changed. A missing one is accepted: the folder contains all problems."""
    for split, path in source_files(config).items():
        made = manifest.sources.get(split)
        same = made and (_sha256(path) == made.sha256 if path.is_file() else str(path) == made.path)
        if not same:
            raise UserError(f"{target} was not prepared from data.{split}_path={path} as it is now: {_FIX}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
