from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli import load_config
from grpo_gsm8k.data.prepare import load_split, prepare_data
from grpo_gsm8k.data.reasoning import import_reasoning_gym
from grpo_gsm8k.data.sources import load_source, notation_of, rules_of
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.answers import AnswerKind, Locale


def named(name, *arguments):
    """The configuration of a data set by its name."""
    return load_config(["command=data", f"data={name}", *arguments])


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


def test_hub_rows_are_named_by_their_place(snapshot, data_config):
    columns = {"question": "text"}
    with pytest.raises(UserError, match=r"^openai/gsm8k/main/train row 1: no column 'text'.*: question, answer$"):
        load_source(data_config(source="hub", columns=columns))


def test_hub_refuses_what_is_not_pinned(data_config):
    with pytest.raises(UserError, match=r"data\.revision=main is not a fixed commit"):
        load_source(data_config(source="hub", revision="main"))
    with pytest.raises(UserError, match=r"data\.hub_id=\.\./x is not a hub id"):
        load_source(data_config(source="hub", hub_id="../x"))


def test_hub_unreachable_and_not_cached(tmp_path, monkeypatch, data_config):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(UserError, match=r"neither reachable nor cached.*data=jsonl data\.train_path=FILE"):
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


def math_rows(split):
    level = {"level": "Level 1", "type": "Algebra"}
    return [
        {"problem": f"{split} half?", **level, "solution": r"So $\boxed{\frac{1}{2}}$."},
        {"problem": f"{split} pair?", **level, "solution": r"$\boxed{(1,2)}$"},
    ]


def numina_row(question, answer, question_type):
    valid = {"problem_is_valid": "Yes", "solution_is_valid": "Yes"}
    return {"problem": question, "solution": "s", "answer": answer, "question_type": question_type, **valid}


def svamp_row(split):
    return {"ID": f"{split}-1", "Body": "He had 2.", "Question": f"And {split}?", "Answer": "145.0", "Type": "Sum"}


DAPO_ROW = {
    "data_source": "math_dapo",
    "prompt": [{"role": "user", "content": "Solve this. What is 30 + 4?"}],
    "reward_model": {"ground_truth": "34", "style": "rule-lighteval/MATH_v2"},
    "extra_info": {"index": "9a9b"},
}
# Rows with the columns of the real data sets, by split, and the golds of the first configuration's train problems.
NAMED = {
    "math": ({split: math_rows(split) for split in ("train", "test")}, [r"\frac{1}{2}", "(1,2)"]),
    "svamp": ({split: [svamp_row(split)] for split in ("train", "test")}, ["145"]),
    "asdiv": (
        {"validation": [{"body": "9 apples.", "question": f"{i} red?", "answer": f"{i} (apples)"} for i in (7, 9)]},
        ["7", "9"],
    ),
    "numina_1.5": (
        {"train": [numina_row("a?", "x^2", "math-word-problem"), numina_row("b?", "proof", "proof")]},
        ["x^2"],
    ),
    "dapo_math_17k": ({"train": [DAPO_ROW] * 3}, ["34"]),
}


@pytest.mark.parametrize("name", NAMED)
def test_named_data_sets(tmp_path, monkeypatch, name):
    splits, golds = NAMED[name]
    kind = AnswerKind.EXPRESSION if name in ("math", "numina_1.5") else AnswerKind.NUMBER
    config = named(name, f"prompt.answer_kind={kind}").data
    names = config.name if isinstance(config.name, list) else [config.name]
    for part in names:
        for split, items in splits.items():
            folder = tmp_path / (part or "data")
            folder.mkdir(exist_ok=True)
            distinct = [{**item, "problem": f"{part} {item['problem']}"} if len(names) > 1 else item for item in items]
            pq.write_table(pa.Table.from_pylist(distinct), folder / f"{split}-00000-of-00001.parquet")
    card = "".join(
        f"- config_name: {part or 'default'}\n  data_files:\n"
        + "".join(f"  - {{split: {split}, path: {part or 'data'}/{split}-*}}\n" for split in splits)
        for part in names
    )
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{card}---\n")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    source = load_source(config, rules_of(config, notation_of(config, Locale.EN), kind))
    assert [problem.gold for problem in source.train] == golds * len(names)
    assert (source.test is None) == (config.test_split is None)


def test_a_set_for_evaluation_has_no_train_problems(tmp_path, monkeypatch):
    row = {"problem": "?", "solution": "s", "answer": "(3, 4)", "unique_id": "test/1.json", "level": 2}
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    config = named("math500", "prompt.answer_kind=expression").data
    folder = prepare_data(config, tmp_path / "artifacts", kind=AnswerKind.EXPRESSION)
    assert (folder.train, folder.val, folder.test) == (0, 0, 1)
    (problem,) = load_split(folder, "test")
    assert (problem.id, problem.gold, problem.extra) == ("test/1.json", "(3, 4)", {"level": 2})
    with pytest.raises(UserError, match=r"data\.folder=math500 has no train split, so it can only be evaluated"):
        named("math500", "command=sft", "prompt.answer_kind=expression")


def test_a_set_that_is_not_pinned_is_refused():
    with pytest.raises(UserError, match=r"data\.revision is not set: pin .* to a commit, data\.revision=HASH"):
        load_source(named("asdiv", "data.revision=null").data)


def test_a_set_of_expressions_needs_their_kind():
    with pytest.raises(UserError, match=r"data\.folder=math are of the kind expression: set prompt\.answer_kind="):
        named("math")
    assert named("math", "data.answer_kind=null").data.answer_kind is None
