"""Prepared data: `artifacts/<folder>/{train,val,test}.jsonl` with a manifest, written once and verified before use."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from grpo_gsm8k.config import FILE_SOURCES
from grpo_gsm8k.data.problems import read_prepared, write_prepared
from grpo_gsm8k.data.sources import SourceProblems, load_source, notation_of, rules_of, source_files
from grpo_gsm8k.data.splits import Split, split_problems
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.aside import refuse_link, written_aside
from grpo_gsm8k.grading.answers import AnswerKind, Locale
from grpo_gsm8k.grading.kinds import refused_golds
from grpo_gsm8k.grading.problem import Problem

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.config import DataConfig

MANIFEST = "manifest.json"
_FILES: dict[Split, str] = {"train": "train.jsonl", "val": "val.jsonl", "test": "test.jsonl"}
_FIX = "run command=data with the same data settings to prepare it again, or set data.folder to another name"
# Keys that determine a source's problems, in addition to source, val_size and seed. Checksums identify jsonl files.
_SOURCE_KEYS: dict[str, tuple[str, ...]] = {
    "hub": ("hub_id", "name", "revision"),
    **dict.fromkeys(FILE_SOURCES, ()),
    "reasoning_gym": ("name", "params", "train_size", "test_size"),
    "turkish_finance": ("train_size", "test_size"),
}

_USUAL: dict[str, Any] = {
    "columns": {},
    "where": {},
    "invalid": "stop",
    "test_size": 0,
    "train_split": "train",
    "test_split": "test",
}


@dataclass(frozen=True, slots=True)
class DataFolder:
    """A prepared folder and the number of problems per split."""

    path: Path
    train: int
    val: int
    test: int
    dropped: dict[str, int] = field(default_factory=dict)  # rows left out, by reason


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
    dropped: dict[str, int] = Field(default_factory=dict)


def prepare_data(
    config: DataConfig, artifacts: Path, prompt_locale: Locale = Locale.EN, kind: AnswerKind = AnswerKind.NUMBER
) -> DataFolder:
    """Write the three splits and the manifest, replacing an older folder of the same name.

    The same settings give the same bytes. `prompt_locale` is the notation of gold numbers where the settings name none.
    Raises UserError for bad input, or if the folder contains files that this function did not write.
    """
    target = artifacts / config.folder
    _refuse_foreign(target)
    notation = notation_of(config, prompt_locale)
    source = _gradable(config, kind, prompt_locale, load_source(config, rules_of(config, notation, kind)))
    splits, repeated = split_problems(config, source)
    with written_aside(target) as folder:
        for split, problems in splits.items():
            write_prepared(folder / _FILES[split], problems)
        settings = _settings(config, notation.locale, kind)
        manifest = _write_manifest(folder, settings, source, splits, source.dropped + repeated)
    return _data_folder(target, manifest)


def ensure(
    config: DataConfig, artifacts: Path, prompt_locale: Locale = Locale.EN, kind: AnswerKind = AnswerKind.NUMBER
) -> DataFolder:
    """Return the prepared folder; prepare it if it does not exist.

    Raises UserError if the folder was prepared with other settings or from other files, or if one of its files has
    changed since.
    """
    target = artifacts / config.folder
    refuse_link(target)
    if not target.exists():
        return prepare_data(config, artifacts, prompt_locale, kind)
    manifest = _read_manifest(target)
    _check_settings(target, manifest, _settings(config, notation_of(config, prompt_locale).locale, kind))
    _check_sources(target, manifest, config)
    for split, entry in manifest.files.items():
        file = target / _FILES[split]
        if not file.is_file() or _sha256(file) != entry.sha256:
            raise UserError(f"{file} is missing or was changed after it was prepared: {_FIX}")
    return _data_folder(target, manifest)


def load_split(folder: DataFolder, split: Split) -> list[Problem]:
    """Read the problems of one split, in file order."""
    return read_prepared(folder.path / _FILES[split])


def _gradable(config: DataConfig, kind: AnswerKind, locale: Locale, source: SourceProblems) -> SourceProblems:
    """Return a source without the problems whose gold answer grading refuses.

    Raises UserError for the first of them unless `data.invalid=drop`.
    """
    problems = [*source.train, *(source.test or [])]
    refused = refused_golds(kind, [problem.gold for problem in problems], locale)
    bad = [problem for problem in problems if problem.gold in refused]
    if bad and config.invalid == "stop":
        raise UserError(f"problem {bad[0].id}: {refused[bad[0].gold]}{_kind_hint(kind)}, or data.invalid=drop")
    train, test = ([p for p in part or [] if p.gold not in refused] for part in (source.train, source.test))
    reasons = Counter({"gold answer that cannot be graded": len(bad)} if bad else {})
    return replace(source, train=train, test=None if source.test is None else test, dropped=source.dropped + reasons)


def _kind_hint(kind: AnswerKind) -> str:
    return "; set prompt.answer_kind=expression" if kind is AnswerKind.NUMBER else ""


def _settings(config: DataConfig, locale: Locale, kind: AnswerKind) -> dict[str, Any]:
    """Return the settings that determine the problems; newer keys only where they differ from what was always done."""
    dumped = config.model_dump(mode="json")
    keys = ("source", "val_size", "seed", *_SOURCE_KEYS[config.source])
    newer = {key: dumped[key] for key, usual in _USUAL.items() if key not in keys and dumped[key] != usual}
    kinds = {} if kind is AnswerKind.NUMBER else {"answer_kind": kind.value}
    return {**{key: dumped[key] for key in keys}, **newer, **kinds, "locale": locale.value}


def _write_manifest(
    folder: Path,
    settings: dict[str, Any],
    source: SourceProblems,
    splits: dict[Split, list[Problem]],
    dropped: Counter[str],
) -> _Manifest:
    manifest = _Manifest(
        kind="grpo_gsm8k.data",
        config=settings,
        sources={split: _SourceFile(path=str(path), sha256=_sha256(path)) for split, path in source.files.items()},
        files={
            split: _SplitFile(count=len(problems), sha256=_sha256(folder / _FILES[split]))
            for split, problems in splits.items()
        },
        dropped=dict(dropped),
    )
    text = json.dumps(manifest.model_dump(exclude_defaults=True), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
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
    return DataFolder(target, files["train"].count, files["val"].count, files["test"].count, manifest.dropped)


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
        usual = "number" if key == "answer_kind" else _USUAL.get(key)
        before, now = made.get(key, usual), wanted.get(key, usual)
        if before != now:
            name = f"prompt.{key}" if key == "answer_kind" else f"data.{key}"
            raise UserError(f"{target} was prepared with {name}={before}, now {name}={now}: {_FIX}")


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
