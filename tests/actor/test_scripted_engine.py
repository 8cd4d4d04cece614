"""The lengths of the scripted engine's completions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from grpo_gsm8k.actor.scripted_engine import ScriptedEngine, lognormal_length
from grpo_gsm8k.transport.protocol import GenerateGroup, GroupResult, SamplingSpec
from tests.actor.test_verification import SPEC


def test_lengths_are_lognormal_with_a_median_of_an_eighth() -> None:
    lengths = np.array([lognormal_length(seed, 8000) for seed in range(20_000)])
    assert stats.kstest(lengths, stats.lognorm(s=1, scale=1000).cdf).pvalue > 0.01
    assert np.mean(lengths > 8000) == pytest.approx(stats.norm.sf(np.log(8)), abs=0.003)


@pytest.mark.parametrize("lengths", ["uniform", "lognormal"])
def test_completions_have_the_lengths_of_their_seeds(lengths: str) -> None:
    engine = ScriptedEngine(replace(SPEC, max_model_len=100, own_version=0, scripted_lengths=lengths))
    request = GenerateGroup("r", np.array([5], dtype=np.int32), 50, SamplingSpec(1.0, 1.0, 32, 7, (1,)), 0, False)
    engine.add(request)
    found = [result for _ in range(33) for result in engine.step()]
    (result,) = found
    assert isinstance(result, GroupResult)
    assert all((c.finish_reason == "stop") == (c.token_ids[-1] == 1) for c in result.completions)
    if lengths == "lognormal":
        assert [len(c.token_ids) for c in result.completions] == [
            min(32, lognormal_length(7 + i, 32)) for i in range(50)
        ]
