"""Budget for a teacher's API. Amounts are exact (`Decimal`), and every request is charged before it is sent.

A request is first charged its maximal cost, which is replaced by its actual usage when known. A request whose answer
never arrived (lost connection, kill -9) may have been billed, so it stays charged: `sent.jsonl` lists every request
before it is sent, and `settled_requests` of a record counts those that its cost includes.
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
_GRID = Decimal("1e-12")  # US dollars; rounded up to this, a request's cost has at most 15 digits, exact in JSON
_TEMPLATE_TOKENS = 128  # for the chat template's markers and, in some templates, its own system text


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
        """Return the exact cost of one answer."""
        usd = usage.prompt_tokens * self.prompt + usage.completion_tokens * self.completion
        return Charge(usage.prompt_tokens + usage.completion_tokens, (usd / _MILLION).quantize(_GRID, ROUND_UP))

    def upper_bound(self, messages: Iterable[str], max_tokens: int) -> Charge:
        """Return an upper bound of a request's cost: no tokenizer produces more tokens than bytes."""
        prompt = _TEMPLATE_TOKENS + sum(len(text.encode()) for text in messages)
        return self.charge(Usage(prompt, max_tokens))


class ApiBudget:
    """Amounts charged and reserved for pending requests, with limits on their sum."""

    def __init__(self, max_usd: Decimal | None, max_tokens: int | None, charged: Charge) -> None:
        self._max_usd = max_usd
        self._max_tokens = max_tokens
        self.charged = charged
        self.reserved = Charge()

    def fits(self, most: Charge) -> bool:
        """Return whether a request that costs at most `most` may be sent."""
        total = self.charged + self.reserved + most
        return (self._max_usd is None or total.usd <= self._max_usd) and (
            self._max_tokens is None or total.tokens <= self._max_tokens
        )

    def reserve(self, most: Charge) -> None:
        """Reserve the maximal cost of a request that is about to be sent. The caller has checked `fits`."""
        self.reserved += most

    def settle(self, most: Charge, real: Charge) -> None:
        """Replace a finished request's reservation by its real cost."""
        self.reserved -= most
        self.charged += real

    def limit(self) -> str:
        """Format the limits' keys and the amounts charged against them, for a message."""
        keys = []
        if self._max_usd is not None:
            keys.append(f"traces.max_cost_usd={self._max_usd} (charged: {self.charged.usd:.6f})")
        if self._max_tokens is not None:
            keys.append(f"traces.max_total_tokens={self._max_tokens} (charged: {self.charged.tokens})")
        return " and ".join(keys)


def prices_of(config: TracesConfig) -> Prices:
    """Return the configured prices, exact as written."""
    return Prices(Decimal(str(config.usd_per_million_input)), Decimal(str(config.usd_per_million_output)))


def open_budget(config: TracesConfig, charged: Charge) -> ApiBudget:
    """Return a budget with the configured limits, of which earlier runs used `charged`."""
    max_usd = None if config.max_cost_usd is None else Decimal(str(config.max_cost_usd))
    return ApiBudget(max_usd, config.max_total_tokens, charged)


def recorded_cost(records: Iterable[RawRecord]) -> Charge:
    """Return the total cost of the records, including failed ones."""
    total = Charge()
    for record in records:
        usage = record.usage
        tokens = usage.prompt_tokens + usage.completion_tokens if usage else 0
        total += Charge(tokens, record.cost_usd)
    return total


def unanswered_cost(records: Iterable[RawRecord], sent: Iterable[dict[str, Any]]) -> Charge:
    """Return the maximal cost of all requests that no record's cost includes."""
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
    """Return the line of `sent.jsonl` for a request that is about to be sent."""
    return {"id": sample_id, "most_tokens": most.tokens, "most_usd": str(most.usd)}
