"""Out of memory in a step: give back what it took, halve the token budget of a micro-batch, and do the step again."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, TypeVar

import torch

from grpo_gsm8k.errors import MemoryLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from grpo_gsm8k.learner.batching import Sample

Result = TypeVar("Result")
# torch.OutOfMemoryError is a RuntimeError; the CPU's allocator raises a plain one, with the second text.
_TEXTS = ("out of memory", "DefaultCPUAllocator")


class TokenBudget:
    """Tokens of one micro-batch: as configured, or what is left of that after running out of memory."""

    def __init__(self, tokens: int, on_halved: Callable[[int, str], None] | None = None) -> None:
        """`on_halved` is told the new number of tokens and the allocator's words."""
        self.tokens = tokens
        self.halvings = 0
        self._on_halved = on_halved

    def halve(self, longest: int, reason: str) -> None:
        """Half of it, but room for one sequence of `longest` tokens. Raises MemoryLimitError when it has no more."""
        if self.tokens <= longest:
            raise MemoryLimitError(
                f"out of memory with a single sequence of {longest} tokens in a micro-batch ({reason}): set "
                "learner.gradient_checkpointing=true, learner.optimizer=adamw_8bit or learner=lora, or lower "
                "learner.logprob_chunk; command=doctor says what fits"
            )
        self.tokens = max(self.tokens // 2, longest)
        self.halvings += 1
        if self._on_halved is not None:
            self._on_halved(self.tokens, reason)

    @property
    def metrics(self) -> dict[str, float]:
        """Under its metric name."""
        return {"learner/oom_halvings": float(self.halvings)}


def with_halving(
    budget: TokenBudget,
    parameters: Iterable[torch.nn.Parameter],
    samples: Sequence[Sample],
    attempt: Callable[[int], Result],
) -> Result:
    """`attempt(tokens)`: the passes of one optimizer step with micro-batches of so many tokens.

    After running out of memory it is called again, with half the tokens, no gradients and the random state that it
    began with, so its result is that of a run that had chosen this budget. Raises MemoryLimitError when halving ends.
    """
    parameters = list(parameters)
    while True:
        random_state = _random_state()
        try:
            return attempt(budget.tokens)
        except RuntimeError as error:
            if not any(text in str(error) for text in _TEXTS):
                raise
            reason = str(error).splitlines()[0]
        # Only here, where the exception is gone, are the tensors of the frames that it came through.
        for p in parameters:
            p.grad = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        budget.halve(max(len(s.prompt_ids) + len(s.completion_ids) for s in samples), reason)
        _restore(random_state)


def _random_state() -> tuple[torch.Tensor, torch.Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def _restore(state: tuple[torch.Tensor, torch.Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
