"""Shapes of the models in the tables of docs/scaling.md, so that the tables need no network."""

from __future__ import annotations

from grpo_gsm8k.preflight.parameters import Linear, ModelShape


def _qwen(layers: int, hidden: int, intermediate: int, key_value: int, vocab: int, tied: bool) -> ModelShape:
    """Return the shape of a Qwen2.5 model: biases in the first three layers of a block, two norms, and a last one."""
    linears = (
        Linear("down_proj", intermediate, hidden),
        Linear("gate_proj", hidden, intermediate),
        Linear("up_proj", hidden, intermediate),
        Linear("k_proj", hidden, key_value),
        Linear("o_proj", hidden, hidden),
        Linear("q_proj", hidden, hidden),
        Linear("v_proj", hidden, key_value),
    )
    weights = sum(linear.inputs * linear.outputs for linear in linears)
    block = weights + hidden + 2 * key_value + 2 * hidden
    parameters = layers * block + hidden + vocab * hidden * (1 if tied else 2)
    return ModelShape(parameters, layers, hidden, intermediate, hidden, key_value, vocab, tied, linears)


QWEN = {
    "1.5B": _qwen(28, 1536, 8960, 256, 151936, tied=True),
    "3B": _qwen(36, 2048, 11008, 256, 151936, tied=True),
    "7B": _qwen(28, 3584, 18944, 512, 152064, tied=False),
}
