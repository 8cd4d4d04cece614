"""Environment variables of actors and learners."""

from __future__ import annotations

import pytest

from cli import load_config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.runtime.actor_process import actor_environment
from grpo_gsm8k.runtime.learner_process import ALLOCATOR_KEYS, learner_environment
from grpo_gsm8k.tracking.cpu_allocator import allocator_variables


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", *ALLOCATOR_KEYS):
        monkeypatch.delenv(name, raising=False)


def test_each_engine_sees_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(["command=eval", "actor.device=cuda:1"])
    found = [actor_environment(config, index) for index in range(2)]
    assert [values["CUDA_VISIBLE_DEVICES"] for values in found] == ["1", "2"]
    assert {values["CUDA_DEVICE_ORDER"] for values in found} == {"PCI_BUS_ID"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,MIG-a")
    assert actor_environment(config, 0)["CUDA_VISIBLE_DEVICES"] == "MIG-a"
    with pytest.raises(UserError, match=r"^actor.device=cuda:1 \(engine 1\) needs cuda:2, but"):
        actor_environment(config, 1)
    assert "CUDA_VISIBLE_DEVICES" not in actor_environment(load_config(["command=eval", "actor.device=cpu"]), 0)


def test_the_learners_allocator_is_the_users_if_set(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = load_config(["command=sft"]).learner
    found = learner_environment(learner)
    assert found["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert found["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    assert "PYTORCH_ALLOC_CONF" not in learner_environment(learner)
    cpu = learner_environment(learner.model_copy(update={"device": "cpu"}))
    assert set(cpu) == {"OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", *allocator_variables()}
