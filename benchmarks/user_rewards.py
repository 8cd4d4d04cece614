"""Overhead of a user's reward function: `python -m benchmarks.user_rewards`.

Scores 512 completions (64 prompts, 8 completions of 200 tokens each) with a trivial function of a rewards file, from as
many threads as the learner uses, and the same with a function of the whole group. The children are warm. The time is
that of the transport, since the functions compute nothing.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from grpo_gsm8k.grading.answers import AnswerFormat, Locale, grade
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.grading.rewards import RewardInput
from grpo_gsm8k.grading.user_rewards import RewardLimits, UserRewards
from grpo_gsm8k.learner.task import GRADING_THREADS

PROMPTS, SAMPLES, TOKENS, ROUNDS = 64, 8, 200, 5
FILE = """
def one(item):
    return 1.0

def group(items):
    return [1.0] * len(items)
"""


def main() -> int:
    """Measure and print: median of five rounds."""
    groups = [group(index) for index in range(PROMPTS)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trivial.py"
        file.write_text(FILE)
        for part in ("one", "group"):
            rewards = UserRewards([file], RewardLimits(30.0, 2048, "stop", 0), os.environ, GRADING_THREADS)
            try:
                print(f"{part:<6} {measured(rewards, part, groups)}")
            finally:
                rewards.close()
    return 0


def group(index: int) -> list[RewardInput]:
    """Return the completions of one prompt."""
    problem = Problem(f"train-{index:05d}", "What is 2 + 3? " * 20, "2 + 3 = 5\n#### 5", "5", {"level": 3})
    text = "Step: 2 + 3 = 5. " * 40 + "\n#### 5"
    graded = grade(text, problem.gold, AnswerFormat.HASH, Locale.EN)
    return [
        RewardInput(problem, problem.question, text, (i, *range(1, TOKENS)), "stop", graded) for i in range(SAMPLES)
    ]


def measured(rewards: UserRewards, part: str, groups: list[list[RewardInput]]) -> str:
    """Return wall and CPU time of scoring all groups, children included, as text."""
    walls, cpus = [], []
    with ThreadPoolExecutor(GRADING_THREADS) as threads:
        list(threads.map(lambda items: rewards.score([part], items), groups))  # starts the children
        for _ in range(ROUNDS):
            cpu, wall = cpu_seconds(), time.perf_counter()
            list(threads.map(lambda items: rewards.score([part], items), groups))
            walls.append(time.perf_counter() - wall)
            cpus.append(cpu_seconds() - cpu)
    count = PROMPTS * SAMPLES
    wall, cpu = statistics.median(walls), statistics.median(cpus)
    return (
        f"{count} completions: {1000 * wall:.0f} ms, {1000 * cpu:.0f} ms of CPU time, {1e6 * cpu / count:.0f} us each"
    )


def cpu_seconds() -> float:
    """Return the CPU time of this process and its children so far."""
    own = psutil.Process()
    times = [own.cpu_times(), *(child.cpu_times() for child in own.children())]
    return sum(t.user + t.system for t in times)


if __name__ == "__main__":
    raise SystemExit(main())
