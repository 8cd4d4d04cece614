"""The value function of PPO: a linear head on the policy's trunk, or on a separate trunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from grpo_gsm8k.learner.model import load_policy
from grpo_gsm8k.learner.shards import local, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.batching import PackedTokens
    from grpo_gsm8k.learner.model import Policy

TRUNK, HEAD = "trunk.", "head."


class Critic:
    """Predicts the return from the state before each completion token; starts at 0 everywhere."""

    def __init__(self, trunk: Policy | None, hidden_size: int, device: torch.device) -> None:
        """`trunk` is that of a separate critic; None: use the policy's hidden states, with gradients into them."""
        self.trunk = trunk
        self.head = torch.nn.Linear(hidden_size, 1, device=device, dtype=torch.float32)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def values(self, policy_hidden_NH: torch.Tensor, tokens: PackedTokens) -> torch.Tensor:
        """Compute the value before each predicted token, float32 [N]."""
        hidden_NH = policy_hidden_NH
        if self.trunk is not None:
            with self.trunk.autocast():
                hidden_NH = self.trunk.hidden_states(tokens)[tokens.source_N]
        values_N: torch.Tensor = self.head(hidden_NH.to(self.head.weight.dtype))[:, 0]
        return values_N

    def named_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Return the critic's own parameters: neither the policy's trunk nor an unused output head is among them."""
        own = [] if self.trunk is None else self.trunk.trunk_parameters()
        return [(TRUNK + name, p) for name, p in own] + [(HEAD + n, p) for n, p in self.head.named_parameters()]

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Load the tensors of a checkpoint, named as in `named_parameters`."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                local(parameter).copy_(rows_of(parameter, tensors[name]))

    def saved_tensors(self) -> dict[str, torch.Tensor]:
        """Return its own parameters: the live ones, or copies in host memory of a divided trunk."""
        return {name: t.to("cpu", copy=True) if self.is_divided else t for name, t in self.whole_tensors()}

    def whole_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield its own parameters; those of a divided trunk are gathered one after the other."""
        if self.trunk is None or self.trunk.shards is None:
            yield from ((name, p.detach()) for name, p in self.named_parameters())
        else:
            yield from self.trunk.shards.whole(self.named_parameters())

    @property
    def is_divided(self) -> bool:
        """Whether its trunk is divided among the ranks of the learner."""
        return self.trunk is not None and self.trunk.shards is not None


def build_critic(config: Config, policy: Policy, folder: Path) -> Critic | None:
    """Create the configured critic; `folder` holds the model of a separate one."""
    kind = config.policy_gradient.critic.kind
    if kind == "none":
        return None
    trunk = load_policy(folder, config.learner) if kind == "separate" else None
    return Critic(trunk, (trunk or policy).hidden_size, policy.device)
