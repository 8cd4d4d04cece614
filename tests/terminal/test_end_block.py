"""The last lines of a run: results, absolute paths, and commands that fit the terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grpo_gsm8k.terminal.end_block import end_lines, print_end
from tests.terminal.test_next_commands import DONE, RUN


def measured(version: int, accuracy: float) -> dict[str, Any]:
    return {
        "version": version,
        "accuracy": accuracy,
        "accuracy_ci_low": accuracy - 0.04,
        "accuracy_ci_high": accuracy + 0.04,
    }


SUMMARY: dict[str, Any] = {
    "status": "done",
    "steps": 30,
    "total_steps": 30,
    "wall_seconds": 206.4,
    "first_validation": measured(0, 0.463),
    "last_validation": measured(30, 0.869),
    "best_validation": measured(20, 0.9),
    "change": "higher",
    "tokens_per_s_mean": 1585.4,
    "actor_idle_frac_mean": 0.22,
    "learner_idle_frac_mean": None,
    "restarts": {"actor": 1, "learner": 0},
    "estimate": {"initial": {"step_s": 3.71, "hours": 0.0586, "usd": 0.0117}},
    "outcome": {"step_s": 4.04, "usd": 0.02, "hours": 0.06},
}


def test_a_finished_run() -> None:
    lines = end_lines(SUMMARY, DONE, RUN / "report.html", "python cli.py", None)
    assert lines == [
        "",
        "done: 30 of 30 updates in 3 min 26 s, $0.02",
        "at start    46.3 % [42.3, 50.3] at update 0",
        "at end      86.9 % [82.9, 90.9] at update 30",
        "change      higher: the 95 % intervals do not overlap",
        "best        90.0 % [86.0, 94.0] at update 20",
        "speed       1585 tokens/s, idle: actor 22 %, learner -",
        "restarts    actor 1",
        "per update  4.0 s (estimated: 3.7 s)",
        "estimated   3 min 31 s in total, $0.01",
        f"run folder  {RUN}",
        f"checkpoint  {RUN}/checkpoints/step_30",
        f"report      {RUN}/report.html",
        "",
        "next:",
        f"eval        python cli.py command=eval eval.model_path={RUN}/checkpoints/step_30",
        f"report      python cli.py command=report 'report.runs=[{RUN}]'",
        f"push        python cli.py command=push run={RUN} push.repo_id=OWNER/NAME",
    ]


def test_the_best_model_and_the_newest_checkpoint_are_told_apart() -> None:
    run = replace(DONE, checkpoint=RUN / "checkpoints/step_10", complete=False)
    text = "\n".join(end_lines({**SUMMARY, "status": "interrupted"}, run, None, "python cli.py", None))
    assert f"best model  {RUN}/checkpoints/step_10\nnewest      {RUN}/checkpoints/step_30\n" in text
    assert "\nresume      python cli.py command=policy_gradient policy_gradient.resume_from=" in text
    assert "report.html" not in text


def test_a_run_that_failed_at_its_start_shows_where_the_logs_are() -> None:
    none = {f"{which}_validation": None for which in ("first", "last", "best")}
    run = replace(DONE, checkpoint=None, newest=None, complete=False, failed=True)
    lines = end_lines({**SUMMARY, **none, "status": "failed", "steps": 0}, run, None, "python cli.py", None)
    assert lines == [
        "",
        "failed: 0 of 30 updates in 3 min 26 s, $0.02",
        f"run folder  {RUN}",
        f"logs        {RUN}/logs",
    ]


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ({"first_validation": None, "last_validation": None, "best_validation": None}, "accuracy    no validation"),
        ({"last_validation": measured(0, 0.463)}, "accuracy    46.3 % [42.3, 50.3] at update 0"),
        ({"change": "none shown"}, "change      no difference shown: the 95 % intervals overlap"),
        ({"change": "lower"}, "change      lower: the 95 % intervals do not overlap"),
        ({"change": None}, "change      unknown: there are no intervals"),
        ({"outcome": None, "estimate": None}, "done: 30 of 30 updates in 3 min 26 s"),
        ({"estimate": {"initial": None}}, "done: 30 of 30 updates in 3 min 26 s, $0.02"),
        ({"outcome": {"step_s": None, "usd": None}}, "done: 30 of 30 updates in 3 min 26 s"),
    ],
)
def test_what_a_run_lacks(summary: dict[str, Any], expected: str) -> None:
    assert expected in end_lines({**SUMMARY, **summary}, DONE, None, "python cli.py", None)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_line_that_can_fits_the_terminal(width: int) -> None:
    for line in end_lines(SUMMARY, DONE, RUN / "report.html", "python cli.py", width):
        unbreakable = max(len(word) for word in line.split()) if line else 0
        assert len(line) <= width or unbreakable > width - 14 - 4


def test_a_pipe_gets_whole_commands_and_no_escape_sequences() -> None:
    raw = io.BytesIO()
    run = replace(DONE, folder=Path("/tmp/koşu"))
    stream = io.TextIOWrapper(raw, encoding="ascii")
    print_end(SUMMARY, run, None, "python cli.py", stream=stream)
    text = raw.getvalue().decode("ascii")
    assert "run folder  /tmp/ko\\u015fu\n" in text
    assert "\x1b" not in text
    assert "\\\n" not in text


def test_warnings_stand_before_the_next_commands() -> None:
    warning = "warning: the reward is flat: raise policy_gradient.max_new_tokens, or give easier problems to begin with"
    lines = end_lines(SUMMARY, DONE, None, "python cli.py", 60, [warning])
    start = next(index for index, line in enumerate(lines) if line.startswith("warning:"))
    block = lines[start : lines.index("next:")]
    assert " ".join(block).strip() == warning
    assert max(map(len, block)) <= 60
