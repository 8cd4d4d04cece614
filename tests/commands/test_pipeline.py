"""Stages run in order as separate commands; the first that fails ends the pipeline with its exit code."""

from __future__ import annotations

import pytest

from grpo_gsm8k.errors import UserError
from tests.conftest import Cli

pytestmark = pytest.mark.slow
SMALL = ("command=pipeline", "preset=cpu_demo", "data.train_size=40", "data.val_size=8", "data.test_size=4")


def test_stages_in_order(cli: Cli) -> None:
    done = cli.run(*SMALL, "pipeline.stages=[['command=data'],['command=preprocess','preprocess.shard_items=3']]")
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("1/2: command=data") < done.stdout.index("2/2: command=preprocess")
    assert len(list((cli.artifacts / "chain_sum_tokens").glob("train-*.parquet"))) == 11


def test_a_failing_stage_ends_the_pipeline(cli: Cli) -> None:
    stages = "pipeline.stages=[['command=data'],['command=sft'],['command=preprocess']]"
    done = cli.run(*SMALL, stages)
    assert done.returncode == 2
    assert "run command=preprocess" in done.stderr
    assert not (cli.artifacts / "chain_sum_tokens").exists()


@pytest.mark.parametrize("stages", ["[]", "[['data']]", "[['command=pipeline']]", "[[]]"])
def test_refused(stages: str) -> None:
    from cli import load_config

    with pytest.raises(UserError, match=r"pipeline\.stages|stage"):
        load_config([*SMALL, f"pipeline.stages={stages}"])
