"""Which ways to divide several GPUs between engines and ranks of the learner fit, and how fast they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from grpo_gsm8k.config import LearnerConfig
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.planning.estimated_rates import on_gpus
from grpo_gsm8k.planning.simulate import simulate
from grpo_gsm8k.preflight import fit
from grpo_gsm8k.preflight.devices import GIB, by_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.preflight.devices import Device
    from grpo_gsm8k.preflight.parameters import ModelShape

CARDS = tuple(by_name(name) for name in ("rtx4090", "rtx6000-ada", "h100-80gb"))  # 24, 48 and 80 GB
COUNTS = (2, 4, 8)
RANKS = (1, 2, 4)
UPDATES = 6


@dataclass(frozen=True, slots=True)
class Division:
    """So many GPUs of one machine, of which `ranks` learn and the others generate."""

    cards: int
    ranks: int
    shard: str

    @property
    def overrides(self) -> list[str]:
        """The keys that set it."""
        engines = self.cards - self.ranks
        devices = ",".join(f"cuda:{n}" for n in range(engines, self.cards))
        several = [f"learner.devices=[{devices}]", "learner.ranks=1"] if self.ranks > 1 else ["learner.devices=null"]
        learner = [f"learner.device=cuda:{engines}", *several, f"learner.shard={self.shard}"]
        return ["actor.device=cuda:0", f"actor.replicas={engines}", *learner]


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """The memory that one rank needs, in bytes, and for each card the updates per hour, None where it does not fit."""

    division: Division
    rank_bytes: float
    updates_per_hour: tuple[float | None, ...]


def memory_rows(shape: ModelShape, config: Config, cards: Sequence[Device] = CARDS) -> list[MemoryRow]:
    """Return all divisions of 2, 4 and 8 cards whose engines are at least as many as the ranks."""
    return [_row(shape, sized, division, cards) for division, sized in _divisions(config)]


def _divisions(config: Config) -> Iterator[tuple[Division, Config]]:
    """Yield those that this version accepts: what a rank count or a sharding excludes is left out."""
    shards = get_args(LearnerConfig.model_fields["shard"].annotation)
    for cards in COUNTS:
        for ranks in (ranks for ranks in RANKS if ranks <= cards // 2):
            for shard in shards:
                division = Division(cards, ranks, shard)
                try:
                    yield division, fit.with_overrides(config, division.overrides)
                except UserError:
                    continue


def _row(shape: ModelShape, config: Config, division: Division, cards: Sequence[Device]) -> MemoryRow:
    speeds: list[float | None] = []
    for card in cards:
        room = card.memory_gib * GIB
        sides = fit.evaluate_fit(shape, config, room, room, shared=False)
        if sides.fits:
            state = simulate(config, on_gpus(shape, config, card, card, card.name), UPDATES)
            speeds.append(state.updates_per_hour)
        else:
            speeds.append(None)
    return MemoryRow(division, sides.learner_need, tuple(speeds))
