"""The folder of one collection in `artifacts/`: its lock, its settings and its append-only files."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any, Self

from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.files.aside import refuse_link, write_atomically
from grpo_gsm8k.files.json_lines import JsonLines
from grpo_gsm8k.files.locks import try_lock
from grpo_gsm8k.grading.answers import AnswerKind
from grpo_gsm8k.traces.trace_records import RawRecord, from_json, to_json

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from grpo_gsm8k.config import Config, PromptConfig
    from grpo_gsm8k.data.prepare import DataFolder

RAW = "raw.jsonl"
SENT = "sent.jsonl"
SETTINGS = "settings.json"
TRAIN = "train.jsonl"
PAIRS = "pairs.jsonl"
REPORT = "report.json"


def settings_of(config: Config, data: DataFolder) -> dict[str, Any]:
    """Return the settings that must be the same for all records of a folder; prices, limits and filters may change."""
    traces, prompt = config.traces, config.prompt
    return {
        "traces.teacher": traces.teacher,
        "traces.base_url": traces.base_url if traces.teacher == "api" else None,
        "traces.model": traces.model if traces.teacher == "api" else config.model.path,
        "traces.max_tokens": traces.max_tokens,
        "traces.temperature": traces.temperature,
        "prompt.system": prompt.system,
        "prompt.instruction": prompt.instruction or None,  # like folders from before this key
        "prompt.text": prompt.text,
        "prompt.answer_format": prompt.answer_format,
        **_further_answer_keys(prompt),
        "prompt.locale": prompt.locale,
        "prompt.reasoning_end": prompt.reasoning_end,
        "data (sha256 of the train problems)": hashlib.sha256((data.path / "train.jsonl").read_bytes()).hexdigest(),
    }


def _further_answer_keys(prompt: PromptConfig) -> dict[str, Any]:
    """Return the keys that folders of 2026-11-25 and before do not have, unless they have their default."""
    values = {
        "prompt.answer_kind": None if prompt.answer_kind is AnswerKind.NUMBER else prompt.answer_kind,
        "prompt.answer_tag": prompt.answer_tag,
        "prompt.answer_pattern": prompt.answer_pattern,
    }
    return {key: value for key, value in values.items() if value is not None}


class TracesFolder:
    """The folder of one collection, held by one process at a time. Use it in a `with` block."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Lock the folder, check or write its settings, open and repair its files.

        Raises UserError if another process has locked the folder, or if it was created with other settings.
        """
        refuse_link(path)
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = _lock(path)
        try:
            _check_settings(path, settings)
            self._raw = JsonLines(path / RAW)
            self._sent = JsonLines(path / SENT)
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._raw.close()
        self._sent.close()
        os.close(self._lock)

    @property
    def repaired_bytes(self) -> int:
        """Number of bytes removed with torn last lines."""
        return self._raw.repaired_bytes + self._sent.repaired_bytes

    def records(self) -> list[RawRecord]:
        """Return all records, oldest first, including errors. Raises LabError that names a damaged line."""
        path = self.path / RAW
        return [from_json(line, f"{path}:{number}") for number, line in enumerate(self._raw.records(), start=1)]

    def sent(self) -> list[dict[str, Any]]:
        """Return the lines of all requests, each written just before it was sent."""
        return self._sent.records()

    def add(self, record: RawRecord) -> None:
        """Append a record; the kernel has it on return. Raises LabError (disk full)."""
        _append(self._raw, to_json(record))

    def add_sent(self, line: dict[str, Any]) -> None:
        """Append a request that is about to be sent. Raises LabError (disk full)."""
        _append(self._sent, line)


def _append(file: JsonLines, line: dict[str, Any]) -> None:
    try:
        file.append(line)
    except OSError as error:
        raise LabError(f"{file.path} cannot be written ({error.strerror}): fix that, then run it again") from None


def _lock(path: Path) -> int:
    lock = try_lock(path)
    if lock is None:
        raise UserError(f"{path} is in use by another process: wait for it, or set traces.folder to another name")
    return lock


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    file = path / SETTINGS
    if not file.exists():
        if (path / RAW).exists():
            raise UserError(f"{path} has {RAW} but no {SETTINGS}: move it away or set traces.folder to another name")
        write_atomically(file, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
        return
    try:
        made = json.loads(file.read_bytes())
    except ValueError:
        made = None
    if not isinstance(made, dict):
        raise UserError(f"{file} is damaged: move the folder away or set traces.folder to another name")
    for key in [*settings, *(key for key in made if key not in settings)]:
        if made.get(key) != settings.get(key):
            raise UserError(
                f"{path} was collected with {key}={_short(made.get(key))}, now {key}={_short(settings.get(key))}: "
                f"set {key} back, or set traces.folder to another name"
            )


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
