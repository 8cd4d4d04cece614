"""What is measured: models, kinds of training, and sizes of an update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.update_timing import BatchSize

Kind = Literal["full", "lora"]


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table: a model by its name in `random_models.SHAPES`, and how it is trained."""

    model: str
    kind: Kind
    size: BatchSize
    token_budget: int

    @property
    def name(self) -> str:
        """Key of the case in a baseline."""
        return f"{self.model} {self.kind}"

    @property
    def sequence(self) -> int:
        """Mean tokens of a sequence: prompt and completion."""
        return self.size.prompt_tokens + self.size.completion_tokens

    @property
    def overrides(self) -> tuple[str, ...]:
        """Arguments of the configuration."""
        adapter = ("learner=lora",) if self.kind == "lora" else ()
        return (*adapter, f"learner.token_budget={self.token_budget}")


# 64 prompts with 8 completions each: the update of the default preset, with answers of GSM8K's length.
UPDATE = BatchSize(prompts=64, group=8, prompt_tokens=160, completion_tokens=320)
ON_GPU = tuple(
    Case(model, kind, UPDATE, 8192)
    for model in ("qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-3b")
    for kind in ("full", "lora")
)
# Only to see that the program runs where there is no GPU.
SMALL = BatchSize(prompts=8, group=4, prompt_tokens=16, completion_tokens=32)
ON_CPU = (Case("tiny", "full", SMALL, 512), Case("tiny", "lora", SMALL, 512))
