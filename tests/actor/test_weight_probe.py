"""Where the probe finds the file's tensors in an engine's modules, without an engine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from grpo_gsm8k.actor.weight_probe import Probe, probe_weights


class Engine(nn.Module):
    """A model with fused projections, as vLLM builds them; `prefix` is that of its wrapper."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        block = nn.Module()
        block.self_attn, block.mlp = nn.Module(), nn.Module()
        block.self_attn.qkv_proj = nn.Linear(6, 12)
        block.mlp.gate_up_proj = nn.Linear(6, 20, bias=False)
        trunk = nn.Module()
        trunk.layers, trunk.norm, trunk.embed_tokens = nn.ModuleList([block]), nn.LayerNorm(6), nn.Embedding(16, 6)
        self.add_module(prefix, trunk)
        self.lm_head = nn.Embedding(16, 6)  # padded: the file has 11 rows
        self.lm_head.weight = trunk.embed_tokens.weight


def tensors_of(engine: Engine, prefix: str) -> dict[str, torch.Tensor]:
    trunk = engine.get_submodule(prefix)
    state = {name: t.detach().clone() for name, t in trunk.state_dict().items()}
    qkv, bias = state.pop("layers.0.self_attn.qkv_proj.weight"), state.pop("layers.0.self_attn.qkv_proj.bias")
    rows = {"q_proj": slice(0, 6), "k_proj": slice(6, 9), "v_proj": slice(9, 12)}
    gate_up = state.pop("layers.0.mlp.gate_up_proj.weight")
    state |= {f"layers.0.self_attn.{name}.weight": qkv[part].clone() for name, part in rows.items()}
    state |= {f"layers.0.self_attn.{name}.bias": bias[part].clone() for name, part in rows.items()}
    state |= {
        "layers.0.mlp.gate_proj.weight": gate_up[:10].clone(),
        "layers.0.mlp.up_proj.weight": gate_up[10:].clone(),
    }
    state["embed_tokens.weight"] = state["embed_tokens.weight"][:11].clone()
    return {f"model.{name}": t for name, t in state.items()}


@pytest.mark.parametrize("prefix", ["model", "language"])
def test_every_tensor_is_found_and_a_changed_one_is_named(prefix: str, tmp_path: Path) -> None:
    engine, file = Engine(prefix), tmp_path / "model.safetensors"
    tensors = tensors_of(engine, prefix)
    save_file(tensors, file)
    assert probe_weights(engine, str(file)) == Probe(len(tensors) + 1, "")  # the tied embedding is compared twice
    for name, tensor in tensors.items():
        changed = tensor.clone()
        changed[-1] = torch.nextafter(changed[-1], torch.full_like(changed[-1], 9.0))  # by one bit
        save_file({**tensors, name: changed}, file)
        assert probe_weights(engine, str(file)).differs == name


def test_tensors_without_a_place_are_not_counted(tmp_path: Path) -> None:
    save_file({"other.weight": torch.ones(2), "model.norm.weight": torch.ones(6)}, tmp_path / "f")
    assert probe_weights(Engine("model"), str(tmp_path / "f")) == Probe(1, "")


def test_a_repacked_copy_is_read_through_its_product(tmp_path: Path) -> None:
    """What a CPU engine does: the weight is gone, or stale next to the copy that the product uses."""
    engine, file = Engine("model"), tmp_path / "f"
    weight = torch.randn(16, 6)

    class Packed:
        def apply(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
            return x @ weight.T

    engine.lm_head.cpu_linear, engine.lm_head.quant_method = True, Packed()  # type: ignore[assignment]
    save_file({"lm_head.weight": engine.lm_head.weight.detach().clone()}, file)
    assert probe_weights(engine, str(file)) == Probe(1, "lm_head.weight")
    engine.lm_head.weight = nn.Parameter(torch.empty(0))
    save_file({"lm_head.weight": weight}, file)
    assert probe_weights(engine, str(file)) == Probe(1, "")
