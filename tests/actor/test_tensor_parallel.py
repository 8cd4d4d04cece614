"""An engine whose model is divided between two processes, on a CPU: exact, verified in each part, and it ends whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from transformers import Qwen2Config, Qwen2ForCausalLM

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.models import check_tensor_parallel
from tests.conftest import patience

HERE = Path(__file__).parent


def model_folder(folder: Path) -> Path:
    """A random model with four heads and two key-value heads, and with biases."""
    config = Qwen2Config(
        vocab_size=108,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    from grpo_gsm8k.tiny.tokenizer import build_tokenizer

    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.more
def test_an_engine_of_two_processes(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model")
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent.parent), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    process = subprocess.Popen(
        [sys.executable, str(HERE / "tensor_parallel_scenario.py"), str(model), str(tmp_path)], env=environment
    )
    try:
        until = time.monotonic() + patience(300)
        while not (tmp_path / "record.json").exists():
            assert process.poll() is None, "the scenario failed"
            assert time.monotonic() < until
            time.sleep(0.2)
        record: dict[str, Any] = json.loads((tmp_path / "record.json").read_text())
        children = [psutil.Process(pid) for pid in record["children"]]
        workers = [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]
        assert len(workers) == 2
        for worker in workers:
            worker.suspend()  # it cannot notice anything by itself
    finally:
        process.kill()
        process.wait()
    assert record["gap"] < 1e-5  # the canary, against Hugging Face in float32
    assert max(record["gaps"]) < 1e-3  # every sampled token
    (first, second), differing = [count for count, _ in record["equal"]], [name for _, name in record["equal"]]
    assert differing == ["", ""]
    tensors = {key.rpartition("[")[0] for key in record["planted"]}
    assert first == second == len(tensors) + 1  # the tied embedding is compared twice
    for key, found in record["planted"].items():
        assert key.rpartition("[")[0] in found, f"{key}: no process has noticed"
    _, left = psutil.wait_procs(children, patience(60))
    assert not left  # the engine was killed, and with it its processes


def test_a_number_that_does_not_divide_the_heads_is_refused(tmp_path: Path) -> None:
    heads = {"num_attention_heads": 12, "num_key_value_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(heads))
    check_tensor_parallel(tmp_path, 2)
    with pytest.raises(
        UserError, match=r"actor\.tensor_parallel=4 does not divide the 2 num_key_value_heads .*\[1, 2\]"
    ):
        check_tensor_parallel(tmp_path, 4)
