from __future__ import annotations

import time

import pytest

from grpo_gsm8k.data.sampler import prompt_at


def epoch_of(n: int, seed: int, epoch: int) -> list[int]:
    return [prompt_at(epoch * n + offset, n, seed)[1] for offset in range(n)]


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_every_prompt_of_an_epoch_comes_exactly_once(n):
    for epoch in range(3):
        assert sorted(epoch_of(n, 0, epoch)) == list(range(n))


def test_the_epoch_is_counted():
    assert [prompt_at(position, 3, 0)[0] for position in range(7)] == [0, 0, 0, 1, 1, 1, 2]


def test_orders_differ_between_epochs_and_seeds_and_from_the_file():
    orders = [tuple(epoch_of(50, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len({*orders, tuple(range(50))}) == 5


def test_any_position_gives_the_same_in_any_order():
    forward = [prompt_at(position, 10, 3) for position in range(100)]
    assert [prompt_at(position, 10, 3) for position in reversed(range(100))] == forward[::-1]


def test_the_order_is_pinned():
    # A run resumed with another version of numpy must continue in the same order.
    assert epoch_of(8, 0, 0) == PINNED


PINNED = [2, 4, 3, 6, 5, 0, 1, 7]


def test_it_is_cheap():
    prompt_at(0, 7473, 0)
    started = time.perf_counter()
    for position in range(7473):
        prompt_at(position, 7473, 0)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(("position", "n"), [(-1, 5), (0, 0)])
def test_nonsense_is_refused(position, n):
    with pytest.raises(ValueError, match="must"):
        prompt_at(position, n, 0)
