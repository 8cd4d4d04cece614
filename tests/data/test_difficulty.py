"""The probability of drawing a prompt, compared with enumerated groups, and what it depends on."""

from __future__ import annotations

from itertools import product

import pytest

from grpo_gsm8k.data.difficulty import Solved, SolveHistory, is_drawn, mixed_probability


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize(("correct", "of"), [(0, 8), (3, 8), (8, 8), (1.5, 12.0)])
def test_it_is_the_probability_of_a_mixed_group(correct: float, of: float, size: int) -> None:
    rate = (correct + 0.5) / (of + 1)
    mixed = 0.0
    for group in product((True, False), repeat=size):
        if 0 < sum(group) < size:
            mixed += rate ** sum(group) * (1 - rate) ** (size - sum(group))
    assert mixed_probability((correct, of), size) == pytest.approx(mixed)


@pytest.mark.parametrize("size", [2, 4, 8, 64, 512])
def test_easy_and_hopeless_prompts_are_drawn_less_often_and_never_lost(size: int) -> None:
    history = SolveHistory({}, {})
    for step in range(50):
        groups = [Solved("hopeless", 0, size), Solved("easy", size, size), Solved("useful", size // 2, size)]
        history.add(step, groups)
    history.fold(50)
    hopeless, easy, useful = (history.probability(name, size) for name in ("hopeless", "easy", "useful"))
    assert hopeless == pytest.approx(easy)
    assert 0.15 < hopeless < 0.6 * useful
    assert history.probability("new", size) == 1.0


def test_draws_know_the_results_before_the_folded_update_only() -> None:
    history = SolveHistory({}, {})
    history.add(0, [Solved("a", 8, 8)])
    history.add(1, [Solved("a", 0, 8)])
    history.fold(0)
    assert history.counts == {}
    history.fold(1)
    assert history.counts == {"a": (8.0, 8.0)}
    history.fold(2)
    assert history.counts == {"a": (4.0, 12.0)}  # older results count half
    assert history.recent == {}


def test_draws_are_a_pure_function_with_their_probability() -> None:
    drawn = [is_drawn(position, 3, 0.3) for position in range(4000)]
    assert drawn == [is_drawn(position, 3, 0.3) for position in range(4000)]
    assert sum(drawn) / 4000 == pytest.approx(0.3, abs=0.03)
    assert [is_drawn(position, 4, 0.3) for position in range(4000)] != drawn
    assert all(is_drawn(position, 3, 1.0) for position in range(1000))
