"""Example machines, and model shapes from `config.json`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from grpo_gsm8k.preflight.machine import Gpu, Machine
from grpo_gsm8k.preflight.parameters import ModelShape, from_config

QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}
QWEN_3B = {
    **QWEN,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
}
QWEN_1_5B = {
    **QWEN,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
}
LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}
H100 = Gpu("NVIDIA H100 80GB HBM3", 79.6, 79.1)
MACHINE = Machine(
    python="3.12.4",
    torch="2.13.0",
    cuda="13.0",
    driver="580.65",
    vllm="0.32.0",
    gpus=(H100, H100),
    links="NVLink (NV18)",
    shm_gib=64.0,
    shm_free_gib=63.0,
    disk_free_gib=500.0,
    ram_gib=256.0,
    ram_free_gib=200.0,
    threads=32,
    hub="reachable",
    wandb_problem="",
    keys=frozenset({"HF_TOKEN", "DEEPSEEK_API_KEY"}),
)
CPU = replace(MACHINE, gpus=(), cuda=None, driver=None, links="", ram_gib=16.0, ram_free_gib=12.0, threads=2)


def folder_with(config: dict[str, object], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def qwen_3b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_with(QWEN_3B, tmp_path_factory.mktemp("qwen") / "3b")


@pytest.fixture(scope="session")
def shape_3b(qwen_3b: Path) -> ModelShape:
    return from_config(qwen_3b)


@pytest.fixture(scope="session")
def shape_1_5b(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    return from_config(folder_with(QWEN_1_5B, tmp_path_factory.mktemp("qwen") / "1_5b"))


@pytest.fixture(scope="session")
def shape_8b(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    return from_config(folder_with(LLAMA_8B, tmp_path_factory.mktemp("llama") / "8b"))
