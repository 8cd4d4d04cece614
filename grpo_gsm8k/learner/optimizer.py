"""AdamW on float32 master weights, with a guard against non-finite gradients."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from grpo_gsm8k.errors import CheckpointError, NonFiniteError
from grpo_gsm8k.faults import hook
from grpo_gsm8k.learner.dealing import owners
from grpo_gsm8k.learner.ranks import ALONE
from grpo_gsm8k.learner.shards import is_shard, like, local, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpo_gsm8k.config import LearnerConfig
    from grpo_gsm8k.learner.ranks import Ranks


CLIP_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


@dataclass(frozen=True, slots=True)
class StepStats:
    """Outcome of one optimizer step; `grad_norm` is before clipping."""

    grad_norm: float
    skipped: bool


class Optimizer:
    """AdamW (arXiv:1711.05101) with its state by parameter name, in 32 or 8 bits, on the device or the host.

    With `learner.shard=optimizer` each rank has the state of a part of the parameters (ZeRO stage 1, arXiv:1910.02054)
    and steps those; the others get the result. With `full` that holds for the parameters that are whole on every rank;
    of those that are divided, each rank steps its own rows.
    """

    def __init__(
        self,
        parameters: list[tuple[str, torch.nn.Parameter]],
        config: LearnerConfig,
        ranks: Ranks = ALONE,
        name: str = "policy",
    ) -> None:
        """Weight decay is not applied to vectors (norms, biases) and embeddings.

        With `offload_optimizer` the step runs in host memory, on copies of the parameters. `name` tells the optimizers
        of a session apart, `policy` or `critic`.
        """
        self._config = config
        self._named = parameters
        self._ranks = ranks
        self._name = name
        self._owners: list[int] = []
        self._own = parameters
        if config.shard != "none":
            self._owners = owners([0 if is_shard(p) else p.numel() for _, p in parameters], ranks.part.ranks)
            owned = zip(parameters, self._owners, strict=True)
            self._own = [(n, p) for (n, p), owner in owned if is_shard(p) or owner == ranks.part.rank]
        self._stepped = [(name, torch.nn.Parameter(local(p)) if is_shard(p) else p) for name, p in self._own]
        if config.offload_optimizer:
            self._stepped = [
                (name, torch.nn.Parameter(local(p).detach().to("cpu", copy=True))) for name, p in self._own
            ]
        decayed = [p for name, p in self._stepped if p.ndim > 1 and "embed" not in name]
        plain = [p for name, p in self._stepped if not (p.ndim > 1 and "embed" not in name)]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        device = "cpu" if config.offload_optimizer else parameters[0][1].device.type
        kind = _adamw(config, device)
        # A rank without parameters of its own keeps an empty group, because AdamW wants at least one.
        self._adamw = kind([g for g in groups if g["params"]] or groups[:1], lr=config.lr, betas=config.betas)
        self.nonfinite_in_a_row = 0

    def step(self, lr: float, finite_inputs: bool = True) -> StepStats:
        """Clip, apply and clear the gradients.

        A non-finite gradient, or one of inputs that were not finite (`finite_inputs` False), leaves parameters and
        optimizer state untouched; too many in a row raise NonFiniteError.
        """
        norm = self._clip([p for _, p in self._named])
        finite = finite_inputs and bool(torch.isfinite(norm))
        if finite:
            for group in self._adamw.param_groups:
                group["lr"] = lr
            hook("optimizer.before")
            self._apply()
            if self._owners:
                self._ranks.spread([p for _, p in self._named], self._owners)
            hook("optimizer.after")
        for _, p in self._named:
            p.grad = None
        self.nonfinite_in_a_row = 0 if finite else self.nonfinite_in_a_row + 1
        if self.nonfinite_in_a_row >= self._config.max_nonfinite_steps:
            raise NonFiniteError(
                f"{self.nonfinite_in_a_row} optimizer steps in a row had a non-finite gradient or log-probability: "
                "lower learner.lr, or look at the rollouts of the last steps"
            )
        return StepStats(float(norm), skipped=not finite)

    def _clip(self, parameters: list[torch.nn.Parameter]) -> torch.Tensor:
        """Clip the gradients, and return their norm before that, over the rows of all ranks."""
        limit = self._config.max_grad_norm
        if not any(map(is_shard, parameters)):
            return torch.nn.utils.clip_grad_norm_(parameters, limit)
        present = [(is_shard(p), local(p.grad)) for p in parameters if p.grad is not None]
        rows, whole = ([gradient for sharded, gradient in present if sharded is kind] for kind in (True, False))
        squares = self._ranks.gather("norm", float(torch.nn.utils.get_total_norm(rows)) ** 2)
        norm = torch.tensor(math.sqrt(math.fsum(squares) + float(torch.nn.utils.get_total_norm(whole)) ** 2))
        factor = float((limit / (norm + CLIP_EPSILON)).clamp(max=1.0))
        for gradient in (*rows, *whole):
            gradient.mul_(factor)
        return norm

    @torch.no_grad()
    def _apply(self) -> None:
        """Step the parameters themselves, or stand-ins: this rank's rows, or copies in host memory."""
        pairs = zip(self._own, self._stepped, strict=True)
        stand_ins = [(p, stepped) for (_, p), (_, stepped) in pairs if p is not stepped]
        for p, stepped in stand_ins:
            stepped.grad = None if p.grad is None else local(p.grad).to(stepped.device)
            if stepped.device == p.device:
                stepped.data = local(p)  # the rows may have moved
        self._adamw.step()
        for p, stepped in stand_ins:
            if stepped.device != p.device:
                local(p).copy_(stepped, non_blocking=True)
            stepped.grad = None

    @property
    def lends_state(self) -> bool:
        """Whether `state_tensors` returns the state itself, which the next step changes: 32 bits in host memory."""
        lends = self._config.optimizer == "adamw" and self._config.shard != "full"
        return lends and all(p.device.type == "cpu" for _, p in self._stepped)

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Return the state as flat tensors: `<parameter>/exp_avg`, `/exp_avg_sq`, `/step`; in 8 bits `/state1`, ...

        8-bit states are copied, because they share their quantization table, which safetensors refuses; states on a
        device are copied to the host, because the device may not have room for them twice. The first rank gets the
        state of all ranks.
        """
        if self._owners and self._ranks.part.rank == 0:
            self._ranks.announce({"state_of": self._name})  # the others call this method, too
        own, divided = {}, {}
        for (name, p), (_, stepped) in zip(self._own, self._stepped, strict=True):
            for key, value in self._adamw.state.get(stepped, {}).items():
                if not is_shard(p):
                    own[f"{name}/{key}"] = torch.as_tensor(value).detach().to("cpu", copy=not self.lends_state)
                elif key == "step":
                    divided[f"{name}/{key}"] = value.to("cpu", copy=True)
                else:
                    divided[f"{name}/{key}"] = self._ranks.whole(like(p, value.to(p.device)))
        states = self._ranks.collect(own) | divided if self._owners else own
        return {name: state.contiguous() for name, state in states.items()}

    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Load what `state_tensors` returned, or a rank's part; parameters never stepped have no state.

        Raises CheckpointError.
        """
        known = {name for name, _ in self._named}
        by_name: dict[str, dict[str, torch.Tensor]] = {}
        for path, value in tensors.items():
            name, _, key = path.rpartition("/")
            by_name.setdefault(name, {})[key] = value
        if not set(by_name) <= known:
            raise CheckpointError("the optimizer state belongs to other parameters: resume with the same learner.lora")
        eight_bit = self._config.optimizer == "adamw_8bit"
        for (name, p), (_, stepped) in zip(self._own, self._stepped, strict=True):
            state = by_name.get(name)
            if state is None:
                continue
            if ("state1" in state) != eight_bit:
                raise CheckpointError(
                    f"{name}: the optimizer's state is of another kind: resume with that learner.optimizer"
                )
            self._adamw.state[stepped] = {
                key: int(value) if eight_bit and key == "step" else self._placed(key, value, p, stepped)
                for key, value in state.items()
            }

    def _placed(
        self, key: str, value: torch.Tensor, parameter: torch.nn.Parameter, stepped: torch.nn.Parameter
    ) -> torch.Tensor:
        """Return an entry of the state, or this rank's rows of it, on its device.

        Torch's fused step counts steps on the device, the others on the host.
        """
        if key == "step":
            return value.to(stepped.device if self._adamw.defaults.get("fused") else "cpu")
        return rows_of(parameter, value).to(stepped.device, copy=is_shard(parameter))


def _adamw(config: LearnerConfig, device: str) -> Callable[..., torch.optim.Optimizer]:
    if config.optimizer == "adamw":
        # The fused step is one kernel; without it a GPU would copy all second moments for their roots. On CPUs it
        # rounds differently from what the recorded curves were made with.
        return functools.partial(torch.optim.AdamW, fused=device == "cuda")
    from bitsandbytes.optim.adamw import AdamW8bit  # takes seconds to import

    kind: Callable[..., torch.optim.Optimizer] = AdamW8bit
    return kind
