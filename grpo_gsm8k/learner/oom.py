"""Recovery from running out of memory: free what the step took, halve the token budget, and repeat the step."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, TypeVar

import torch

from grpo_gsm8k.errors import MemoryLimitError
from grpo_gsm8k.learner.ranks import ALONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from grpo_gsm8k.learner.batching import TokenSequence
    from grpo_gsm8k.learner.ranks import Ranks

Result = TypeVar("Result")
# torch.OutOfMemoryError is a RuntimeError. The CPU allocator raises a plain one with the second text, and libraries
# that allocate on the GPU by themselves raise the others: cuBLAS has no room for its handle or workspace, the driver
# none for a kernel's code or stack.
_TEXTS = (
    "out of memory",
    "DefaultCPUAllocator",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "cudaErrorMemoryAllocation",
)


class TokenBudget:
    """Tokens per micro-batch: the configured number, or what is left of it after running out of memory."""

    def __init__(self, tokens: int, on_halved: Callable[[int, str], None] | None = None) -> None:
        """`on_halved` is called with the new number of tokens and the allocator's message."""
        self.tokens = tokens
        self.halvings = 0
        self._on_halved = on_halved

    def halve(self, longest: int, reason: str) -> None:
        """Halve the budget, but keep room for one sequence of `longest` tokens.

        Raises MemoryLimitError if the budget is not larger than that.
        """
        if self.tokens <= longest:
            raise MemoryLimitError(
                f"out of memory with a single sequence of {longest} tokens in a micro-batch ({reason}): set "
                "learner.gradient_checkpointing=true, learner.optimizer=adamw_8bit or learner=lora, or lower "
                "learner.logprob_chunk; command=doctor lists what fits"
            )
        self.tokens = max(self.tokens // 2, longest)
        self.halvings += 1
        if self._on_halved is not None:
            self._on_halved(self.tokens, reason)

    @property
    def metrics(self) -> dict[str, float]:
        """Number of halvings by metric name."""
        return {"learner/oom_halvings": float(self.halvings)}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator of torch raised this error."""
    return any(text in str(error) for text in _TEXTS)


def retry_on_oom(
    budget: TokenBudget,
    parameters: Iterable[torch.nn.Parameter],
    sequences: Sequence[TokenSequence],
    attempt: Callable[[int], Result],
    ranks: Ranks = ALONE,
) -> Result:
    """Return `attempt(tokens)`: the passes of one optimizer step with micro-batches of that many tokens.

    After running out of memory it is called again with half the tokens, cleared gradients and the random state from
    before, so its result is that of a run with this budget from the start. All `ranks` repeat it if one of them has to.
    Raises MemoryLimitError at the smallest budget, and at once for ranks in lockstep.
    """
    parameters = list(parameters)
    while True:
        random_state = _random_state()
        results, reason = [], ""
        try:
            results.append(attempt(budget.tokens))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                if ranks.part.lockstep:
                    raise ranks.blame(error) from error
                raise
            if ranks.part.lockstep:  # the others wait within a pass, so they cannot repeat it
                raise MemoryLimitError(
                    f"out of memory with learner.token_budget={budget.tokens} ({str(error).splitlines()[0]}), and "
                    "with learner.shard=full a step is not repeated: set learner.token_budget to half of it"
                ) from None
            reason = str(error).splitlines()[0]
        reason = next(filter(None, ranks.gather("out of memory?", reason)), "")
        if not reason:
            return results[0]
        results.clear()
        # Free memory only after the except block: until then the traceback keeps the failed frames' tensors alive.
        for p in parameters:
            p.grad = None
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        budget.halve(max(len(s.prompt_ids) + len(s.completion_ids) for s in sequences), reason)
        _restore(random_state)


def _random_state() -> tuple[torch.Tensor, torch.Tensor | None]:
    """Random state of the CPU and of the learner's GPU: the current device, if the learner has one."""
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None


def _restore(state: tuple[torch.Tensor, torch.Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
