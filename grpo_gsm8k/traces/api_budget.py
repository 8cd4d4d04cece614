"""What a run may still cost. Money is exact (`Decimal`), and every request is charged before it is sent.

A request is charged with the most it can cost; its usage, once known, replaces that. A request whose answer never came
(a lost connection, a kill -9) may have been billed, so it stays charged: `sent.jsonl` names every request before it
is sent, and a record says how many of them its cost accounts for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.traces.trace_records import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grpo_gsm8k.config import TracesConfig
    from grpo_gsm8k.traces.trace_records import RawRecord

_MILLION = 1_000_000
_GRID = Decimal("1e-12")  # dollars; with it, the cost of a request has few enough digits for a JSON number
# A chat template adds markers, and some a system text of their own. No tokenizer makes more tokens than bytes.
_TEMPLATE_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Charge:
    """Tokens (prompt and completion) and US dollars."""

    tokens: int = 0
    usd: Decimal = Decimal(0)

    def __add__(self, other: Charge) -> Charge:
        return Charge(self.tokens + other.tokens, self.usd + other.usd)

    def __sub__(self, other: Charge) -> Charge:
        return Charge(self.tokens - other.tokens, self.usd - other.usd)


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens."""

    prompt: Decimal
    completion: Decimal

    def charge(self, usage: Usage) -> Charge:
        """The exact cost of one answer."""
        usd = usage.prompt_tokens * self.prompt + usage.completion_tokens * self.completion
        return Charge(usage.prompt_tokens + usage.completion_tokens, (usd / _MILLION).quantize(_GRID, ROUND_UP))

    def most(self, messages: Iterable[str], max_tokens: int) -> Charge:
        """More than a request with these texts can cost."""
        prompt = _TEMPLATE_TOKENS + sum(len(text.encode()) for text in messages)
        return self.charge(Usage(prompt, max_tokens))


class ApiBudget:
    """Charged so far, what requests under way may still cost, and the limits on the sum of both."""

    def __init__(self, max_usd: Decimal | None, max_tokens: int | None, charged: Charge) -> None:
        self._max_usd = max_usd
        self._max_tokens = max_tokens
        self.charged = charged
        self.reserved = Charge()

    def fits(self, most: Charge) -> bool:
        """Whether a request may start that costs at most so much."""
        total = self.charged + self.reserved + most
        return (self._max_usd is None or total.usd <= self._max_usd) and (
            self._max_tokens is None or total.tokens <= self._max_tokens
        )

    def reserve(self, most: Charge) -> None:
        """A request starts. The caller has asked `fits`."""
        self.reserved += most

    def settle(self, most: Charge, real: Charge) -> None:
        """A request ended: what was reserved for it becomes what it cost."""
        self.reserved -= most
        self.charged += real

    def limit(self) -> str:
        """The keys of the limits and what is charged against them, for a message."""
        keys = []
        if self._max_usd is not None:
            keys.append(f"traces.max_cost_usd={self._max_usd} (charged: {self.charged.usd:.6f})")
        if self._max_tokens is not None:
            keys.append(f"traces.max_total_tokens={self._max_tokens} (charged: {self.charged.tokens})")
        return " and ".join(keys)


def prices_of(config: TracesConfig) -> Prices:
    """The configured prices, as they are written there."""
    return Prices(Decimal(str(config.usd_per_million_input)), Decimal(str(config.usd_per_million_output)))


def open_budget(config: TracesConfig, charged: Charge) -> ApiBudget:
    """The configured limits, and what earlier runs used of them."""
    max_usd = None if config.max_cost_usd is None else Decimal(str(config.max_cost_usd))
    return ApiBudget(max_usd, config.max_total_tokens, charged)


def recorded(records: Iterable[RawRecord]) -> Charge:
    """What the records cost, errors included."""
    total = Charge()
    for record in records:
        usage = record.usage
        tokens = usage.prompt_tokens + usage.completion_tokens if usage else 0
        total += Charge(tokens, record.cost_usd)
    return total


def unanswered(records: Iterable[RawRecord], sent: Iterable[dict[str, Any]]) -> Charge:
    """The most that all requests may have cost whose cost no record accounts for."""
    settled: Counter[str] = Counter()
    for record in records:
        settled[record.id] += record.settled_requests
    total = Charge()
    for line in sent:
        if settled[line["id"]] > 0:
            settled[line["id"]] -= 1
        else:
            total += Charge(line["most_tokens"], Decimal(line["most_usd"]))
    return total


def sent_line(sample_id: str, most: Charge) -> dict[str, Any]:
    """The line of `sent.jsonl` for a request that is about to be sent."""
    return {"id": sample_id, "most_tokens": most.tokens, "most_usd": str(most.usd)}
