"""Token weights and the length penalty, by hand."""

import pytest

from grpo_gsm8k.algorithms.lengths import overlong_penalty
from grpo_gsm8k.algorithms.reductions import token_weights


def test_weights() -> None:
    # two sequences of 2 and 4 tokens
    assert token_weights([2, 4], "sequence_mean", 10) == [1 / 4, 1 / 8]
    assert token_weights([2, 4], "token_mean", 10) == [1 / 6, 1 / 6]
    assert token_weights([2, 4], "sequence_sum", 10) == [1 / 2, 1 / 2]
    assert token_weights([2, 4], "constant", 10) == [1 / 20, 1 / 20]
    assert token_weights([], "token_mean", 10) == []


@pytest.mark.parametrize(("length", "penalty"), [(10, 0.0), (60, 0.0), (70, -0.25), (80, -0.5), (100, -1.0)])
def test_overlong(length: int, penalty: float) -> None:
    # limit 100, buffer 40: free up to 60
    assert overlong_penalty(length, limit=100, buffer=40) == penalty
