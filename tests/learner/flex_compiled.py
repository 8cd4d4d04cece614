"""FlexAttention compiled by Inductor, forward, against the pieces over changing layouts; prints the graphs compiled.

A program of its own, because the tests run with torch.compile switched off. Inductor's CPU kernels lower the same mask
and score functions as its GPU kernels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch._dynamo.utils import counters

from grpo_gsm8k.learner.attention_flex import attend_flex
from grpo_gsm8k.learner.attention_pieces import attend_in_pieces
from grpo_gsm8k.learner.layout import Layout, shared_prompt

WINDOW, SOFTCAP, SCALE = 16, 5.0, 0.25


def main() -> None:
    rng = np.random.default_rng(0)
    for _ in range(4):
        prompt, completions = int(rng.integers(5, 200)), rng.integers(1, 150, size=rng.integers(2, 6)).tolist()
        layout = Layout(shared_prompt(0, prompt, completions))
        query, key, value = (torch.randn(1, heads, layout.tokens, 16) for heads in (4, 2, 2))
        found = attend_flex(query, key, value, layout, SCALE, WINDOW, SOFTCAP, compiled=True)
        torch.testing.assert_close(found, attend_in_pieces(query, key, value, layout, SCALE, WINDOW, SOFTCAP))
        print(counters["stats"]["unique_graphs"], flush=True)


if __name__ == "__main__":
    main()
