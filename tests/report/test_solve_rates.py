"""Solve rates of training questions, counted by hand."""

from __future__ import annotations

from pathlib import Path

from grpo_gsm8k.report import collect
from grpo_gsm8k.report.solve_rates import solve_rates
from tests.report import recorded
from tests.report import runs as made


def group(prompt: str, right: int, count: int = 4) -> list[dict[str, object]]:
    return [recorded.row(prompt, at < right) for at in range(count)]


def test_visits_are_in_order_and_rates_are_shares(tmp_path: Path) -> None:
    folder = made.training(tmp_path / "runs", "one")
    recorded.rollouts(folder, 10, [*group("a", 4), *group("b", 0)])
    recorded.rollouts(folder, 2, [*group("a", 1), *group("b", 0), *group("c", 4)])
    (rates,) = solve_rates([collect.read_run(folder, "one")])
    assert rates.updates == ((2, 1, 1, 1), (10, 1, 0, 1))
    found = {question.key[0]: (question.visits, question.rate) for question in rates.questions}
    assert found == {
        "a": (((2, 4, 1), (10, 4, 4)), 5 / 8),
        "b": (((2, 4, 0), (10, 4, 0)), 0.0),
        "c": (((2, 4, 4),), 1.0),
    }
    assert [question.key[0] for question in rates.questions] == ["b", "a", "c"]  # hardest first
    assert rates.words == (
        "Of 3 questions, 1 were never solved and 1 by every completion",
        "2 were trained on more than once: from the first time to the last, 1 were solved more often, 0 less often, "
        "1 equally often",
    )
    assert rates.caption == "3 of 3 questions of 2 of 2 updates"


def test_questions_are_limited_to_those_with_most_visits(tmp_path: Path) -> None:
    folder = made.training(tmp_path / "runs", "one")
    for update in (1, 2):
        recorded.rollouts(folder, update, [row for i in range(20) for row in group(f"q{i}", i % 5)])
    recorded.rollouts(folder, 3, [row for i in range(100) for row in group(f"once{i}", 2)])
    (rates,) = solve_rates([collect.read_run(folder, "one")], most=10)
    assert rates.caption == "10 of 120 questions of 3 of 3 updates"
    assert all(len(question.visits) == 2 for question in rates.questions)
    assert {question.rate for question in rates.questions} == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_a_run_without_rollouts_has_none(tmp_path: Path) -> None:
    folder = made.training(tmp_path / "runs", "one", command="sft")
    assert solve_rates([collect.read_run(folder, "one")]) == []
    (recorded.rollouts(folder, 1, group("a", 1))).write_bytes(b"half")
    assert solve_rates([collect.read_run(folder, "one")]) == []
