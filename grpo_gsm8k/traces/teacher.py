"""Requests to an OpenAI-compatible API, and the classification of their failures."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import openai

from grpo_gsm8k.data.prompts import instructed
from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.traces.trace_records import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from openai.types.chat import ChatCompletionMessageParam

    from grpo_gsm8k.config import Config

_SHOWN_CHARS = 200
_LONGEST_WAIT_S = 600.0  # a longer Retry-After means an exhausted quota: the command ends instead of waiting
_GATEWAY_STATUS = (502, 504)  # the server behind the gateway may have answered and billed the request
_FIXES = {
    401: "the key in the environment variable {env} was refused: put a valid one into it or into .env",
    402: "the account of the key in {env} has no balance: top it up, then run the command again",
    403: "the key in {env} may not use traces.model={model}: set another model or use another key",
    404: "model or address not found: check traces.model={model} and traces.base_url={url}",
}


class SampleFailedError(LabError):
    """The API rejected this request, and would reject it again."""


class TransientError(LabError):
    """A failure that a retry may fix. `maybe_billed`: the request may have been answered and charged anyway."""

    def __init__(self, text: str, *, maybe_billed: bool, wait_s: float = 0.0) -> None:
        super().__init__(text)
        self.maybe_billed = maybe_billed
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Reply:
    """The teacher's answer. `usage` is None if the API did not report it."""

    text: str
    reasoning: str | None
    finish_reason: str | None
    usage: Usage | None
    model: str
    latency_s: float


class ApiTeacher:
    """Client for the configured API and model. Use it in an `async with` block."""

    def __init__(self, config: Config, key: str) -> None:
        self._config = config
        self._key = key
        # No retries in the client: each attempt must be charged to the budget first.
        self._client = openai.AsyncOpenAI(
            api_key=key, base_url=config.traces.base_url, max_retries=0, timeout=config.traces.timeout_s
        )

    async def __aenter__(self) -> ApiTeacher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._client.close()

    def texts(self, question: str) -> list[str]:
        """Return the message texts of a request; the system text first, if there is one."""
        prompt = self._config.prompt
        # Not str.format: templates and questions may contain braces.
        user = instructed(prompt, prompt.text.replace("{question}", question))
        return [prompt.system, user] if prompt.system else [user]

    async def ask(self, question: str) -> Reply:
        """Send one request. Raises TransientError, SampleFailedError, or a LabError that ends the command."""
        traces = self._config.traces
        *system, user = self.texts(question)
        messages: list[ChatCompletionMessageParam] = [{"role": "system", "content": text} for text in system]
        messages.append({"role": "user", "content": user})
        start = time.monotonic()
        try:
            # The client's timeout restarts with every byte, and some APIs send blank lines while they generate.
            async with asyncio.timeout(traces.timeout_s):
                answer = await self._client.chat.completions.create(
                    model=traces.model,
                    messages=messages,
                    max_tokens=traces.max_tokens,
                    temperature=openai.omit if traces.temperature is None else traces.temperature,
                )
        except openai.APIStatusError as error:
            raise self._classify_status(error) from None
        except (openai.APITimeoutError, TimeoutError):
            raise TransientError(f"no answer within {traces.timeout_s} s", maybe_billed=True) from None
        except (openai.APIConnectionError, openai.APIResponseValidationError, ValueError) as error:
            raise self._classify_connection(error) from None
        return self._reply(answer, time.monotonic() - start)

    def _classify_status(self, error: openai.APIStatusError) -> LabError:
        status = error.status_code
        text = f"{status} from the teacher: {self._short_text(error)}"
        if status == 429 or status >= 500:
            wait_s = retry_after_s(error.response.headers)
            if wait_s > _LONGEST_WAIT_S:
                return LabError(f"{text}: run the command again in {wait_s:.0f} s (Retry-After)")
            return TransientError(text, maybe_billed=status in _GATEWAY_STATUS, wait_s=wait_s)
        if fix := _FIXES.get(status):
            traces = self._config.traces
            fix = fix.format(env=traces.api_key_env, model=traces.model, url=traces.base_url)
            return UserError(f"{fix} ({text})")
        return SampleFailedError(text)

    def _classify_connection(self, error: Exception) -> TransientError:
        cause = error.__cause__ or error
        # httpx's errors, by name because it is only a dependency of the client. Without a connection nothing was sent.
        unsent = type(cause).__name__ in {"ConnectError", "ConnectTimeout", "PoolTimeout"}
        return TransientError(f"{type(cause).__name__}: {self._short_text(cause)}", maybe_billed=not unsent)

    def _short_text(self, error: BaseException) -> str:
        """Format an error as one short line, without the key: some servers echo the request."""
        text = " ".join(str(error).replace(self._key, "***").split())
        return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."

    def _reply(self, answer: Any, latency_s: float) -> Reply:
        """Convert an answer that the client has parsed but not validated."""
        choices = getattr(answer, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        if message is None:
            # Typically the page of a proxy or web site, with status 200.
            raise TransientError("the answer is not a chat completion: check traces.base_url", maybe_billed=True)
        reasoning = _text(getattr(message, "reasoning_content", None)) or _text(getattr(message, "reasoning", None))
        finish_reason = getattr(choice, "finish_reason", None)
        return Reply(
            text=_text(getattr(message, "content", None)),
            reasoning=reasoning or None,
            finish_reason=None if finish_reason is None else str(finish_reason),
            usage=_usage(getattr(answer, "usage", None)),
            model=_text(getattr(answer, "model", None)) or self._config.traces.model,
            latency_s=round(latency_s, 3),
        )


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Return the seconds in a Retry-After header; 0 if it is missing or unreadable."""
    raw = headers.get("retry-after", "").strip()
    if raw.replace(".", "", 1).isdecimal():
        return float(raw)
    try:
        when = parsedate_to_datetime(raw)
    except ValueError:
        return 0.0
    return max(0.0, (when - datetime.now(UTC)).total_seconds()) if when.tzinfo else 0.0


def _text(value: object) -> str:
    """Return a text that UTF-8 can encode, since JSON may contain lone surrogates; "" for other types."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _usage(usage: Any) -> Usage | None:
    counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (count if isinstance(count, int) and count >= 0 else None for count in counts)
    return None if prompt is None or completion is None else Usage(prompt, completion)
