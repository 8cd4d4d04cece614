"""The child process that runs a user's rewards files: `python -m grpo_gsm8k.grading.rewards_child SEED FILE...`.

It is not a sandbox: the files can do whatever the user can. It keeps their failures, and the time and memory they
take, out of the learner. Completions reach them as JSON text, and nothing in this project executes them.
"""

from __future__ import annotations

import io
import json
import os
import random
import site
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from grpo_gsm8k.children.child_loop import serve
from grpo_gsm8k.grading.answers import Grade
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.grading.rewards import RewardInput
from grpo_gsm8k.grading.rewards_file import UserPart, call_part, load_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROGRESS_BYTES = 64


def encode_group(parts: Sequence[str], items: Sequence[RewardInput], progress: str, stop: bool) -> dict[str, Any]:
    """Return the request to score the completions of one prompt. `stop`: at the first failure."""
    first = items[0]
    return {
        "parts": list(parts),
        "problem": asdict(first.problem),
        "prompt": first.prompt,
        "completions": [[i.text, list(i.token_ids), i.finish_reason, asdict(i.grade)] for i in items],
        "progress": progress,
        "stop": stop,
    }


def decode_group(request: dict[str, Any]) -> list[RewardInput]:
    """Return the completions of a request."""
    problem = Problem(**request["problem"])
    return [
        RewardInput(problem, request["prompt"], text, tuple(ids), reason, Grade(**grade))
        for text, ids, reason, grade in request["completions"]
    ]


@dataclass(frozen=True)
class GroupScorer:
    """Answers requests: None lists the functions, a group is scored."""

    seed: str
    parts: dict[str, UserPart]

    def __call__(self, request: dict[str, Any] | None) -> Any:
        """Return the functions' descriptions, or the values and failures by part."""
        if request is None:
            return [[part.name, part.file, part.line, part.flaw] for part in self.parts.values()]
        items = decode_group(request)
        answer: dict[str, Any] = {"values": {}, "failed": {}}
        progress = os.open(request["progress"], os.O_WRONLY)
        try:
            for index, name in enumerate(request["parts"]):
                note = _progress_writer(progress, index)
                self._seed_generators(name, items)
                found = call_part(self.parts[name], items, note)
                answer["values"][name] = found.values
                if found.failed:
                    answer["failed"][name] = list(found.failed.items())
                    if request["stop"]:
                        break
        finally:
            os.close(progress)
        return answer

    def _seed_generators(self, name: str, items: Sequence[RewardInput]) -> None:
        """Seed random and numpy by the group, so that results depend neither on the order of groups nor on the child.

        The seed of numpy has 32 bits.
        """
        text = json.dumps([self.seed, name, items[0].problem.id, [item.token_ids for item in items]])
        random.seed(text)
        if numpy := sys.modules.get("numpy"):
            numpy.random.seed(crc32(text.encode()))


def _progress_writer(file: int, part: int) -> Callable[[int], None]:
    """Return the function that records which completion a part is called for, should this process be killed."""

    def note(item: int) -> None:
        os.pwrite(file, f"{part} {item}".ljust(PROGRESS_BYTES).encode(), 0)

    return note


def _prepare() -> GroupScorer:
    sys.dont_write_bytecode = True  # the files are in the run folder
    sys.stdin = io.StringIO()  # the real one carries the requests
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # prints appear in the learner's log at once
    _only_installed_packages()
    seed, *files = sys.argv[1:]
    return GroupScorer(seed, load_parts([Path(file) for file in files]))


def _only_installed_packages() -> None:
    """Keep the working folder and the checkout out of imports: their files are neither copied nor hashed."""
    installed = {*site.getsitepackages(), site.getusersitepackages()}
    checkout = str(Path(__file__).parents[2])
    hidden = {"", os.getcwd(), *({checkout} - installed)}
    sys.path[:] = [entry for entry in sys.path if entry not in hidden]


if __name__ == "__main__":
    serve(_prepare)
