"""How often each training question was solved, over the updates that it was part of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grpo_gsm8k.report import collect
from grpo_gsm8k.report.material import Key, Run
from grpo_gsm8k.report.rollout_rows import read_table, rollout_files, rows_of

MAX_QUESTIONS = 160  # of all runs together
MAX_FILES = 1000  # of a run; reading one takes milliseconds
MAX_VISITS = 24  # per question, the latest
MAX_DRAWN = 200  # updates of a run in the figure
QUESTION_LENGTH = 160
Visit = tuple[int, int, int]  # update, completions, right ones


@dataclass(frozen=True, slots=True)
class QuestionRates:
    """The visits of one question, in order of updates."""

    key: Key
    visits: tuple[Visit, ...]

    @property
    def rate(self) -> float:
        """The share of right completions over all visits."""
        return sum(right for _, _, right in self.visits) / sum(count for _, count, _ in self.visits)

    @property
    def change(self) -> float:
        """The share of right completions at the last visit minus that at the first."""
        (_, first, first_right), (_, last, last_right) = self.visits[0], self.visits[-1]
        return last_right / last - first_right / first


@dataclass(frozen=True, slots=True)
class SolveRates:
    """The questions of one run that are shown, and per update how many of all were solved never, partly or always."""

    run: str
    caption: str
    questions: tuple[QuestionRates, ...]
    updates: tuple[tuple[int, int, int, int], ...]  # update, never, partly, always
    words: tuple[str, ...] = field(default=())

    def page_data(self) -> dict[str, Any]:
        """Return the questions as lists, with texts cut to one line."""
        rows = [
            [q.key[0], q.key[1][:QUESTION_LENGTH], len(q.key[1]) > QUESTION_LENGTH, q.visits[-MAX_VISITS:]]
            for q in self.questions
        ]
        return {"run": self.run, "questions": rows, "updates": self.drawn}

    @property
    def drawn(self) -> tuple[tuple[int, int, int, int], ...]:
        """The updates in the figure: of a long run, evenly spread ones."""
        return tuple(self.updates[at] for at in collect.spread(range(len(self.updates)), MAX_DRAWN))


def solve_rates(runs: Sequence[Run], most: int = MAX_QUESTIONS) -> list[SolveRates]:
    """Return the solve rates of each run with rollouts; `most` questions are shared equally."""
    known = [run for run in runs if rollout_files(run.folder)]
    found = [_of_run(run, most // len(known)) for run in known]
    return [rates for rates in found if rates is not None]


def _of_run(run: Run, most: int) -> SolveRates | None:
    files = rollout_files(run.folder)
    read = collect.spread(list(files), MAX_FILES)
    visits: dict[Key, list[Visit]] = {}
    updates = []
    for update in read:
        if not (groups := _groups(files[update])):  # unreadable, or gone since
            continue
        for key, (count, right) in groups.items():
            visits.setdefault(key, []).append((update, count, right))
        never = sum(right == 0 for _, right in groups.values())
        always = sum(right == count for count, right in groups.values())
        updates.append((update, never, len(groups) - never - always, always))
    if not visits:
        return None
    every = [QuestionRates(key, tuple(found)) for key, found in visits.items()]
    shown = _chosen(every, most)
    caption = f"{len(shown):,} of {len(every):,} questions of {len(updates):,} of {len(files):,} updates"
    return SolveRates(run.name, caption, tuple(shown), tuple(updates), tuple(_words(every)))


def _groups(path: Path) -> dict[Key, tuple[int, int]]:
    """Return completions and right ones per question of an update."""
    table = read_table(path, ("prompt_id", "question", "kind"))
    found: dict[Key, tuple[int, int]] = {}
    for row in [] if table is None else rows_of(table):
        key = (str(row["prompt_id"]), str(row["question"]))
        count, right = found.get(key, (0, 0))
        found[key] = (count + 1, right + (row["kind"] == "correct"))
    return found


def _chosen(every: Sequence[QuestionRates], most: int) -> list[QuestionRates]:
    """Return the questions with the most visits, evenly spread over their solve rates, hardest first."""
    visits = sorted((len(q.visits) for q in every), reverse=True)
    least = visits[min(most, len(visits)) - 1]
    found = sorted((q for q in every if len(q.visits) >= least), key=lambda q: (q.rate, q.key))
    return [found[at] for at in collect.spread(range(len(found)), most)] if most > 1 else found[:most]


def _words(every: Sequence[QuestionRates]) -> list[str]:
    never = sum(q.rate == 0 for q in every)
    always = sum(q.rate == 1 for q in every)
    found = [f"Of {len(every):,} questions, {never:,} were never solved and {always:,} by every completion"]
    again = [q for q in every if len(q.visits) > 1]
    if again:
        better, worse = sum(q.change > 0 for q in again), sum(q.change < 0 for q in again)
        found.append(
            f"{len(again):,} were trained on more than once: from the first time to the last, {better:,} were solved "
            f"more often, {worse:,} less often, {len(again) - better - worse:,} equally often"
        )
    else:
        found.append("each was trained on once")
    return found
