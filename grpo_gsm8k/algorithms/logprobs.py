"""Log-probability and entropy of given tokens from hidden states, without the logits of a whole batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch


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

    def logits(self, hidden_CH: torch.Tensor, head_VH: torch.Tensor, room_CV: torch.Tensor) -> torch.Tensor:
        """Return the logits of a chunk, which are the first rows of `room_CV`."""
        logits_CV = room_CV[: len(hidden_CH)]
        if room_CV.dtype == hidden_CH.dtype:
            torch.mm(hidden_CH, head_VH.T, out=logits_CV)
        else:
            logits_CV.copy_(torch.nn.functional.linear(hidden_CH, head_VH))
        if self.scale != 1.0:
            logits_CV.mul_(self.scale)
        if self.softcap is not None:
            logits_CV.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits_CV if self.temperature == 1.0 else logits_CV.div_(self.temperature)

    def slope(self, logits_CV: torch.Tensor) -> torch.Tensor | None:
        """Return the soft cap's derivative at these logits; None without one.

        With z = c tanh(y / c), dz/dy = 1 - (z / c)^2.
        """
        if self.softcap is None:
            return None
        return (logits_CV * (self.temperature / self.softcap)).square_().neg_().add_(1.0)


class TokenScores(NamedTuple):
    """Log-probability and entropy of N tokens in nats, at least float32; bool: whether a token is the most likely."""

    logprobs_N: torch.Tensor
    entropy_N: torch.Tensor
    greedy_N: torch.Tensor


def token_logprobs(
    hidden_NH: torch.Tensor, head: OutputHead, targets_N: torch.Tensor, temperature: float, chunk: int
) -> TokenScores:
    """Compute the scores of each token at `temperature`.

    Logits exist for `chunk` positions at a time: the hand-written backward pass computes them again, but for one chunk,
    which is kept. So up to `chunk` tokens nothing is computed twice. The first two results are differentiable. Under
    autocast the two matrix products run in its precision, everything else in float32.
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
    """Log-probability and entropy with a backward pass that recomputes the logits of all chunks but one.

    Let z be the logits over temperature, L their logsumexp, p = exp(z - L), H = L - sum p z, and y the target:

    d logprob / dz_j = [j = y] - p_j and d H / dz_j = -p_j (z_j - L + H).

    The chunk that the forward pass ends with is kept: the backward pass begins with it, in the same memory.
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
        logits_room_CV, logprobs_room_CV = (_room(hidden_NH, head_VH, chunk) for _ in range(2))
        for rows in reversed(_chunks(len(hidden_NH), chunk)):
            logits_CV = shape.logits(hidden_NH[rows], head_VH, logits_room_CV)
            greedy_N[rows] = logits_CV.argmax(dim=-1) == targets_N[rows]
            all_logprobs_CV = torch.log_softmax(logits_CV, dim=-1, out=logprobs_room_CV[: len(logits_CV)])
            logprobs_N[rows] = all_logprobs_CV.gather(1, targets_N[rows, None])[:, 0]
            probabilities_CV = torch.exp(all_logprobs_CV, out=logits_CV)
            entropy_N[rows] = -probabilities_CV.mul_(all_logprobs_CV).sum(dim=-1)
        # The slope of a soft cap needs the logits themselves.
        kept = [logprobs_room_CV] if any(ctx.needs_input_grad) and shape.softcap is None else []
        ctx.save_for_backward(hidden_NH, head_VH, targets_N, entropy_N, *kept)
        ctx.shape, ctx.chunk = shape, chunk
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(greedy_N)
        return logprobs_N, entropy_N, greedy_N

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        grad_logprobs_N, grad_entropy_N, _ = grads
        hidden_NH, head_VH, targets_N, entropy_N, *kept = ctx.saved_tensors
        for_hidden, for_head = ctx.needs_input_grad[:2]
        grad_hidden_NH = torch.empty_like(hidden_NH) if for_hidden else None
        grad_head_VH = torch.zeros_like(head_VH, dtype=entropy_N.dtype) if for_head else None
        logits_room_CV = _room(hidden_NH, head_VH, ctx.chunk)
        logprobs_room_CV = kept[0] if kept else _room(hidden_NH, head_VH, ctx.chunk)
        for rows in _chunks(len(hidden_NH), ctx.chunk):
            all_logprobs_CV = logprobs_room_CV[: rows.stop - rows.start]
            room_CV, slope_CV = logits_room_CV[: len(all_logprobs_CV)], None
            if rows.start or not kept:
                logits_CV = ctx.shape.logits(hidden_NH[rows], head_VH, logits_room_CV)
                slope_CV = ctx.shape.slope(logits_CV)
                torch.log_softmax(logits_CV, dim=-1, out=all_logprobs_CV)
            grad_CV = torch.exp(all_logprobs_CV, out=room_CV)
            if grad_entropy_N is not None:
                # -p (gH (log p + H) + gy), the [j = y] term follows
                all_logprobs_CV.add_(entropy_N[rows, None]).mul_(grad_entropy_N[rows, None])
                if grad_logprobs_N is not None:
                    all_logprobs_CV.add_(grad_logprobs_N[rows, None])
                grad_CV.mul_(all_logprobs_CV).neg_()
            elif grad_logprobs_N is not None:
                grad_CV.mul_(-grad_logprobs_N[rows, None])
            if grad_logprobs_N is not None:
                grad_CV.scatter_add_(1, targets_N[rows, None], grad_logprobs_N[rows, None])
            if ctx.shape.scale != ctx.shape.temperature:
                grad_CV.mul_(ctx.shape.scale / ctx.shape.temperature)
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


def _chunks(positions: int, chunk: int) -> list[slice]:
    """Return the rows of each chunk; the first one is complete if any is."""
    return [slice(start, min(start + chunk, positions)) for start in range(0, positions, chunk)]


def _room(hidden_NH: torch.Tensor, head_VH: torch.Tensor, chunk: int) -> torch.Tensor:
    """Return memory for a chunk's logits, at least float32.

    All chunks use the same: on a CPU new memory of this size costs a page fault per 4 KiB, which took a fifth as long
    as the products.
    """
    dtype = torch.promote_types(hidden_NH.dtype, torch.float32)
    return hidden_NH.new_empty((min(chunk, len(hidden_NH)), len(head_VH)), dtype=dtype)
