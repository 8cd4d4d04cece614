"""Model cards: what they claim, checked by huggingface_hub's own parser, and what they must not contain."""

from __future__ import annotations

import getpass
import json
import os
from pathlib import Path

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from cli import load_config
from grpo_gsm8k.commands.model_card import model_card
from grpo_gsm8k.commands.push import _files
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.checksums import digest_weights
from grpo_gsm8k.orchestrator.resume import listed_files
from tests.commands.finished_runs import PG, SFT, make_run, make_upload

HUB = {"base_model": {"hub_id": "owner/base", "commit": "c" * 40}}


def results_of(text: str) -> list[EvalResult]:
    """The results that huggingface_hub reads from the front matter."""
    metadata = yaml.safe_load(text.split("---")[1])
    return model_index_to_eval_results(metadata["model-index"])[1]


def evaluation(artifacts: Path, name: str, folder: Path, digest: dict[str, str]) -> None:
    """An evaluation of `run:latest`, whose weights had `digest`."""
    run = artifacts / "runs" / f"20260102-00000{name}"
    run.mkdir(parents=True)
    config = load_config(["command=eval", "preset=cpu_demo", "data=gsm8k", "eval.split=test"]).model_dump(mode="json")
    (run / "config.yaml").write_text(yaml.safe_dump(config) + "...\n")
    row = {"prompting": "zero_shot", "temperature": 0.0, "samples": 1, "items": 1319, "ci_method": "percentile"}
    score = {"task": "arc", "metric": "acc", "filter": "none", "value": 0.5, "stderr": 0.1, "items": 30}
    summary = {
        "kind": "eval",
        "weights": {"run:latest": digest},
        "results": [{"model": m, "accuracy": 0.7, "ci_low": 0.6, "ci_high": 0.8, **row} for m in ("run:latest", "x/y")],
        "lm_eval": {"scores": [{"model": "run:latest", **score}, {"model": "x/y", **score}]},
    }
    (run / "summary.json").write_text(json.dumps(summary))


def test_a_policy_gradient_card(tmp_path: Path) -> None:
    git, gpu = {"sha": "f" * 40, "dirty": False}, "NVIDIA H100, 81559 MiB, 570.1"
    manifest = {**HUB, "git": git, "machine": {"gpus": [gpu, gpu], "cpu": "x"}}
    words = ("data=gsm8k", "model.path=owner/base", "prompt.locale=tr", "learner.lr=3e-6", "seed=7")
    text = model_card(make_upload(make_run(tmp_path, "1_a", *PG, *words, manifest=manifest), license="mit"))
    data = ModelCard(text).data
    assert (data.base_model, data.base_model_relation, data.license) == ("owner/base", "finetune", "mit")
    assert (data.library_name, data.datasets, data.language) == ("transformers", ["openai/gsm8k"], ["tr"])
    assert data.tags == ["grpo", "reinforcement-learning", "math"]
    for fact in (
        "| learning rate | 3e-06 |",
        "| updates | 3 of ",
        "| seed | 7 |",
        "| code | commit ffff",
        "2 x NVIDIA H100",
    ):
        assert fact in text
    assert 'AutoModelForCausalLM.from_pretrained("me/model")' in text
    assert 'LLM("me/model")' in text
    assert "{question}" in text


def test_the_validation_of_this_checkpoint_is_in_the_index_and_all_are_in_the_table(tmp_path: Path) -> None:
    text = model_card(make_upload(make_run(tmp_path, "1_a", *PG, "data=gsm8k")))
    (found,) = results_of(text)
    assert (found.dataset_type, found.dataset_config, found.dataset_split) == ("openai/gsm8k", "main", "train")
    assert (found.metric_type, found.metric_value) == ("accuracy", 0.5)
    assert found.metric_args["confidence_interval"] == [0.45, 0.55]
    assert found.metric_args["part"] == "held out from training"
    assert "| 0 | 20.0 % | 17.0 to 24.0 % | 512 |" in text


def test_only_evaluations_of_exactly_these_weights_are_listed(tmp_path: Path) -> None:
    run = make_run(tmp_path, "1_a")
    digest = digest_weights(run / "checkpoints" / "step_3" / "model")
    evaluation(tmp_path, "1_other", run, {"model.safetensors": "0" * 32})
    evaluation(tmp_path, "2_same", run, digest)
    _, accuracy, benchmark = results_of(model_card(make_upload(run)))
    assert (accuracy.dataset_type, accuracy.dataset_split) == ("openai/gsm8k", "test")
    assert accuracy.metric_args["confidence_interval"] == [0.6, 0.8]
    assert (benchmark.dataset_type, benchmark.metric_type) == ("arc", "acc")
    assert benchmark.metric_args["confidence_interval"] == pytest.approx([0.304, 0.696], abs=1e-3)


def sft_run(tmp_path: Path, source: str, *more: str) -> Path:
    """A fine-tuning run on a token folder that was made from `source`."""
    words = (*SFT, "data=gsm8k", "sft.lr=2e-5", *more)
    folder = tmp_path / load_config(list(words)).preprocess.folder
    folder.mkdir(parents=True)
    source = source.replace("TRACES", load_config(list(words)).traces.folder)
    (folder / "manifest.json").write_text(json.dumps({"files": {"a": "b"}, "made": {"source": source}}))
    inputs = {"inputs": {"preprocessed texts": listed_files(folder / "manifest.json")}}
    return make_run(tmp_path, "1_sft", *words, manifest=inputs)


@pytest.mark.parametrize(
    ("source", "named", "data_sets"),
    [
        ("answers", "worked solutions of the data set", ["openai/gsm8k"]),
        ("/home/planted/artifacts/TRACES/train.jsonl", "solutions of a teacher model", ["openai/gsm8k"]),
        ("/home/planted/mine.jsonl", "prompts and responses from a file", None),
        ("mine.jsonl", "prompts and responses from a file", None),
    ],
)
def test_a_fine_tuning_card_says_so(tmp_path: Path, source: str, named: str, data_sets: list[str] | None) -> None:
    text = model_card(make_upload(sft_run(tmp_path, source)))
    data = ModelCard(text).data
    assert data.tags == ["sft", "math"]
    assert data.datasets == data_sets
    assert named in text
    assert "| learning rate | 2e-05 |" in text
    for word in ("policy-gradient", "(grpo)", "advantage", "completions", "planted"):
        assert word not in text.lower()


def test_a_card_of_dpo_says_what_was_compared(tmp_path: Path) -> None:
    words = ("sft.loss=dpo", "sft.dpo.beta=0.3", "sft.min_tokens_per_update=null", "sft.batch_size=64")
    text = model_card(make_upload(sft_run(tmp_path, "TRACES/pairs.jsonl", *words)))
    assert ModelCard(text).data.tags == ["dpo", "math"]
    for fact in ("| method | direct preference optimization (DPO) |", "| beta | 0.3 |", "| pairs per update | 64 |"):
        assert fact in text
    assert "solutions of a teacher model" in text
    assert "None" not in text


def test_texts_that_were_made_again_since_are_not_claimed(tmp_path: Path) -> None:
    run = sft_run(tmp_path, "answers")
    (file,) = tmp_path.glob("*/manifest.json")
    file.write_text(json.dumps({"files": {"a": "c"}, "made": {"source": "answers"}}))
    text = model_card(make_upload(run))
    assert "| texts | not recorded |" in text
    assert ModelCard(text).data.datasets is None


def test_a_card_of_an_adapter_shows_how_to_put_it_on_its_base(tmp_path: Path) -> None:
    words = (*PG, "learner=lora", "model.path=owner/base")
    text = model_card(make_upload(make_run(tmp_path, "1_a", *words, adapter=True, manifest=HUB), "adapter"))
    data = ModelCard(text).data
    assert (data.library_name, data.base_model_relation) == ("peft", "adapter")
    assert f'AutoModelForCausalLM.from_pretrained("owner/base", revision="{"c" * 40}")' in text
    assert 'PeftModel.from_pretrained(base, "me/model")' in text
    assert "max_lora_rank=" in text
    merged = ModelCard(model_card(make_upload(tmp_path / "runs" / "20260101-000001_a", "merged"))).data
    assert (merged.library_name, merged.base_model_relation) == ("transformers", "finetune")


def test_nothing_private_is_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_TOKEN", "canary-environment-token")
    home = tmp_path / "planted_home"
    machine = {"platform": "Linux planted-host", "cpu": "EPYC", "gpus": []}
    command = ["/planted/cli.py", "model.path=/planted/base"]
    manifest = {"command_line": command, "machine": machine, "base_model": {"hub_id": None, "commit": None}}
    words = ("data=jsonl", f"data.train_path={home}/a.jsonl", f"data.test_path={home}/b.jsonl", f"model.path={home}/m")
    words += (
        "prompt.chat=true",
        "prompt.system=token canary-environment-token and hf_abcdefghijklmnopqrstuv",
    )
    run = make_run(home, "1_a", *PG, *words, manifest=manifest)
    config = run / "checkpoints" / "step_3" / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "_name_or_path": f"{home}/m"}))
    upload = make_upload(run)
    card = model_card(upload)
    assert "token *** and ***" in card
    sent = {op.path_in_repo: op.path_or_fileobj for op in _files(upload, card)}
    contents = [item if isinstance(item, bytes) else Path(str(item)).read_bytes() for item in sent.values()]
    needles = ["planted", "canary", "hf_abc", str(tmp_path), os.path.expanduser("~") + "/", f"{getpass.getuser()}@"]
    for needle in needles:
        assert not [content for content in contents if needle.encode() in content], needle
    assert "model_type" in json.loads(sent["config.json"])


@pytest.mark.parametrize("value", ["hf_abcdefghijklmnopqrstuvwxyz"])
def test_a_secret_in_the_metadata_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(UserError, match=r"push\.license"):
        model_card(make_upload(make_run(tmp_path, "1_a"), license=value))


@pytest.mark.parametrize("words", [("data.hub_id=not/a/hub/id",), ("data.hub_id=a--b/c..d",)])
def test_an_invalid_id_is_refused_before_an_upload(tmp_path: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="the model card is not valid"):
        model_card(make_upload(make_run(tmp_path, "1_a", *PG, "data=gsm8k", *words)))
