"""The plan of supervised fine-tuning: every example once per epoch, every update full."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from grpo_gsm8k.data.schedule import UpdateSize, plan_updates


@pytest.mark.parametrize(("n", "min_tokens", "epochs"), [(7, 10, 3), (50, 64, 2), (5, 1000, 2), (9, 1, 1)])
def test_every_example_comes_once_in_every_epoch(n: int, min_tokens: int, epochs: int) -> None:
    lengths = [int(x) for x in np.random.default_rng(0).integers(1, 12, n)]
    plan = plan_updates(lengths, UpdateSize(min_tokens, None), epochs, seed=3)
    uses = [use for update in plan for use in update]
    assert Counter(uses) == Counter((epoch, index) for epoch in range(epochs) for index in range(n))
    assert [epoch for epoch, _ in uses] == sorted(epoch for epoch, _ in uses)
    for update in plan[:-1]:
        tokens = [lengths[index] for _, index in update]
        assert sum(tokens) >= min_tokens > sum(tokens[:-1])


@pytest.mark.parametrize(("n", "size", "epochs"), [(7, 3, 3), (8, 4, 2), (2, 5, 1), (2, 5, 4)])
def test_updates_of_a_number_of_examples(n: int, size: int, epochs: int) -> None:
    plan = plan_updates([1 + i for i in range(n)], UpdateSize(None, size), epochs, seed=3)
    assert [len(update) for update in plan[:-1]] == [size] * (len(plan) - 1)
    uses = [use for update in plan for use in update]
    assert Counter(uses) == Counter((epoch, index) for epoch in range(epochs) for index in range(n))
    assert uses == [use for update in plan_updates([1] * n, UpdateSize(1, None), epochs, seed=3) for use in update]


def test_epochs_have_orders_of_their_own_and_the_seed_decides() -> None:
    lengths = [1] * 20
    first, second = plan_updates(lengths, UpdateSize(20, None), 2, seed=0)
    assert [i for _, i in first] != [i for _, i in second]
    assert plan_updates(lengths, UpdateSize(20, None), 2, seed=0) == [first, second]
    assert plan_updates(lengths, UpdateSize(20, None), 2, seed=1) != [first, second]
