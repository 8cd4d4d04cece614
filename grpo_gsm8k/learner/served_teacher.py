"""A teacher on a server with vLLM's variant of OpenAI's API, which returns the log-probabilities of a prompt's tokens.

A request's prompt is a student's prompt and completion as token ids. With `prompt_logprobs: 0` the answer has a table
for each of them but the first, with that token's log-probability by its id. They are those of a temperature of 1.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_gsm8k.errors import LabError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from grpo_gsm8k.config import TeacherConfig
    from grpo_gsm8k.learner.batching import TokenSequence

ATTEMPTS = 6
FIRST_WAIT_S = 1.0  # doubled before each further attempt: 31 s in all
BUSY = (429, 500, 502, 503, 504)  # what may be different the next time
PROBES = 4  # prompts that the server divides into tokens
ROUNDING = 1e-3  # nats by which a log-probability may exceed 0
SHOWN = 200  # characters of a server's message


class _BusyError(Exception):
    """A failure that another attempt may not meet."""


class ServedTeacher:
    """Client of the configured server. Safe to use from several threads."""

    def __init__(self, config: TeacherConfig, first_wait_s: float = FIRST_WAIT_S) -> None:
        """`first_wait_s`: seconds between the first two attempts at a request."""
        assert config.base_url is not None
        self._config = config
        self._url = f"{config.base_url.rstrip('/')}/completions"
        self._first_wait_s = first_wait_s

    def check(self, tokenizer: Any, prompts: Sequence[np.ndarray]) -> None:
        """Raise UserError unless the server scores token ids, and divides texts into the same ones.

        `tokenizer` is the student's, which made `prompts`, arrays of token ids; the first of them are tried.
        """
        for ids in prompts[:PROBES]:
            text = tokenizer.decode(ids.tolist())
            ours, tables = tokenizer.encode(text), self._ask(text)
            if len(tables) != len(ours) or not all(map(_has, tables[1:], ours[1:])):
                raise self._refused(
                    f"divides texts into other tokens than the start model ({len(tables)} and {len(ours)} for "
                    f"{text[:40]!r}): use a teacher with the same tokenizer"
                )
            self._logprobs(ids.tolist(), 1)

    def scores(self, sequences: Mapping[int, TokenSequence]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the log-probabilities of completions, float32 [R], with their keys, in the order of the answers.

        Raises UserError if the server refuses a request, LabError if it does not answer any more.
        """
        with ThreadPoolExecutor(self._config.concurrency) as threads:
            asked = {threads.submit(self._completion, sequence): key for key, sequence in sequences.items()}
            try:
                for future in as_completed(asked):
                    yield asked[future], future.result()
            finally:
                threads.shutdown(wait=True, cancel_futures=True)

    @property
    def _name(self) -> str:
        return f"{self._config.model} at {self._config.base_url}"

    def _completion(self, sequence: TokenSequence) -> np.ndarray:
        """Return the log-probabilities of a completion's tokens, [R]."""
        prompt, completion = sequence.prompt_ids.tolist(), sequence.completion_ids.tolist()
        return self._logprobs([*prompt, *completion], len(prompt))

    def _logprobs(self, ids: list[int], first: int) -> np.ndarray:
        """Return the log-probabilities of the tokens from `first` on, each given those before it."""
        tables = self._ask(ids)
        if len(tables) != len(ids):
            raise self._refused(f"returned {len(tables)} prompt log-probabilities for {len(ids)} tokens")
        values = []
        for token, table in zip(ids[first:], tables[first:], strict=True):
            entry = table.get(str(token)) if isinstance(table, dict) else None
            value = entry.get("logprob") if isinstance(entry, dict) else None
            if not isinstance(value, int | float):
                raise self._refused(f"returned no log-probability for token {token}")
            values.append(float(value))
        if values and max(values) > ROUNDING:
            raise self._refused("returned a log-probability above 0: start it with --logprobs-mode raw_logprobs")
        return np.array(values, dtype=np.float32)

    def _ask(self, prompt: str | list[int]) -> list[Any]:
        """Return the server's table of log-probabilities for each token of a prompt, with several attempts."""
        wait_s = self._first_wait_s
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._tables(self._answer(prompt))
            except _BusyError as error:
                if attempt == ATTEMPTS:
                    raise LabError(
                        f"policy_gradient.teacher.base_url: {self._name} failed {ATTEMPTS} times in a row, the last "
                        f"time with: {error}: start the server again, then resume the run"
                    ) from None
            time.sleep(wait_s)
            wait_s *= 2
        raise AssertionError

    def _answer(self, prompt: str | list[int]) -> Any:
        body = {"model": self._config.model, "prompt": prompt, "max_tokens": 1, "prompt_logprobs": 0}
        headers = {"Content-Type": "application/json", **self._authorization()}
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self._config.timeout_s) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            text = " ".join(error.read().decode(errors="replace").split())[:SHOWN]
            if error.code in BUSY:
                raise _BusyError(f"status {error.code}: {text}") from None
            raise self._refused(f"refused the request with status {error.code}: {text}") from None
        except (OSError, http.client.HTTPException) as error:  # URLError and time limits are OSErrors
            raise _BusyError(str(error) or type(error).__name__) from None
        except ValueError:
            raise self._refused("did not answer with JSON") from None

    def _authorization(self) -> dict[str, str]:
        name = self._config.api_key_env
        if name is None:
            return {}
        if not (key := os.environ.get(name, "").strip()):
            raise UserError(
                f"policy_gradient.teacher.api_key_env: the environment variable {name} is not set: put the key into it "
                "or into .env"
            )
        return {"Authorization": f"Bearer {key}"}

    def _tables(self, answer: Any) -> list[Any]:
        choices = answer.get("choices") if isinstance(answer, dict) else None
        choice = choices[0] if isinstance(choices, list) and choices else None
        tables = choice.get("prompt_logprobs") if isinstance(choice, dict) else None
        if not isinstance(tables, list):
            raise self._refused("returns no prompt_logprobs: use a server of vLLM, or policy_gradient.teacher.path")
        return tables

    def _refused(self, reason: str) -> UserError:
        return UserError(f"policy_gradient.teacher.base_url: {self._name} {reason}")


def _has(table: object, token: int) -> bool:
    """Whether a server's table of log-probabilities has one for the token."""
    return isinstance(table, dict) and str(token) in table
