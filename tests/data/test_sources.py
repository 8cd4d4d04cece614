from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grpo_gsm8k.data.reasoning import import_reasoning_gym
from grpo_gsm8k.data.sources import load_source
from grpo_gsm8k.errors import UserError

CARD = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test-*}
- config_name: socratic
  data_files:
  - {split: train, path: socratic/train-*}
  - {split: test, path: socratic/test-*}
---
"""
DEMO = {"source": "reasoning_gym", "name": "chain_sum"}
PARAMS = {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2}


@pytest.fixture
def snapshot(tmp_path, monkeypatch):
    """A data set's repository in the hub client's cache, with the layout of openai/gsm8k."""
    folder = tmp_path / "snapshot"
    for name in ("main", "socratic"):
        (folder / name).mkdir(parents=True)
        for split, size in (("train", 3), ("test", 2)):
            table = {
                "question": [f"{name} {split} {i}?" for i in range(size)],
                "answer": [f"#### {i},000" for i in range(1, size + 1)],
            }
            blob = tmp_path / "blobs" / f"{name}-{split}"  # the cache links files to blobs without a suffix
            blob.parent.mkdir(exist_ok=True)
            pq.write_table(pa.table(table), blob)
            (folder / name / f"{split}-00000-of-00001.parquet").symlink_to(blob)
    (folder / "README.md").write_text(CARD)
    asked = []

    def snapshot_download(repo_id, **options):
        asked.append((repo_id, options))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return asked


@pytest.mark.parametrize("name", ["main", "socratic"])
def test_hub(snapshot, data_config, name):
    source = load_source(data_config(source="hub", name=name))
    assert [problem.id for problem in source.train] == ["train-00000", "train-00001", "train-00002"]
    assert source.test[1].question == f"{name} test 1?"
    assert source.test[1].gold == "2000"
    [(repo_id, options)] = snapshot
    assert (repo_id, options["repo_type"]) == ("openai/gsm8k", "dataset")
    assert options["revision"] == "e53f048856ff4f594e959d75785d2c2d37b678ee"


def test_hub_refuses_an_unknown_name(snapshot, data_config):
    with pytest.raises(UserError, match=r"openai/gsm8k/nope/train cannot be read.*data\.name"):
        load_source(data_config(source="hub", name="nope"))


def test_hub_refuses_what_is_not_pinned(data_config):
    with pytest.raises(UserError, match=r"data\.revision=main is not a fixed commit"):
        load_source(data_config(source="hub", revision="main"))
    with pytest.raises(UserError, match=r"data\.hub_id=\.\./x is not a hub id"):
        load_source(data_config(source="hub", hub_id="../x"))


def test_hub_unreachable_and_not_cached(tmp_path, monkeypatch, data_config):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(UserError, match=r"neither reachable nor cached.*data\.source=jsonl data\.train_path=FILE"):
        load_source(data_config(source="hub", hub_id="grpo-gsm8k-tests/absent"))
    assert time.monotonic() - started < 30


def test_jsonl(tmp_path, rows, data_config):
    good = {"question": "?", "answer": "#### 1"}
    train = rows(tmp_path / "a.jsonl", [good, {**good, "id": "own"}])
    test = rows(tmp_path / "b.jsonl", [good])
    source = load_source(data_config(train_path=train, test_path=test))
    assert [problem.id for problem in source.train + source.test] == ["train-00000", "own", "test-00000"]
    assert source.files == {"train": train, "test": test}
    rows(test, [])
    with pytest.raises(UserError, match=r"data\.test_path: .*b\.jsonl contains no problem"):
        load_source(data_config(train_path=train, test_path=test))


def test_reasoning_gym_is_seeded_and_never_repeats_a_question(data_config):
    config = data_config(**DEMO, params=PARAMS, train_size=300, test_size=100)
    source = load_source(config)
    assert (len(source.train), len(source.test)) == (300, 100)
    assert len({problem.question for problem in source.train + source.test}) == 400
    assert source.train[17].id == "train-00017"
    assert load_source(config) == source
    assert load_source(data_config(**DEMO, params=PARAMS, train_size=300, test_size=100, seed=1)) != source


def test_reasoning_gym_gold_is_right(data_config):
    source = load_source(data_config(**DEMO, params=PARAMS, train_size=200))
    for problem in source.train:
        terms = problem.question.removesuffix("=").partition(":")[2].replace("- ", "-").replace("+ ", "").split()
        assert int(problem.gold) == sum(int(term) for term in terms)
        *steps, last = problem.answer.split("\n")
        assert last == f"#### {problem.gold}"
        assert steps[-1].endswith(f"={problem.gold}")
        for step in steps:
            left, right = step.split("=")
            total = int(re.match(r"-?\d+", left)[0])
            assert total + int(left.removeprefix(str(total))) == int(right)


def test_gsm_symbolic_works(data_config):
    source = load_source(data_config(source="reasoning_gym", name="gsm_symbolic", train_size=50))
    assert len(source.train) == 50


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "nope"}, "data.name=nope"),
        ({"params": {"bogus": 1}}, "bogus"),
        ({"params": {"size": 1}}, "size"),
        ({"params": {"min_terms": 5, "max_terms": 2}}, "max_terms"),
        ({"params": {"min_terms": "a"}}, "data.params"),
        ({"name": "spell_backward"}, "non-numeric answers"),
        (
            {"params": {"max_terms": 2, "max_digits": 1}, "train_size": 500},
            "about 200",
        ),
    ],
)
def test_reasoning_gym_refuses(data_config, changes, reason):
    with pytest.raises(UserError) as caught:
        load_source(data_config(**DEMO | changes))
    assert reason in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("pycosat") is not None, reason="pycosat is installed here")
def test_the_stand_in_for_pycosat_is_needed_and_goes_away():
    plain = subprocess.run([sys.executable, "-c", "import reasoning_gym"], capture_output=True, text=True, check=False)
    assert "No module named 'pycosat'" in plain.stderr
    assert import_reasoning_gym().create_dataset
    assert "pycosat" not in sys.modules
