"""Kill and stop random processes of runs at random times, and check that nothing is lost: `make soak KILLS=50`.

Each run is a small training run; whenever its orchestrator was killed, it is resumed.
One JSON line per run: what was done to it, what was checked, memory and descriptors. Exit code 1 if something was lost.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import Cli
from tests.soak.checks import lost
from tests.soak.tormented import TASKS, torment


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
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        while kills < given.kills and time.monotonic() - started < given.seconds:
            task = TASKS[number % len(TASKS)]
            cli = Cli(folder / f"run_{number}")
            tormented = torment(cli, task, given.engine, rng, at_most=given.kills - kills)
            problems = lost(tormented)
            kills += len(tormented.faults)
            failures += bool(problems)
            number += 1
            line = {"run": number, "task": task.name, **tormented.as_dict(), "kills_so_far": kills, "lost": problems}
            print(json.dumps(line), flush=True)
    print(json.dumps({"runs": number, "kills": kills, "seed": given.seed, "runs_with_a_loss": failures}))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
