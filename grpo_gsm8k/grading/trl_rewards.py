"""Reward functions with the signature of TRL's GRPOTrainer, used in a `policy_gradient.rewards_file`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.grading.rewards import RewardInput


@dataclass(frozen=True)
class TrlReward:
    """A part that calls a function as TRL does; made by `trl_reward`."""

    function: Callable[..., Any]
    chat: bool
    columns: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, items: Sequence[RewardInput]) -> list[Any]:
        """Return the rewards of a prompt's completions. TRL skips None in the sum, so it becomes 0."""
        arguments = self._arguments(items)
        parameters = inspect.signature(self.function).parameters.values()
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        names = {p.name for p in parameters}
        found = self.function(**{name: v for name, v in arguments.items() if takes_all or name in names})
        if inspect.iscoroutine(found):
            found = asyncio.run(found)
        if hasattr(found, "tolist"):
            found = found.tolist()
        if not isinstance(found, list | tuple):
            raise TypeError(f"returned a {type(found).__name__}, but TRL's reward functions return a list of numbers")
        return [0.0 if value is None else value for value in found]

    def _arguments(self, items: Sequence[RewardInput]) -> dict[str, list[Any]]:
        """Return all arguments by name, each a list with one entry per completion."""
        columns: dict[str, list[Any]] = {
            "question": [item.question for item in items],
            "answer": [item.problem.answer for item in items],
            "gold": [item.gold for item in items],
            **{name: [item.extra[name] for item in items] for name in items[0].extra},
        }
        if unknown := [name for name in self.columns.values() if name not in columns]:
            raise KeyError(f"no column {unknown[0]!r}; there are {', '.join(columns)}")
        columns |= {name: columns[source] for name, source in self.columns.items()}
        ids = [list(item.token_ids) for item in items]
        return {
            **columns,
            "prompts": [[{"role": "user", "content": i.question}] if self.chat else i.prompt for i in items],
            "completions": [[{"role": "assistant", "content": i.text}] if self.chat else i.text for i in items],
            "completion_ids": ids,
            "completions_ids": ids,  # the name in TRL's documentation
        }


def trl_reward(
    function: Callable[..., Any], *, chat: bool = False, columns: Mapping[str, str] | None = None
) -> TrlReward:
    """Adapt a function `f(prompts, completions, completion_ids, **columns) -> list[float]`.

    `chat`: prompts and completions are lists of messages, as for TRL's conversational data, instead of texts. The
    columns are `question`, `answer`, `gold` and the other columns of the data; `columns={"answer": "gold"}` passes the
    column `gold` as the argument `answer`. An argument that the function does not take is left out.
    """
    return TrlReward(function, chat, dict(columns or {}))
