"""Log-probability and entropy of given tokens from hidden states, without the logits of a whole batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


class OutputHead(NamedTuple):
    """Logits of a hidden state h: c tanh(s W h / c) with scale s and soft cap c, or s W h if c is None."""

    weight_VH: torch.Tensor
    scale: float = 1.0
    softcap: float | None = None


class _Logits(NamedTuple):
    """How products with the head become the logits that are sampled from: scaled, soft-capped, over temperature."""

    scale: float
    softcap: float | None
    temperature: float

    def apply_(self, products_CV: torch.Tensor) -> torch.Tensor:
        """Turn products into logits in place."""
        if self.scale != 1.0:
            products_CV.mul_(self.scale)
        if self.softcap is not None:
            products_CV.div_(self.softcap).tanh_().mul_(self.softcap)
        return products_CV if self.temperature == 1.0 else products_CV.div_(self.temperature)

    def slope(self, logits_CV: torch.Tensor) -> torch.Tensor | float | None:
        """Return the derivative of the logits, times temperature, by the products; None where it is 1.

        With z = c tanh(s x / c), dz/dx = s (1 - (z / c)^2).
        """
        if self.softcap is None:
            return None if self.scale == 1.0 else self.scale
        return (logits_CV * (self.temperature / self.softcap)).square_().neg_().add_(1.0).mul_(self.scale)


class TokenScores(NamedTuple):
    """Log-probability and entropy of N tokens in nats, at least float32; bool: whether a token is the most likely."""

    logprobs_N: torch.Tensor
    entropy_N: torch.Tensor
    greedy_N: torch.Tensor


def token_logprobs(
    hidden_NH: torch.Tensor, head: OutputHead, targets_N: torch.Tensor, temperature: float, chunk: int
) -> TokenScores:
    """Compute the scores of each token at `temperature`.

    _Logits exist for `chunk` positions at a time: the hand-written backward pass computes them again. The first two
    results are differentiable. Under autocast the two matrix products run in its precision, everything else in float32.
    """
    head_VH = head.weight_VH
    if torch.is_autocast_enabled(hidden_NH.device.type):
        dtype = torch.get_autocast_dtype(hidden_NH.device.type)
        hidden_NH, head_VH = hidden_NH.to(dtype), head_VH.to(dtype)
    with torch.autocast(hidden_NH.device.type, enabled=False):
        return TokenScores(
            *_TokenLogprobs.apply(hidden_NH, head_VH, targets_N, _Logits(head.scale, head.softcap, temperature), chunk)
        )


class _TokenLogprobs(torch.autograd.Function):
    """Log-probability and entropy with a backward pass that recomputes the logits.

    Let z be the logits over temperature, L their logsumexp, p = exp(z - L), H = L - sum p z, and y the target:

    d logprob / dz_j = [j = y] - p_j and d H / dz_j = -p_j (z_j - L + H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: torch.Tensor,
        head_VH: torch.Tensor,
        targets_N: torch.Tensor,
        shape: _Logits,
        chunk: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        dtype = torch.promote_types(hidden_NH.dtype, torch.float32)
        logprobs_N, entropy_N = hidden_NH.new_empty((2, len(hidden_NH)), dtype=dtype)
        greedy_N = torch.empty_like(targets_N, dtype=torch.bool)
        for rows, logits_CV, spare_CV in _chunks(hidden_NH, head_VH, shape, chunk):
            greedy_N[rows] = logits_CV.argmax(dim=-1) == targets_N[rows]
            all_logprobs_CV = torch.log_softmax(logits_CV, dim=-1, out=spare_CV)
            logprobs_N[rows] = all_logprobs_CV.gather(1, targets_N[rows, None])[:, 0]
            probabilities_CV = torch.exp(all_logprobs_CV, out=logits_CV)
            entropy_N[rows] = -probabilities_CV.mul_(all_logprobs_CV).sum(dim=-1)
        ctx.save_for_backward(hidden_NH, head_VH, targets_N, entropy_N)
        ctx.shape, ctx.chunk = shape, chunk
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(greedy_N)
        return logprobs_N, entropy_N, greedy_N

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        grad_logprobs_N, grad_entropy_N, _ = grads
        hidden_NH, head_VH, targets_N, entropy_N = ctx.saved_tensors
        for_hidden, for_head = ctx.needs_input_grad[:2]
        grad_hidden_NH = torch.empty_like(hidden_NH) if for_hidden else None
        grad_head_VH = torch.zeros_like(head_VH, dtype=entropy_N.dtype) if for_head else None
        for rows, logits_CV, spare_CV in _chunks(hidden_NH, head_VH, ctx.shape, ctx.chunk):
            slope_CV = ctx.shape.slope(logits_CV)
            if grad_entropy_N is not None:
                # -p (gH (log p + H) + gy), the [j = y] term follows
                all_logprobs_CV = torch.log_softmax(logits_CV, dim=-1, out=spare_CV)
                grad_CV = torch.exp(all_logprobs_CV, out=logits_CV)
                all_logprobs_CV.add_(entropy_N[rows, None]).mul_(grad_entropy_N[rows, None])
                if grad_logprobs_N is not None:
                    all_logprobs_CV.add_(grad_logprobs_N[rows, None])
                grad_CV.mul_(all_logprobs_CV).neg_()
            else:
                grad_CV = torch.softmax(logits_CV, dim=-1, out=spare_CV)
                if grad_logprobs_N is not None:
                    grad_CV.mul_(-grad_logprobs_N[rows, None])
            if grad_logprobs_N is not None:
                grad_CV.scatter_add_(1, targets_N[rows, None], grad_logprobs_N[rows, None])
            if ctx.shape.temperature != 1.0:
                grad_CV.div_(ctx.shape.temperature)
            if slope_CV is not None:
                grad_CV.mul_(slope_CV)
            grad_CV = grad_CV.to(hidden_NH.dtype)
            if grad_hidden_NH is not None:
                torch.mm(grad_CV, head_VH, out=grad_hidden_NH[rows])
            if grad_head_VH is not None:
                _add_product(grad_head_VH, grad_CV.T, hidden_NH[rows])
        return grad_hidden_NH, None if grad_head_VH is None else grad_head_VH.to(head_VH.dtype), None, None, None


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add a product in place; one in 16 bits is rounded before it is added to a float32 sum."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)  # without a copy of the head's size for the product
    else:
        total += left @ right


def _chunks(
    hidden_NH: torch.Tensor, head_VH: torch.Tensor, shape: _Logits, chunk: int
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yield rows, their logits over temperature, at least float32, and room of the same size.

    The caller may overwrite both. All chunks use the same memory: on a CPU new memory of this size costs a page fault
    per 4 KiB, which took a fifth as long as the products.
    """
    dtype = torch.promote_types(hidden_NH.dtype, torch.float32)
    vocab = len(head_VH)
    memory_2CV = hidden_NH.new_empty((2, min(chunk, len(hidden_NH)), vocab), dtype=dtype)
    for start in range(0, len(hidden_NH), chunk):
        rows = slice(start, min(start + chunk, len(hidden_NH)))
        logits_CV, spare_CV = memory_2CV[:, : rows.stop - start]
        if dtype == hidden_NH.dtype:
            torch.mm(hidden_NH[rows], head_VH.T, out=logits_CV)
        else:
            logits_CV.copy_(torch.nn.functional.linear(hidden_NH[rows], head_VH))
        yield rows, shape.apply_(logits_CV), spare_CV
