"""`command=traces`: collect the missing samples, then write the traces that pass the filters as training lines."""

from __future__ import annotations

import json
import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from grpo_gsm8k.data.prepare import ensure, load_split
from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.grading.grader import Grader
from grpo_gsm8k.terminal.count_progress import CountProgress
from grpo_gsm8k.traces.api_budget import ApiBudget, Charge, open_budget, prices_of, recorded_cost, unanswered_cost
from grpo_gsm8k.traces.api_producer import ApiProducer, Interrupted
from grpo_gsm8k.traces.formatting import FormatReport, format_pairs, format_traces, to_jsonl
from grpo_gsm8k.traces.local_teacher import local_producer
from grpo_gsm8k.traces.trace_folder import PAIRS, RAW, REPORT, TRAIN, TracesFolder, settings_of
from grpo_gsm8k.traces.trace_records import TraceSample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from grpo_gsm8k.config import Config, TracesConfig
    from grpo_gsm8k.traces.trace_records import Producer, RawRecord


@dataclass(frozen=True, slots=True)
class Collected:
    """State of a collection."""

    wanted: list[TraceSample]
    done: list[RawRecord]  # in the order of the data set
    failed: dict[str, str]  # last error by sample id
    paid: Charge
    unanswered: Charge  # upper bound for the requests that no record's cost includes

    @property
    def missing(self) -> int:
        """Number of samples that are not done."""
        return len(self.wanted) - len(self.done)


def collect_traces(config: Config) -> int:
    """Collect and format.

    Returns 0, or 128 + the signal that ended it; raises LabError while samples are missing.
    """
    try:
        with _interruptible():
            _run(config)
    except Interrupted as stop:
        print("interrupted: all answers so far are kept, run the same command to continue", flush=True)
        return 128 + stop.number
    return 0


def _run(config: Config) -> None:
    path = config.artifacts / config.traces.folder
    if config.traces.teacher == "api" and not (path / RAW).exists():
        _check_api(config.traces)  # before the data set is prepared, which may take minutes
    data = ensure(config.data, config.artifacts, config.prompt.locale, config.prompt.answer_kind)
    problems = load_split(data, "train")[: config.traces.limit]
    wanted = [
        TraceSample(problem, number) for problem in problems for number in range(config.traces.samples_per_prompt)
    ]
    with TracesFolder(path, settings_of(config, data)) as folder, Grader(config.prompt.answer_rules) as grader:
        if folder.repaired_bytes:
            print(f"{path}: removed {folder.repaired_bytes} bytes of a torn line", flush=True)
        before = _collected(folder, wanted)
        stopped = _produce(config, folder, before, grader) if before.missing else None
        after = _collected(folder, wanted) if before.missing else before
        lines, report = format_traces(after.done, config.traces, config.prompt, grader)
        write_atomically(path / TRAIN, to_jsonl(lines))
        pairs = [] if config.traces.pairs is None else format_pairs(after.done, config.traces, config.prompt, grader)
        if config.traces.pairs is None:
            (path / PAIRS).unlink(missing_ok=True)  # of an earlier call, from fewer traces
        else:
            write_atomically(path / PAIRS, to_jsonl(pairs))
        write_atomically(path / REPORT, json.dumps(_report(after, report), indent=2) + "\n")
    _print_result(after, report, config, len(pairs))
    if after.missing:
        raise LabError(_format_missing(after, stopped))


def _collected(folder: TracesFolder, wanted: Sequence[TraceSample]) -> Collected:
    records = folder.records()
    done: dict[str, RawRecord] = {}
    failed: dict[str, str] = {}
    for record in records:
        if record.error is not None:
            failed[record.id] = record.error
        elif record.id in done:
            raise LabError(f"{folder.path / RAW} contains {record.id} twice: delete one of the two lines")
        else:
            done[record.id] = record
    ids = [sample.id for sample in wanted]
    return Collected(
        wanted=list(wanted),
        done=[done[name] for name in ids if name in done],
        failed={name: failed[name] for name in ids if name in failed and name not in done},
        paid=recorded_cost(records),
        unanswered=unanswered_cost(records, folder.sent()),
    )


def _produce(config: Config, folder: TracesFolder, before: Collected, grader: Grader) -> str | None:
    """Collect the missing samples; every record is written before it is counted. Returns why it stopped early."""
    done = {record.id for record in before.done}
    outstanding = [sample for sample in before.wanted if sample.id not in done]
    budget = open_budget(config.traces, before.paid + before.unanswered)
    producer = _open_producer(config, folder, budget, grader)
    cost_usd, failed = before.paid.usd, 0

    def deliver(record: RawRecord) -> None:
        nonlocal cost_usd, failed
        folder.add(record)
        cost_usd += record.cost_usd
        failed += record.error is not None
        progress.advance(int(record.error is None), f"{failed} failed | ${cost_usd:.4f}")

    with CountProgress("samples", len(before.wanted), len(before.done)) as progress:
        return producer(outstanding, deliver)


def _open_producer(config: Config, folder: TracesFolder, budget: ApiBudget, grader: Grader) -> Producer:
    """The one place that knows the kinds of teachers."""
    if config.traces.teacher == "local":
        return local_producer(config, folder.path / "logs", grader)
    key = _check_api(config.traces)
    return ApiProducer(config, key, folder, budget, prices_of(config.traces), grader)


def _check_api(traces: TracesConfig) -> str:
    """Return the API key. Raises UserError if URL or key are invalid, before any request is sent."""
    try:
        url = urlsplit(traces.base_url)
        is_plain = bool(url.hostname) and url.port != 0 and url.username is None and url.password is None
    except ValueError:
        is_plain = False
    if not is_plain:  # a password in the URL would be written to settings.json
        raise UserError("traces.base_url must be http(s)://HOST[:PORT][/PATH], without a user name or a password")
    key = os.environ.get(traces.api_key_env, "").strip()
    if not key:
        raise UserError(
            f"the environment variable {traces.api_key_env} is not set: put the API key into it or into .env "
            "(traces.api_key_env selects another variable)"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(f"the environment variable {traces.api_key_env} is not a key: it has blanks or odd characters")
    return key


def _format_missing(after: Collected, stopped: str | None) -> str:
    if stopped is None:
        error = next(iter(after.failed.values()), "unknown")
        stopped = f"they failed, the first with: {error}; run the command again to retry them"
    return f"{after.missing} of {len(after.wanted)} samples are missing: {stopped}"


def _report(after: Collected, report: FormatReport) -> dict[str, object]:
    usages = [record.usage for record in after.done if record.usage]
    return {
        "samples_wanted": len(after.wanted),
        "samples_done": len(after.done),
        "samples_failed": len(after.failed),
        "prompt_tokens": sum(usage.prompt_tokens for usage in usages),
        "completion_tokens": sum(usage.completion_tokens for usage in usages),
        "cost_usd": float(after.paid.usd),
        "unanswered_requests_cost_usd_at_most": float(after.unanswered.usd),
        **report.to_json(),
    }


def _print_result(after: Collected, report: FormatReport, config: Config, pairs: int) -> None:
    dropped = ", ".join(f"{count} {name}" for name, count in report.to_json()["dropped"].items() if count)
    rows = [
        ("samples", f"{len(after.done)} of {len(after.wanted)} done, {len(after.failed)} failed"),
        ("cost", f"${after.paid.usd:.6f}, {after.paid.tokens} tokens"),
        ("traces kept", f"{report.kept} of {report.traces}, of {report.problems_kept} problems"),
        ("dropped", dropped or "none"),
        ("echoes removed", f"{report.echoes_removed} sentences"),
        ("written", str((config.artifacts / config.traces.folder / TRAIN).absolute())),
    ]
    if config.traces.pairs is not None:
        rows.append(("pairs", f"{pairs}, in {(config.artifacts / config.traces.folder / PAIRS).absolute()}"))
    if after.unanswered.usd:
        rows.insert(2, ("unanswered", f"up to ${after.unanswered.usd:.6f} more, charged to the budget"))
    print("\n".join(f"{label:<14}  {text}" for label, text in rows), flush=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise `Interrupted` on SIGINT and SIGTERM. ApiProducer replaces these handlers while it runs."""

    def interrupt(number: int, _: FrameType | None) -> None:
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
