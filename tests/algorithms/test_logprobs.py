"""Chunked log-probabilities against log_softmax over all logits at once."""

import pytest
import torch

from grpo_gsm8k.algorithms.logprobs import token_logprobs


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_values_entropy_and_gradients(chunk: int, temperature: float) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    head = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 11, (7,))
    weights = torch.randn(7, dtype=torch.float64)
    logprobs, entropy = token_logprobs(hidden, head, targets, temperature, chunk)
    gradients = torch.autograd.grad((weights * logprobs).sum(), [hidden, head])

    full = torch.log_softmax(hidden @ head.T / temperature, dim=-1)
    expected = full[torch.arange(7), targets]
    expected_gradients = torch.autograd.grad((weights * expected).sum(), [hidden, head])
    torch.testing.assert_close(logprobs, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(entropy, -(full.exp() * full).sum(-1), rtol=1e-12, atol=1e-12)
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    assert not entropy.requires_grad


def test_no_logits_of_the_whole_batch_exist() -> None:
    """Saved for backward: nothing as large as [N, V]."""
    sizes: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    hidden, head = torch.randn(64, 4, requires_grad=True), torch.randn(100, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        token_logprobs(hidden, head, torch.zeros(64, dtype=torch.long), 1.0, chunk=8)
    assert max(sizes, default=0) < 64 * 100
