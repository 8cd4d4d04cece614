"""Overhead of a rewards file per update: 64 groups of 8 completions of 400 tokens, two functions that do nothing.

Usage: python -m benchmarks.rewards_overhead
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from grpo_gsm8k.grading.answers import AnswerFormat, Locale, grade
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.grading.rewards import RewardInput
from grpo_gsm8k.grading.user_rewards import RewardLimits, UserRewards

FILE = "def each(item): return item.tokens\ndef group(items): return [item.tokens for item in items]\n"
THREADS = 4
ROUNDS = 5


def main() -> None:
    """Print the seconds of each round; the first one starts the children."""
    graded = grade("#### 5", "5", AnswerFormat.HASH, Locale.EN)
    groups = []
    for number in range(64):
        problem = Problem(f"p-{number}", "q" * 200, "a" * 300, "5")
        ids = [tuple(random.randrange(150_000) for _ in range(400)) for _ in range(8)]
        groups.append([RewardInput(problem, "p" * 400, "word " * 300, each, "stop", graded) for each in ids])
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(THREADS) as threads:
        file = Path(folder) / "rewards.py"
        file.write_text(FILE)
        rewards = UserRewards([file], RewardLimits(30.0, 2048, "stop", 0), os.environ, THREADS)
        for _ in range(ROUNDS):
            started = time.perf_counter()
            list(threads.map(lambda items: rewards.score(["each", "group"], items), groups))
            print(f"{time.perf_counter() - started:.3f} s for 512 completions")
        rewards.close()


if __name__ == "__main__":
    main()
