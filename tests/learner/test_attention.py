"""Each implementation of the packed attention against Hugging Face's, the choice among them, and torch.compile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from grpo_gsm8k.learner import attention, attention_pieces, attention_varlen
from grpo_gsm8k.learner.attention_choice import AttentionKind, attention_kind
from grpo_gsm8k.learner.attention_rows import copied, gathered, own_rows
from grpo_gsm8k.learner.batching import pack_tokens
from grpo_gsm8k.learner.layout import shared_prompt
from tests.conftest import REPO
from tests.learner import model_zoo, recompiles

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("pieces", {"device": "cpu", "dtype": "bfloat16"}),
        ("pieces", {"device": "cuda:1", "dtype": "float32"}),
        ("pieces", {"device": "cuda", "dtype": "float32", "softcap": True}),
        ("varlen", {"device": "cuda:0", "dtype": "bfloat16"}),
        ("varlen", {"device": "cuda", "dtype": "bfloat16", "deterministic": True, "head_dim": 256}),
        ("pieces", {"device": "cuda", "dtype": "bfloat16", "head_dim": 100}),
        ("pieces", {"device": "cuda", "dtype": "bfloat16", "capability": (7, 5)}),
        ("flex", {"device": "cuda", "dtype": "bfloat16", "softcap": True}),
    ],
)
def test_the_choice(kind: AttentionKind, given: dict[str, Any]) -> None:
    assert attention_kind(**given) == kind


def by_sequence(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_q: torch.Tensor,
    cu_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> torch.Tensor:
    """What torch's `varlen_attn` documents, one sequence after another, with the causal mask at the bottom right."""
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert (max_q, max_k) == (int(cu_q.diff().max()), int(cu_k.diff().max()))
    assert (int(cu_q[-1]), int(cu_k[-1])) == (len(query), len(key))
    left, right = window_size
    outputs = []
    for (q0, q1), (k0, k1) in zip(pairwise(cu_q.tolist()), pairwise(cu_k.tolist()), strict=True):
        distance = torch.arange(k1 - k0)[None] - (torch.arange(q1 - q0)[:, None] + (k1 - k0) - (q1 - q0))
        mask = (distance <= right) & ((distance >= -left) | (left < 0))
        q, k, v = (t.transpose(0, 1) for t in (query[q0:q1], key[k0:k1], value[k0:k1]))
        outputs.append(F.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=enable_gqa))
    return torch.cat([out.transpose(0, 1) for out in outputs])


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("varlen", name) for name in ("Llama", "SmolLM2", "Mistral", "Gemma 3", "Granite")),
        *(("flex", name) for name in ("Llama", "Mistral", "Gemma 2")),
    ],
)
def test_log_probabilities_and_gradients_equal_hugging_face(
    kind: AttentionKind, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The indices, masks and windows that the GPU's kernels are given, with the kernels replaced by plain products."""
    monkeypatch.setattr(attention, "attention_kind", lambda *_: kind)
    monkeypatch.setattr(attention_varlen, "varlen_attn", by_sequence)
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *_: None)  # no backward on CPUs
    gap = model_zoo.gap(model_zoo.make(name, tmp_path / "model"))
    assert gap.logprob < 2e-5
    assert gap.gradient < 1e-5


def test_flex_computes_every_block_that_a_pair_needs() -> None:
    from grpo_gsm8k.learner.attention_flex import BLOCK, _mask_mod, touched_blocks

    segments = [*shared_prompt(0, 150, [200, 30, 90]), *shared_prompt(470, 300, [5]), *shared_prompt(775, 10, [7, 400])]
    tokens = segments[-1].start + segments[-1].length
    rows = torch.arange(tokens)
    mask = _mask_mod(segments, None, CPU)(rows, rows, rows[:, None], rows[None])
    padded = F.pad(mask, (0, -tokens % BLOCK, 0, -tokens % BLOCK)).numpy()
    needed = padded.reshape(len(padded) // BLOCK, BLOCK, -1, BLOCK).any(axis=(1, 3))
    touched = touched_blocks(segments)
    assert (touched >= needed).all()
    assert touched.sum() <= needed.sum() + 2


def test_completions_are_joined_only_while_padding_is_small() -> None:
    def lengths(completions: list[int]) -> list[tuple[int, int]]:
        pieces = attention_pieces.build_pieces(shared_prompt(0, 100, completions), None, CPU).pieces
        return [(piece.segments, piece.rows) for piece in pieces if piece.mask_RK is not None]

    assert lengths([400, 390, 380, 370]) == [(4, 400)]
    assert lengths([100, 2000, 110, 1900]) == [(2, 2000), (2, 110)]
    assert lengths([3, 20, 9]) == [(3, 20)]


def test_masks_and_indices_are_built_once_for_all_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    build = attention_pieces.build_pieces
    monkeypatch.setattr(attention_pieces, "build_pieces", lambda *given: calls.append(given[1]) or build(*given))
    model_zoo.gap(model_zoo.make("Gemma 3", tmp_path / "model"))
    assert sorted(calls, key=str) == [model_zoo.WINDOW, None]  # three layers of two kinds


def test_the_gradient_of_a_row_copied_often_is_not_rounded_at_each_sum() -> None:
    row = torch.ones(1, 1, 1, 1, dtype=torch.bfloat16, requires_grad=True)
    gathered(row, torch.zeros(1000, dtype=torch.int64)).sum().backward()
    assert row.grad is not None
    assert row.grad.item() == 1000  # a sum in bf16 stays at 256


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_copies_and_their_gradients_equal_plain_indexing(dtype: torch.dtype) -> None:
    """Completions of several lengths, two calls with the same context; float64 tells a wrong row from rounding."""
    segments = [*shared_prompt(0, 5, [3, 120, 118, 2]), *shared_prompt(248, 7, [6]), *shared_prompt(261, 4, [9, 9])]
    plan = attention_pieces.build_pieces(segments, None, CPU)
    assert any(len(blocks) == 2 for blocks in plan.keys.shared.values())
    total = sum(segment.length for segment in segments)
    for copies in (plan.keys, plan.queries):
        rows = torch.randn(total, 2, 3, dtype=dtype, requires_grad=True)
        weights = torch.randn(len(copies.rows_C), 2, 3, dtype=dtype)
        weights[copies.fillers] = 0
        made = copied(rows, copies)
        assert torch.equal(made, rows[copies.rows_C])
        (found,) = torch.autograd.grad((made * weights).sum(), rows)
        wanted = torch.zeros(total, 2, 3, dtype=torch.float64).index_add_(0, copies.rows_C, weights.double())
        torch.testing.assert_close(found.double(), wanted, rtol=2**-8 if dtype == torch.bfloat16 else 1e-12, atol=0)
        assert torch.equal(own_rows(made, copies), rows)
    (found,) = torch.autograd.grad((own_rows(made, plan.queries) * rows.detach()).sum(), made)
    wanted = torch.zeros_like(made).index_copy_(0, plan.queries.own_T, rows.detach())
    assert torch.equal(found, wanted)


def test_rows_do_not_see_other_sequences(policy: Any) -> None:
    packed = model_zoo.sequences()
    alone = pack_tokens(packed[3:4], CPU)
    together = pack_tokens(packed, CPU)
    with policy.inference():
        found = policy.hidden_states(together)[together.source_N[together.sequence_N == 3]]
        torch.testing.assert_close(found, policy.hidden_states(alone)[alone.source_N])


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [(), ("learner.gradient_checkpointing=true",)])
def test_compiled_blocks_are_compiled_for_the_first_layouts_only(overrides: tuple[str, ...], tmp_path: Path) -> None:
    folder = model_zoo.make("Llama", tmp_path / "model")
    environment = {name: value for name, value in os.environ.items() if name != "TORCHDYNAMO_DISABLE"}
    command = [sys.executable, "-m", "tests.learner.recompiles", str(folder), *overrides]
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    graphs = [int(line) for line in done.stdout.splitlines() if line.isdigit()]  # beside what the learner prints
    assert len(graphs) == recompiles.MICRO_BATCHES
    assert graphs[0] > 0
    assert graphs[-1] == graphs[1]
    assert "recompile_limit" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor compiles for a CPU with g++")
def test_compiled_flex_attention_is_exact_and_compiled_once() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TORCHDYNAMO_DISABLE"}
    command = [sys.executable, "-m", "tests.learner.flex_compiled"]
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1"] * 4
