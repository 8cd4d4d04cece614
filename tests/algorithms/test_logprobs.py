"""Chunked log-probabilities against log_softmax over all logits at once."""

import pytest
import torch

from grpo_gsm8k.algorithms.logprobs import OutputHead, token_logprobs


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.25, None), (1.0, 2.0), (0.5, 1.5)])
def test_values_entropy_and_gradients(chunk: int, temperature: float, scale: float, softcap: float | None) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    head = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 11, (7,))
    weights = torch.randn(7, dtype=torch.float64)
    other = torch.randn(7, dtype=torch.float64)
    sums = {
        "logprobs": lambda logprobs, entropy: (weights * logprobs).sum(),
        "entropy": lambda logprobs, entropy: (other * entropy).sum(),
        "both": lambda logprobs, entropy: (weights * logprobs + other * entropy).sum(),
    }

    logits = scale * (hidden @ head.T)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    full = torch.log_softmax(logits / temperature, dim=-1)
    expected, expected_entropy = full[torch.arange(7), targets], -(full.exp() * full).sum(-1)
    for total in sums.values():
        logprobs, entropy, greedy = token_logprobs(
            hidden, OutputHead(head, scale, softcap), targets, temperature, chunk
        )
        torch.testing.assert_close(logprobs, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(entropy, expected_entropy, rtol=1e-12, atol=1e-12)
        assert greedy.tolist() == (full.argmax(-1) == targets).tolist()
        gradients = torch.autograd.grad(total(logprobs, entropy), [hidden, head])
        wanted = torch.autograd.grad(total(expected, expected_entropy), [hidden, head], retain_graph=True)
        for got, want in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, head = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3)
    logprobs, *_ = token_logprobs(hidden, OutputHead(head), torch.zeros(4, dtype=torch.long), 1.0, 2)
    logprobs.sum().backward()
    assert hidden.grad is not None
    assert head.grad is None


@pytest.mark.parametrize("chunk", [2, 100])
def test_autocast_is_near_float32(chunk: int) -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(6, 8, requires_grad=True), torch.randn(9, 8, requires_grad=True)
    targets = torch.randint(0, 9, (6,))
    exact, *_ = token_logprobs(hidden, OutputHead(head), targets, 1.0, chunk)
    wanted = torch.autograd.grad(exact.sum(), [hidden, head])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, *_ = token_logprobs(hidden, OutputHead(head), targets, 1.0, chunk)
    assert rough.dtype == torch.float32
    got = torch.autograd.grad(rough.sum(), [hidden, head])
    assert 0 < (rough - exact).abs().max() < 0.05
    for rough_grad, exact_grad in zip(got, wanted, strict=True):
        assert rough_grad.dtype == torch.float32
        assert (rough_grad - exact_grad).norm() < 0.02 * exact_grad.norm()


def test_no_logits_of_the_whole_batch_exist() -> None:
    """Saved for backward: nothing as large as [N, V]."""
    sizes: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    hidden, head = torch.randn(64, 4, requires_grad=True), torch.randn(100, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        token_logprobs(hidden, OutputHead(head), torch.zeros(64, dtype=torch.long), 1.0, chunk=8)
    assert max(sizes, default=0) < 64 * 100
