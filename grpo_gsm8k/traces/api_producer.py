"""Producer of traces from an API: concurrent requests, charged before they are sent, with retries."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import tenacity

from grpo_gsm8k.errors import LabError
from grpo_gsm8k.traces.api_budget import Charge, sent_line
from grpo_gsm8k.traces.teacher import ApiTeacher, Reply, SampleFailedError, TransientError
from grpo_gsm8k.traces.trace_records import Answered, make_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.grading.grader import Grader
    from grpo_gsm8k.traces.api_budget import ApiBudget, Prices
    from grpo_gsm8k.traces.trace_folder import TracesFolder
    from grpo_gsm8k.traces.trace_records import Deliver, TraceSample

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FAILURES_IN_A_ROW = 50  # that many failures are not caused by the samples; continuing would only spend money
_BACKOFF = tenacity.wait_exponential_jitter(initial=1, max=60, jitter=1)  # seconds
_CUT_SHORT = "insufficient_system_resource"  # DeepSeek's finish reason for an answer that its server aborted


class Interrupted(KeyboardInterrupt):
    """A signal ended the command."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class ApiProducer:
    """Producer that delivers one record per sample until all are done, the budget is spent or a signal arrives."""

    def __init__(
        self, config: Config, key: str, folder: TracesFolder, budget: ApiBudget, prices: Prices, grader: Grader
    ) -> None:
        self.config = config
        self._key = key
        self._folder = folder
        self.budget = budget
        self.prices = prices
        self.grader = grader
        self._running: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._signal = 0

    def __call__(self, samples: Sequence[TraceSample], deliver: Deliver) -> str | None:
        """Collect the samples, see `trace_records.Producer`. Raises Interrupted, or LabError if the API is unusable."""
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        try:
            stopped = asyncio.run(self._collect(samples, deliver))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._signal:
            raise Interrupted(self._signal)
        return stopped

    async def _collect(self, samples: Sequence[TraceSample], deliver: Deliver) -> str | None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number, task)
        try:
            async with ApiTeacher(self.config, self._key) as teacher:
                try:
                    return await self._request_all(teacher, samples, deliver)
                finally:
                    for running in self._running:
                        running.cancel()
                    await asyncio.gather(*self._running, return_exceptions=True)
        except asyncio.CancelledError:
            if not self._signal:
                raise
            return None

    def _on_signal(self, number: int, task: asyncio.Task[str | None]) -> None:
        self._signal = number
        task.cancel()

    async def _request_all(self, teacher: ApiTeacher, samples: Sequence[TraceSample], deliver: Deliver) -> str | None:
        for sample in samples:
            texts = teacher.texts(sample.problem.question)
            most = self.prices.upper_bound(texts, self.config.traces.max_tokens)
            # Pending requests usually cost less than reserved, so waiting for them may free enough of the budget.
            while self._running and (self._is_full() or not self.budget.fits(most)):
                await self._finish_some()
            if not self.budget.fits(most):
                return f"the next request could exceed {self.budget.limit()}: raise that limit and run it again"
            self.budget.reserve(most)
            request = _Request(self, teacher, sample, most)
            self._running.add(asyncio.create_task(request.run(deliver)))
        while self._running:
            await self._finish_some()
        return None

    def _is_full(self) -> bool:
        return len(self._running) >= self.config.traces.concurrency

    async def _finish_some(self) -> None:
        done, self._running = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        # Retrieve every exception: asyncio logs those that nobody retrieved.
        errors = [error for task in done if (error := task.exception())]
        if errors:
            raise errors[0]

    def count(self, error: str | None) -> None:
        """Count a finished sample. Raises LabError after too many failures in a row."""
        self._failures = self._failures + 1 if error else 0
        if self._failures >= _FAILURES_IN_A_ROW:
            raise LabError(f"{self._failures} samples in a row failed, the last with: {error}: run it again later")

    def note_sent(self, sample: TraceSample, most: Charge) -> None:
        """Record that a request is about to be sent."""
        self._folder.add_sent(sent_line(sample.id, most))


class _Request:
    """All attempts at one sample. The caller has reserved `most`, which stays reserved until it is settled."""

    def __init__(self, producer: ApiProducer, teacher: ApiTeacher, sample: TraceSample, most: Charge) -> None:
        self._producer = producer
        self._teacher = teacher
        self._sample = sample
        self._most = most
        self._reserved = True
        self._settled = 0  # requests whose cost is known

    async def run(self, deliver: Deliver) -> None:
        """Send requests until one succeeds, settle its cost, deliver a record. Raises a LabError to end the command."""
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self._producer.config.traces.max_attempts),
            wait=wait_s,
            retry=tenacity.retry_if_exception_type(TransientError),
            reraise=True,
        )
        try:
            answered = self._settle_reply(await retrying(self._attempt))
        except (TransientError, SampleFailedError) as error:
            self._settle(Charge())
            model = self._producer.config.traces.model
            answered = Answered(model=model, error=str(error), settled_requests=self._settled)
        deliver(make_record(self._sample, answered, self._producer.grader))
        self._producer.count(answered.error)

    async def _attempt(self) -> Reply:
        if not self._reserved:
            if not self._producer.budget.fits(self._most):
                raise SampleFailedError(f"another attempt could exceed {self._producer.budget.limit()}")
            self._producer.budget.reserve(self._most)
            self._reserved = True
        self._producer.note_sent(self._sample, self._most)
        try:
            return await self._teacher.ask(self._sample.problem.question)
        except TransientError as error:
            if error.maybe_billed:
                self._settle(self._most)
            else:
                self._settled += 1
            raise
        except SampleFailedError:
            self._settled += 1
            raise

    def _settle_reply(self, reply: Reply) -> Answered:
        """Settle the real usage; without usage the request stays charged at its maximum, outside of the record."""
        cost = None if reply.usage is None else self._producer.prices.charge(reply.usage)
        self._settle(self._most if cost is None else cost)
        return Answered(
            text=reply.text,
            reasoning=reply.reasoning,
            finish_reason=reply.finish_reason,
            usage=reply.usage,
            cost_usd=Charge().usd if cost is None else cost.usd,
            latency_s=reply.latency_s,
            model=reply.model,
            error="the server aborted the answer (out of resources)" if reply.finish_reason == _CUT_SHORT else None,
            settled_requests=self._settled + (cost is not None),
        )

    def _settle(self, real: Charge) -> None:
        if self._reserved:
            self._producer.budget.settle(self._most, real)
            self._reserved = False


def wait_s(state: tenacity.RetryCallState) -> float:
    """Return the seconds before the next attempt: exponential backoff with jitter, at least Retry-After."""
    error = state.outcome.exception() if state.outcome else None
    return max(_BACKOFF(state), error.wait_s if isinstance(error, TransientError) else 0.0)
