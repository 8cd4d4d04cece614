"""Outputs of vLLM as this project's messages."""

from __future__ import annotations

from typing import Any

import numpy as np

from grpo_gsm8k.transport.protocol import Completion, Failed, GroupResult, PromptScores, VersionSpan


def group_result(output: Any, version: int | None) -> GroupResult | Failed:
    """Convert the output of a finished request.

    `version` is that of its adapter; None for a model: vLLM then knows that of each token.
    """
    completions = tuple(_completion(item, version) for item in sorted(output.outputs, key=lambda item: item.index))
    reasons = {completion.finish_reason for completion in completions}
    if not reasons <= {"stop", "length"}:
        return Failed(output.request_id, f"finish reasons {sorted(reasons)}")
    return GroupResult(output.request_id, completions, _prompt_scores(output))


def _prompt_scores(output: Any) -> PromptScores | None:
    if output.prompt_logprobs is None:
        return None
    flat = output.prompt_logprobs  # one entry per token, without the first
    return PromptScores(np.array(flat.logprobs, dtype=np.float32), np.array(flat.ranks) == 1)


def _completion(item: Any, version: int | None) -> Completion:
    if version is None:
        spans = tuple(VersionSpan(int(span.version), span.start, span.end) for span in item.weight_versions or ())
    else:
        spans = (VersionSpan(version, 0, len(item.token_ids)),)
    return Completion(
        token_ids=np.asarray(item.token_ids, dtype=np.int32),
        logprobs=np.asarray(item.logprobs.logprobs, dtype=np.float32),
        finish_reason=str(item.finish_reason),
        version_spans=spans,
    )
