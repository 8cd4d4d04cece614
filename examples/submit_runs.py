"""One training run per seed, submitted to an executor: `python examples/submit_runs.py 0,1,2 key=value ...`.

The executor needs `submit(function, *arguments)`, and a future with `result()`. That is the interface of
concurrent.futures, used here, and of `submitit.AutoExecutor`, which starts SLURM jobs.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from grpo_gsm8k import train


def submit_runs(executor, seeds, overrides):
    """Return the run folders, in the order of the seeds. Raises the exception of the first run that failed."""
    jobs = [executor.submit(train, [*overrides, f"seed={seed}", f"name=seed_{seed}"]) for seed in seeds]
    return [job.result() for job in jobs]


if __name__ == "__main__":
    # One worker: runs on one machine would compete for its devices.
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as executor:
        for folder in submit_runs(executor, sys.argv[1].split(","), sys.argv[2:]):
            print(folder)
