"""Entry point of the learner's ranks but the first: `python -m grpo_gsm8k.learner.run_rank`, started by it.

Setup, work and other ranks' values come as lines of JSON on stdin; this rank's values go to stdout.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch

from grpo_gsm8k import faults
from grpo_gsm8k.config import parse_config
from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.learner import checkpoint, setup
from grpo_gsm8k.learner.dealing import Part
from grpo_gsm8k.learner.experience import prepare
from grpo_gsm8k.learner.oom import TokenBudget
from grpo_gsm8k.learner.rank_batch import load_sequences
from grpo_gsm8k.learner.rank_process import BYSTANDER, log_name
from grpo_gsm8k.learner.ranks import RankError, Ranks
from grpo_gsm8k.learner.schedules import Rates
from grpo_gsm8k.learner.sequence_scores import take_part
from grpo_gsm8k.learner.tuning import tune
from grpo_gsm8k.learner.update import update_policy
from grpo_gsm8k.learner.update_record import load_batch

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.objective import Models
    from grpo_gsm8k.learner.update import Optimizers


class OtherLink:
    """The pipes of a rank to the first one, which waits for this rank no longer than its limit."""

    def __init__(self, limit_s: float, reader: BinaryIO, writer: BinaryIO) -> None:
        """`limit_s` is for exchanges of tensors; the first rank may wait for completions, so a read has no limit."""
        self.limit_s = limit_s
        self._reader = reader
        self._writer = writer

    def exchange(self, value: Any) -> list[Any]:
        """Send a value, and return those of all ranks."""
        self.send(value)
        values = self.read()
        if values is None:
            raise RankError("rank 0 of the learner closed its pipe")
        found: list[Any] = values
        return found

    def send(self, value: Any) -> None:
        """Send a value as a line of JSON."""
        self._writer.write(json.dumps(value).encode() + b"\n")
        self._writer.flush()

    def read(self) -> Any:
        """Return the next value; None at the end of the pipe, when there is no more work."""
        line = self._reader.readline()
        return json.loads(line) if line else None

    def announce(self, work: dict[str, Any]) -> None:
        """Raise AssertionError: only the first rank gives work."""
        raise AssertionError(f"not the first rank: {work}")

    def blame(self, error: RuntimeError) -> RankError:
        """Leave it to the first rank to find out."""
        return RankError(f"the ranks of the learner could not exchange tensors: {error}")

    def close(self) -> None:
        """Do nothing: the first rank ends the others."""


def main() -> int:
    """Work until the first rank closes the pipe; returns the exit code."""
    reader, writer = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed goes to the log
    values = json.loads(reader.readline())
    faults.arm(Path(log_name(values["rank"])).stem, Path(values["logs"]) / faults.LOG)
    config = parse_config(values["config"])
    link = OtherLink(config.learner.rank_timeout_s, reader, writer)
    try:
        _run(link, values, config)
    except RankError as error:
        print(error, flush=True)
        return BYSTANDER
    except LabError as error:
        link.send({"error": str(error), "user_error": isinstance(error, UserError)})
        return 1
    return 0


def _run(link: OtherLink, values: dict[str, Any], config: Config) -> None:
    """Load the models, join the other ranks, and do the work that comes."""
    part = Part(values["rank"], values["ranks"], config.learner.shard == "full")
    device = config.learner.rank_devices[part.rank]
    config = config.model_copy(update={"learner": config.learner.model_copy(update={"device": device})})
    setup.set_up_torch(config)
    folder = Path(values["folder"])
    resumed = None if values["checkpoint"] is None else Path(values["checkpoint"])
    ranks = Ranks(part, link, folder, device)
    model, critic = Path(values["model_folder"]), Path(values["critic_folder"])
    teacher = None if values["teacher_folder"] is None else Path(values["teacher_folder"])
    models, optimizers = setup.open_trained(config, model, critic, resumed, ranks, teacher)
    if resumed is not None:
        checkpoint.restore(resumed, models, optimizers)
    ranks.join(models.parameters)
    budget = TokenBudget(config.learner.token_budget)
    while (work := link.read()) is not None:
        if "state_of" in work:  # the first rank writes a checkpoint
            optimizers.named(work["state_of"]).state_tensors()
            continue
        if "weights_of" in work:  # the first rank needs them whole
            models.gather(work["weights_of"])
            continue
        if "score" in work:
            take_part(models.policy, work, config.learner.logprob_chunk)
            continue
        torch.manual_seed(_seed(config.seed, work["version"], part.rank))
        _do(work, folder, models, optimizers, config, budget, ranks)


def _do(
    work: dict[str, Any],
    folder: Path,
    models: Models,
    optimizers: Optimizers,
    config: Config,
    budget: TokenBudget,
    ranks: Ranks,
) -> None:
    """Take part in one update: the same calls as on the first rank, with the same arguments."""
    if config.command == "sft":
        tune(models, optimizers, load_sequences(folder), config, work["lr"], _no_beat, budget, ranks)
        return
    samples, rewards_GN = load_batch(folder)
    rates, version = Rates(**work["rates"]), work["version"]
    experience = prepare(samples, rewards_GN, models, config, rates.kl_coef, _no_beat, budget, ranks)
    update_policy(models, optimizers, experience.groups, config, version, rates, _no_beat, budget, ranks)


def _seed(*numbers: int) -> int:
    """Return a seed for dropout: other numbers on every rank, and the same ones again after a resume."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _no_beat() -> None:
    """Report nothing: the first rank watches over the others."""


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of the process group must not keep a finished rank alive
