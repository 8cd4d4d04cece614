"""Our engines as a model of lm-eval."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from grpo_gsm8k.data.chat_template import render_chat
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.evaluation.runner import results_with_retries
from grpo_gsm8k.grading.completion import before_stop
from grpo_gsm8k.runtime.engines import VERSION
from grpo_gsm8k.transport.protocol import Failed, GenerateGroup, GroupResult, SamplingSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lm_eval.api.instance import Instance

    from grpo_gsm8k.runtime.engines import Engines

KNOWN = {"do_sample", "until", "max_gen_toks", "temperature", "top_p"}
TokenPair = tuple[Any, list[int], list[int]]  # texts, context tokens, continuation tokens


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Token limits, and `max_attempts`: tries per request that the engine refuses."""

    max_model_len: int
    max_gen_toks: int  # for tasks that set none
    max_attempts: int


class EngineLM(TemplateLM):
    """lm-eval's interface of a causal language model. A request that the engine refuses permanently scores as wrong."""

    def __init__(
        self, engines: Engines, tokenizer: Any, stops: tuple[int, ...], limits: EngineLimits, seed: int
    ) -> None:
        """Wrap running engines. `stops` are the tokens that end a completion."""
        super().__init__()
        self.tokenizer = tokenizer
        self._engines = engines
        self._stops = stops
        self._limits = limits
        self._seed = seed

    @property
    def eot_token_id(self) -> int:
        """Prefix token of texts without context: the start token, or the end token if there is none."""
        tokenizer = self.tokenizer
        return int(tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id)

    @property
    def tokenizer_name(self) -> str:
        """Name of the tokenizer in lm-eval's caches and records."""
        return str(self.tokenizer.name_or_path)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Encode a text, adding the tokenizer's special tokens unless the text starts with them."""
        bos = self.tokenizer.bos_token
        if add_special_tokens is None:
            add_special_tokens = not (bos and string.startswith(bos))
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render a conversation with the tokenizer's chat template."""
        return render_chat(
            self.tokenizer,
            chat_history,
            "set eval.lm_eval_chat=false",
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def _loglikelihood_tokens(self, requests: Sequence[TokenPair], **_: Any) -> list[tuple[float, bool]]:
        """Return each continuation's log-probability (nats) given its context, and whether it is the greedy one."""
        longest = self._limits.max_model_len - 1  # the engine samples one token after the prompt
        sequences = [context + continuation for _, context, continuation in requests]
        _report_truncated(sum(len(ids) > longest for ids in sequences), len(sequences))
        sampling = SamplingSpec(0.0, 1.0, 1, 0, ())
        groups = [self._group(index, ids[-longest:], sampling, score=True) for index, ids in enumerate(sequences)]
        found = self._run(groups)
        return [_score(result, len(pair[2])) for pair, result in zip(requests, found, strict=True)]

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of whole texts (nats), summed over disjoint windows."""
        windows: list[TokenPair] = []
        owners: list[int] = []
        for owner, request in enumerate(requests):
            (text,) = request.args
            pieces = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._limits.max_model_len - 2,
                context_len=1,
            )
            for context, continuation in map(make_disjoint_window, pieces):
                windows.append((None, context, continuation))
                owners.append(owner)
        totals = [0.0] * len(requests)
        for owner, (logprob, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[owner] += logprob
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return completions, each cut at its first stop text. Raises UserError for unsupported generation settings."""
        groups, stops, truncated = [], [], 0
        for index, request in enumerate(requests):
            context, given = request.args
            kwargs = normalize_gen_kwargs(given, self._limits.max_gen_toks)
            if unknown := set(kwargs) - KNOWN:
                raise UserError(f"generation_kwargs.{min(unknown)} of a task is not supported: use {sorted(KNOWN)}")
            room = self._limits.max_model_len - kwargs["max_gen_toks"]
            if room < 1:
                raise UserError(
                    f"a task requests {kwargs['max_gen_toks']} new tokens: raise actor.max_model_len="
                    f"{self._limits.max_model_len}, or lower eval.lm_eval_max_gen_toks or the task's max_gen_toks"
                )
            texts = tuple(kwargs["until"])
            sampling = SamplingSpec(
                kwargs["temperature"],
                kwargs.get("top_p", 1.0),
                kwargs["max_gen_toks"],
                (self._seed << 40) + index,
                self._stops,
                texts,
            )
            ids = self.tok_encode(context)
            truncated += len(ids) > room
            groups.append(self._group(index, ids[-room:], sampling, score=False))
            stops.append(texts)
        _report_truncated(truncated, len(requests))
        return [self._text(result, texts) for result, texts in zip(self._run(groups), stops, strict=True)]

    def _group(self, index: int, prompt: list[int], sampling: SamplingSpec, score: bool) -> GenerateGroup:
        ids = np.array(prompt, dtype=np.int32)
        return GenerateGroup(str(index), ids, 1, sampling, VERSION, pinned=True, score_prompt=score)

    def _run(self, asked: Sequence[GenerateGroup]) -> list[GroupResult | None]:
        """Return the results in the order of the requests; None for a request that was refused every time."""
        found: dict[str, GroupResult] = {}
        for result in results_with_retries(self._engines, asked, self._limits.max_attempts):
            if isinstance(result, Failed):
                print(f"lm-eval: refused by the engine, counts as wrong: {result.error}", file=sys.stderr)
            else:
                found[result.request_id] = result
        return [found.get(group.request_id) for group in asked]

    def _text(self, result: GroupResult | None, stops: Sequence[str]) -> str:
        if result is None:
            return ""
        text = self.tokenizer.decode(result.completions[0].token_ids.tolist(), skip_special_tokens=True)
        return before_stop(str(text), [stop for stop in stops if stop])


def _report_truncated(truncated: int, total: int) -> None:
    """Warn about prompts that were truncated on the left, as lm-eval does, because it affects the scores."""
    if truncated:
        print(
            f"lm-eval: {truncated} of {total} prompts were truncated on the left: raise actor.max_model_len",
            file=sys.stderr,
        )


def _score(result: GroupResult | None, continuation: int) -> tuple[float, bool]:
    if result is None:
        return float("-inf"), False
    assert result.prompt is not None
    logprobs, greedy = result.prompt.logprobs[-continuation:], result.prompt.greedy[-continuation:]
    return float(logprobs.sum(dtype=np.float64)), bool(greedy.all())
