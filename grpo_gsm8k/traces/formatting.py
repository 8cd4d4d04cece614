"""Conversion of raw records to training lines: filters, cleaned responses, and counts of dropped traces by reason."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.traces.cleaning import split_thinking, tidy, without_answer, without_echoes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from grpo_gsm8k.config import PromptConfig, TracesConfig
    from grpo_gsm8k.grading.grader import Grader
    from grpo_gsm8k.traces.trace_records import RawRecord


@dataclass(frozen=True, slots=True)
class TrainLine:
    """One line of `train.jsonl`; `prompt` is the bare question, to which the trainer applies its template."""

    id: str
    prompt: str
    response: str


@dataclass(frozen=True, slots=True)
class PairLine:
    """One line of `pairs.jsonl`: a right and a wrong response to one question."""

    id: str
    prompt: str
    chosen: str
    rejected: str


@dataclass(slots=True)
class Dropped:
    """Numbers of dropped traces by the first reason that applied."""

    truncated: int = 0  # drop_truncated
    no_answer: int = 0  # no readable answer, so no final line can be written
    wrong: int = 0  # drop_wrong
    empty: int = 0  # drop_empty
    unreadable: int = 0  # the response would be graded differently from its trace
    duplicate: int = 0  # drop_duplicates
    longer: int = 0  # shortest


@dataclass(slots=True)
class FormatReport:
    """Counts of one conversion; `traces` = `kept` + the sum of `dropped`."""

    traces: int = 0
    kept: int = 0
    problems_kept: int = 0
    echoes_removed: int = 0  # sentences
    dropped: Dropped = field(default_factory=Dropped)

    def to_json(self) -> dict[str, Any]:
        """Return the values for `report.json`."""
        return asdict(self)


def format_traces(
    records: Iterable[RawRecord], traces: TracesConfig, prompt: PromptConfig, grader: Grader
) -> tuple[list[TrainLine], FormatReport]:
    """Convert records to lines in the same order."""
    report = FormatReport()
    kept: dict[str, list[TrainLine]] = defaultdict(list)
    order: list[TrainLine] = []
    for record in records:
        report.traces += 1
        response = _response(record, traces, prompt, grader, report)
        if response is None:
            continue
        if traces.drop_duplicates and any(line.response == response for line in kept[record.problem_id]):
            report.dropped.duplicate += 1
            continue
        line = TrainLine(record.id, record.question, response)
        kept[record.problem_id].append(line)
        order.append(line)
    lines = _shortest(order, kept.values(), traces.shortest, report)
    report.kept = len(lines)
    report.problems_kept = sum(bool(group) for group in kept.values())
    return lines, report


def format_pairs(
    records: Iterable[RawRecord], traces: TracesConfig, prompt: PromptConfig, grader: Grader
) -> list[PairLine]:
    """Pair the right responses of each problem with wrong ones, at most `traces.pairs` pairs for each.

    Every response of the side with more of them is used once before one is used again. Which responses count is decided
    as for single ones; a wrong one needs a readable answer too.
    """
    both = traces.model_copy(update={"drop_wrong": False, "drop_duplicates": False, "shortest": None})
    report = FormatReport()
    found: dict[str, tuple[list[TrainLine], list[TrainLine]]] = defaultdict(lambda: ([], []))
    for record in records:
        response = _response(record, both, prompt, grader, report)
        group = found[record.problem_id][0 if record.correct else 1]
        if response is not None and all(line.response != response for line in group):
            group.append(TrainLine(record.id, record.question, response))
    pairs = []
    for problem, (right, wrong) in found.items():
        longer, shorter = max(len(right), len(wrong)), min(len(right), len(wrong))
        # Round by round, each response of the longer side once, with another partner in each round.
        places = [(k, (k + turn) % shorter) for turn in range(shorter) for k in range(longer)]
        for k, partner in places[: traces.pairs]:
            a, b = (right[k], wrong[partner]) if len(right) >= len(wrong) else (right[partner], wrong[k])
            name = f"{problem}/{a.id.rpartition('/')[2]}-{b.id.rpartition('/')[2]}"
            pairs.append(PairLine(name, a.prompt, a.response, b.response))
    return pairs


def to_jsonl(lines: Sequence[TrainLine] | Sequence[PairLine]) -> str:
    """Return the text of `train.jsonl` or `pairs.jsonl`."""
    return "".join(json.dumps(asdict(line), ensure_ascii=False) + "\n" for line in lines)


def body_of(record: RawRecord, drop_echoes: bool, prompt: PromptConfig) -> tuple[str, int]:
    """Return the cleaned reasoning, or the cleaned text if that is empty, and how many echoes were removed."""
    echoes = 0
    for source in split_thinking(record.reasoning, record.text):
        body = tidy(source)
        if drop_echoes:
            body, dropped = without_echoes(body, prompt)
            echoes += dropped
        body = without_answer(body, prompt.answer_rules)
        if body:
            return body, echoes
    return "", echoes


def _response(
    record: RawRecord, traces: TracesConfig, prompt: PromptConfig, grader: Grader, report: FormatReport
) -> str | None:
    dropped = report.dropped
    if record.truncated and traces.drop_truncated:
        dropped.truncated += 1
    elif record.number is None:
        dropped.no_answer += 1
    elif not record.correct and traces.drop_wrong:
        dropped.wrong += 1
    else:
        body, echoes = body_of(record, traces.drop_echoes, prompt)
        report.echoes_removed += echoes
        response = f"{body}\n{_last_line(record.number, grader)}".lstrip("\n")
        if not body and traces.drop_empty:
            dropped.empty += 1
        elif not (graded := grader.grade(response, record.gold)).well_formed or graded.correct != record.correct:
            dropped.unreadable += 1
        else:
            return response
    return None


def _last_line(answer: str, grader: Grader) -> str:
    try:
        return grader.rules.marked(answer)
    except ValueError as error:
        raise UserError(str(error)) from None


def _shortest(
    lines: list[TrainLine], groups: Iterable[list[TrainLine]], limit: int | None, report: FormatReport
) -> list[TrainLine]:
    """Keep the `limit` shortest responses of each problem, in characters; the earlier one on a tie."""
    if limit is None:
        return lines
    best = {line.id for group in groups for line in sorted(group, key=lambda line: len(line.response))[:limit]}
    report.dropped.longer += len(lines) - len(best)
    return [line for line in lines if line.id in best]
