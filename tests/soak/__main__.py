"""Kill and stop random processes of runs at random times, and check that nothing is lost: `make soak KILLS=50`.

Policy gradient, fine-tuning and evaluation in turn, each first once undisturbed; whenever a run's first process was
killed, the run is resumed. One JSON line per run: what was done to it, what was checked, memory and descriptors. Exit
code 1 if something was lost.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import Cli
from tests.soak.checks import lost
from tests.soak.tasks import TASKS, Task
from tests.soak.tormented import Tormented, torment

MOST_PER_RUN = 9  # so that a soak of fifty goes through each command twice


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="stop after this many faults")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="or after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=["scripted", "vllm"], default="scripted")
    parser.add_argument("--folder", type=Path, default=None, help="keep the runs here")
    given = parser.parse_args()
    rng = random.Random(given.seed)
    started, kills, failures, number = time.monotonic(), 0, 0, 0
    share = min(MOST_PER_RUN, math.ceil(given.kills / len(TASKS)))
    whole: dict[Task, Tormented] = {}  # the undisturbed runs
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        while kills < given.kills and time.monotonic() - started < given.seconds:
            task = TASKS[number % len(TASKS)]
            if task not in whole:
                whole[task] = torment(Cli(folder / f"whole_{task.name}"), task, given.engine, rng, at_most=0)
            cli = Cli(folder / f"run_{number}")
            tormented = torment(cli, task, given.engine, rng, at_most=min(share, given.kills - kills))
            problems = lost(tormented, whole[task])
            kills += len(tormented.faults)
            failures += bool(problems)
            number += 1
            line = {"run": number, "task": task.name, **tormented.as_dict(), "kills_so_far": kills, "lost": problems}
            print(json.dumps(line), flush=True)
    print(json.dumps({"runs": number, "kills": kills, "seed": given.seed, "runs_with_a_loss": failures}))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
