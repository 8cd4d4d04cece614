"""Count the graphs that torch.compile makes of the transformer blocks, micro-batch by micro-batch: one number a line.

A program of its own, because the tests run with torch.compile switched off.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grpo_gsm8k.learner.batching import TokenSequence, token_sequence
from grpo_gsm8k.learner.model import load_policy
from tests.learner import model_zoo
from tests.learner.conftest import small_config

MICRO_BATCHES = 14


def sequences(seed: int) -> list[TokenSequence]:
    """One to four prompts with one to five completions."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(rng.integers(1, 5)):
        prompt = rng.integers(2, model_zoo.VOCAB, size=rng.integers(2, 30)).astype(np.int32)
        for length in rng.integers(2, 40, size=rng.integers(1, 6)):
            made.append(token_sequence(prompt, rng.integers(2, model_zoo.VOCAB, size=length).astype(np.int32)))
    return made


def main(folder: Path, *overrides: str) -> None:
    policy = load_policy(folder, small_config(*overrides).learner)
    plain = load_policy(folder, small_config(*overrides).learner)
    graphs = 0

    def count(graph: Any, _: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return graph

    policy.compile_blocks(count)
    for seed in range(MICRO_BATCHES):
        found, gradient = model_zoo.learner_logprobs(policy, sequences(seed))
        expected, wanted = model_zoo.learner_logprobs(plain, sequences(seed))
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(gradient, wanted)
        print(graphs, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
