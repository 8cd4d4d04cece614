"""Log-probabilities of given sequences, outside of updates: for the canary and the parity probe.

Only the first rank asks for them. The others take part if the model is divided among them, because no rank can compute
it alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from grpo_gsm8k.algorithms.logprobs import token_logprobs
from grpo_gsm8k.learner.batching import pack_tokens, token_sequence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.learner.batching import TokenSequence
    from grpo_gsm8k.learner.model import Policy


@torch.no_grad()
def packed_logprobs(
    policy: Policy, sequences: Sequence[TokenSequence], chunk: int, exact: bool = False
) -> list[np.ndarray]:
    """Return the log-probability of each completion token, float32, from one packed forward pass.

    `exact` is that of `Policy.inference`.
    """
    _tell(policy, sequences, {"packed": True, "exact": exact})
    tokens = pack_tokens(sequences, policy.device)
    with policy.together(), policy.inference(exact):
        hidden_NH = policy.hidden_states(tokens)[tokens.source_N]
        logprobs_N, *_ = token_logprobs(hidden_NH, policy.head, tokens.targets_N, 1.0, chunk)
    bounds = np.cumsum([s.predicted_tokens for s in sequences])[:-1]
    return np.split(logprobs_N.float().cpu().numpy(), bounds)


def plain_logprobs(policy: Policy, sequences: Sequence[TokenSequence], last: int) -> list[np.ndarray]:
    """Return those of the `last` tokens of each sequence from Hugging Face's own forward pass, one by one."""
    _tell(policy, sequences, {"packed": False, "last": last})
    with policy.plain_attention() as model, policy.together(), policy.inference():
        return [_plain(model, sequence, last, policy.device) for sequence in sequences]


def take_part(policy: Policy, work: dict[str, Any], chunk: int) -> None:
    """Do the same passes as the first rank, which has announced `work`."""
    sequences = [token_sequence(np.asarray(a, np.int32), np.asarray(b, np.int32)) for a, b in work["score"]]
    if work["packed"]:
        packed_logprobs(policy, sequences, chunk, work["exact"])
    else:
        plain_logprobs(policy, sequences, work["last"])


def _tell(policy: Policy, sequences: Sequence[TokenSequence], how: dict[str, Any]) -> None:
    if policy.shards is not None and policy.shards.ranks.part.rank == 0:
        listed = [[s.prompt_ids.tolist(), s.completion_ids.tolist()] for s in sequences]
        policy.shards.ranks.announce({"score": listed, **how})


def _plain(model: Any, sequence: TokenSequence, last: int, device: torch.device) -> np.ndarray:
    ids = torch.from_numpy(np.concatenate([sequence.prompt_ids, sequence.completion_ids])).long()[None].to(device)
    count = min(last, len(sequence.completion_ids))
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=count + 1).logits[0, :-1]
    rows = torch.log_softmax(logits.float(), dim=-1)
    values: np.ndarray = rows.gather(1, ids[0, -count:, None])[:, 0].cpu().numpy()
    return values
