"""Log-probabilities of given tokens from hidden states, without the logits of a whole batch."""

from __future__ import annotations

import torch
from torch.utils.checkpoint import checkpoint


def token_logprobs(
    hidden_NH: torch.Tensor, head_VH: torch.Tensor, targets_N: torch.Tensor, temperature: float, chunk: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and (detached) entropy in nats of each token at `temperature`, both [N], at least float32.

    Logits exist for `chunk` positions at a time, and are computed again in the backward pass.
    """
    parts = [
        checkpoint(_chunk_logprobs, hidden, head_VH, targets, temperature, use_reentrant=False)
        for hidden, targets in zip(hidden_NH.split(chunk), targets_N.split(chunk), strict=True)
    ]
    return torch.cat([logprobs for logprobs, _ in parts]), torch.cat([entropy for _, entropy in parts])


def _chunk_logprobs(
    hidden_CH: torch.Tensor, head_VH: torch.Tensor, targets_C: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    logits_CV = torch.nn.functional.linear(hidden_CH, head_VH)
    logits_CV = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32)) / temperature
    normaliser_C = logits_CV.logsumexp(dim=-1)
    logprobs_C = logits_CV.gather(1, targets_C[:, None])[:, 0] - normaliser_C
    with torch.no_grad():
        # H = log Z - sum p * logit
        entropy_C = normaliser_C - (torch.softmax(logits_CV, dim=-1) * logits_CV).sum(dim=-1)
    return logprobs_C, entropy_C
