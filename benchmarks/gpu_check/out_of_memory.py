"""Step 8: a token budget that cannot fit is halved until it does, and memory is held on the learner's GPU only."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

import psutil

from benchmarks.gpu_check.outcome import require
from benchmarks.update_timing import BatchSize, Learner, random_rollouts
from grpo_gsm8k.learner.oom import TokenBudget
from grpo_gsm8k.preflight.parameters import from_weights
from grpo_gsm8k.tracking.program_output import program_output

if TYPE_CHECKING:
    from benchmarks.gpu_check.outcome import Record
    from benchmarks.gpu_check.setup import Setup

# A micro-batch of 60,000 tokens of a model of 1.5B parameters saves more than 200 GB for its backward pass.
TOKENS = 60_000
ON_GPU = BatchSize(prompts=32, group=8, prompt_tokens=160, completion_tokens=320)
ON_CPU = BatchSize(prompts=64, group=8, prompt_tokens=40, completion_tokens=80)
ROOM_ON_CPU = 600 * 2**20  # address space beyond what the process has: half of what the update would take


def check(setup: Setup, record: Record) -> None:
    """Force the error, and fail unless the update ends with a smaller budget."""
    folder = setup.random_model()
    config = setup.config(f"learner.token_budget={TOKENS}")
    groups = random_rollouts(ON_GPU if setup.cuda else ON_CPU, from_weights(folder).vocab)
    texts: list[str] = []
    budget = TokenBudget(TOKENS, lambda tokens, reason: texts.append(reason))
    learner = Learner(config, folder)
    learner.update(groups[:1])  # libraries and threads are set up before memory becomes scarce
    if not setup.cuda:
        used = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM_ON_CPU, resource.RLIM_INFINITY))
    learner.update(groups, budget)
    record("halvings", budget.halvings)
    record("tokens that fit", budget.tokens)
    record("text of the error", texts[0] if texts else "none")
    require(budget.halvings > 0, f"{TOKENS} tokens fitted: nothing was tested")
    if setup.cuda:
        held = devices_held()
        record("GPUs on which this process holds memory", held)
        require(held == 1, f"the learner holds memory on {held} GPUs")


def devices_held() -> int:
    """Return on how many GPUs this process has memory, by nvidia-smi; in a container it may not list processes: 1."""
    query = ["nvidia-smi", "--query-compute-apps=pid,gpu_uuid", "--format=csv,noheader"]
    lines = (program_output(query) or "").splitlines()
    found = {line.split(",")[1].strip() for line in lines if line.split(",")[0].strip() == str(os.getpid())}
    return len(found) or 1
