from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from grpo_gsm8k.config import DataConfig
from grpo_gsm8k.data.prepare import ensure, load_split, prepare_data
from grpo_gsm8k.data.problems import read_problems
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.aside import written_aside
from grpo_gsm8k.grading.answers import AnswerKind

CONF = Path(__file__).resolve().parents[2] / "conf" / "data"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def config(tmp_path, rows, data_config):
    """Ten train and three test problems in JSONL files."""
    train = rows(tmp_path / "train.jsonl", [{"question": f"{i}+0?", "answer": f"#### {i}"} for i in range(10)])
    test = rows(tmp_path / "test.jsonl", [{"question": f"{i}+1?", "answer": f"#### {i + 1}"} for i in range(3)])
    return data_config(train_path=train, test_path=test)


@pytest.fixture
def artifacts(tmp_path):
    return tmp_path / "artifacts"


def test_real_gsm8k(gsm8k, tmp_path, data_config):
    config = data_config(train_path=gsm8k / "train.jsonl", test_path=gsm8k / "test.jsonl", val_size=512)
    folder = prepare_data(config, tmp_path)
    assert (folder.train, folder.val, folder.test) == (6961, 512, 1319)
    splits = {name: load_split(folder, name) for name in ("train", "val", "test")}
    for field in ("id", "question"):
        values = [getattr(problem, field) for problems in splits.values() for problem in problems]
        assert len(set(values)) == len(values) == 6961 + 512 + 1319
    original = read_problems(gsm8k / "train.jsonl", "train")
    assert sorted(splits["train"] + splits["val"], key=lambda problem: problem.id) == original
    first = contents(folder.path)
    assert contents(prepare_data(config, tmp_path).path) == first
    assert contents(prepare_data(config, tmp_path / "elsewhere").path) == first
    assert ensure(config, tmp_path) == folder


def test_the_split_depends_on_the_seed_alone(config, artifacts):
    val = load_split(prepare_data(config, artifacts), "val")
    # Pinned: if this list changes, the train split contains problems that earlier runs validated on.
    assert [problem.id for problem in val] == PINNED
    other = load_split(prepare_data(config.model_copy(update={"seed": 1}), artifacts), "val")
    assert [problem.id for problem in other] != PINNED


PINNED = ["train-00000", "train-00007"]


def test_manifest(config, artifacts):
    folder = prepare_data(config, artifacts)
    manifest = json.loads((folder.path / "manifest.json").read_text())
    assert manifest["config"] == {"source": "jsonl", "val_size": 2, "seed": 0, "locale": "en"}
    assert manifest["files"]["val"]["count"] == folder.val == 2
    assert set(manifest["sources"]["train"]) == {"path", "sha256"}
    assert sorted(contents(folder.path)) == ["manifest.json", "test.jsonl", "train.jsonl", "val.jsonl"]
    assert os.listdir(artifacts) == ["set"]


def test_ensure_prepares_once(config, artifacts):
    folder = ensure(config, artifacts)
    stamp = folder.path.stat().st_mtime_ns
    assert ensure(config, artifacts) == folder
    assert folder.path.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(("key", "value"), [("val_size", 3), ("seed", 5)])
def test_ensure_refuses_other_settings(config, artifacts, key, value):
    ensure(config, artifacts)
    other = config.model_copy(update={key: value})
    with pytest.raises(UserError, match=rf"data\.{key}=.* now data\.{key}={value}: run command=data"):
        ensure(other, artifacts)
    prepare_data(other, artifacts)
    ensure(other, artifacts)


def test_ensure_refuses_other_generator_settings(data_config, artifacts):
    config = data_config(source="reasoning_gym", name="chain_sum", train_size=9, params={"max_terms": 3})
    ensure(config, artifacts)
    ensure(config.model_copy(update={"hub_id": "has/no-effect"}), artifacts)
    with pytest.raises(UserError, match=r"data\.params="):
        ensure(config.model_copy(update={"params": {"max_terms": 4}}), artifacts)
    with pytest.raises(UserError, match=r"data\.name=|data\.hub_id=|data\.source="):
        ensure(config.model_copy(update={"source": "hub"}), artifacts)


def test_ensure_refuses_damage(config, artifacts):
    folder = ensure(config, artifacts)
    path = folder.path / "val.jsonl"
    path.write_bytes(path.read_bytes().replace(b"#### ", b"#### 1", 1))
    with pytest.raises(UserError, match=r"val\.jsonl is missing or was changed.*command=data"):
        ensure(config, artifacts)
    path.unlink()
    with pytest.raises(UserError, match=r"val\.jsonl is missing"):
        ensure(config, artifacts)
    prepare_data(config, artifacts)
    ensure(config, artifacts)


def test_ensure_refuses_a_source_that_changed_but_not_one_that_is_gone(config, artifacts, rows):
    ensure(config, artifacts)
    moved = config.train_path.rename(config.train_path.with_name("moved.jsonl"))
    ensure(config, artifacts)
    ensure(config.model_copy(update={"train_path": moved}), artifacts)
    with pytest.raises(UserError, match=r"not prepared from data\.train_path"):
        ensure(config.model_copy(update={"train_path": moved.with_name("other.jsonl")}), artifacts)
    rows(config.train_path, [{"question": "new", "answer": "#### 1"}])
    with pytest.raises(UserError, match=r"not prepared from data\.train_path"):
        ensure(config, artifacts)


def test_a_failed_run_leaves_the_old_folder_alone(config, artifacts, rows):
    before = contents(prepare_data(config, artifacts).path)
    rows(config.train_path, ["{"])
    with pytest.raises(UserError, match=r"train\.jsonl:1: not JSON"):
        prepare_data(config, artifacts)
    assert contents(artifacts / "set") == before
    assert os.listdir(artifacts) == ["set"]


def test_an_error_in_mid_write_leaves_nothing(tmp_path):
    target = tmp_path / "set"

    def write() -> None:
        with written_aside(target) as folder:
            (folder / "half").write_text("x")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_somebody_else_is_never_replaced(config, artifacts):
    (artifacts / "set").mkdir(parents=True)
    (artifacts / "set" / "thesis.txt").write_text("x")
    for command in (prepare_data, ensure):
        with pytest.raises(UserError, match=r"set has no manifest\.json.*data\.folder=NAME"):
            command(config, artifacts)
    assert contents(artifacts / "set") == {"thesis.txt": b"x"}
    (artifacts / "set" / "thesis.txt").unlink()
    (artifacts / "set").rmdir()
    prepare_data(config, artifacts)
    (artifacts / "set" / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"notes\.txt, which would be deleted"):
        prepare_data(config, artifacts)


@pytest.mark.parametrize("command", [prepare_data, ensure])
def test_a_symbolic_link_is_not_followed(config, artifacts, tmp_path, command):
    outside = tmp_path / "outside"
    prepare_data(config, outside)
    before = contents(outside / "set")
    artifacts.mkdir()
    (artifacts / "set").symlink_to(outside / "set")
    with pytest.raises(UserError, match="is a link"):
        command(config.model_copy(update={"seed": 3}), artifacts)
    assert contents(outside / "set") == before


def test_train_and_test_must_not_share_a_question_or_an_id(config, artifacts, rows):
    rows(config.test_path, [{"question": " 3+0? ", "answer": "#### 3"}])
    with pytest.raises(UserError, match="test-00000 asks the same question as train problem train-00003"):
        prepare_data(config, artifacts)
    rows(config.test_path, [{"question": "new?", "answer": "#### 3", "id": "train-00004"}])
    with pytest.raises(UserError, match="id train-00004 occurs in both train and test"):
        prepare_data(config, artifacts)


def test_a_repeated_question_is_never_held_out(config, artifacts, rows):
    twins = [{"question": f"{i % 5}?", "answer": f"#### {i % 5}"} for i in range(10)]
    rows(config.train_path, [*twins, {"question": "x", "answer": "#### 1"}, {"question": "y", "answer": "#### 1"}])
    folder = prepare_data(config, artifacts)
    assert {problem.question for problem in load_split(folder, "val")} == {"x", "y"}
    with pytest.raises(UserError, match=r"data\.val_size=3 .* 12 train problems, 2 of them with a unique question"):
        prepare_data(config.model_copy(update={"val_size": 3}), artifacts)


def test_something_must_be_left_to_train_on(config, artifacts):
    with pytest.raises(UserError, match=r"data\.val_size=10 leaves nothing to train on"):
        prepare_data(config.model_copy(update={"val_size": 10}), artifacts)


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_data_config_is_valid(name):
    overrides = ["train_path=a.jsonl", "test_path=b.jsonl"] if name == "jsonl" else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        values = OmegaConf.to_container(compose(name, overrides=overrides))
    config = DataConfig.model_validate(values)
    assert config.folder == name


def test_the_demo_set(artifacts):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        values = OmegaConf.to_container(compose("chain_sum"))
    folder = prepare_data(DataConfig.model_validate(values), artifacts)
    assert (folder.train, folder.val, folder.test) == (4096 - 512, 512, 512)


def test_a_test_set_is_drawn_from_one_file(tmp_path, rows, data_config):
    path = rows(tmp_path / "one.jsonl", [{"question": f"{i}+0?", "answer": f"#### {i}"} for i in range(542)])
    config = data_config(train_path=path, test_path=None, test_size=100, val_size=42)
    folder = prepare_data(config, tmp_path / "a")
    assert (folder.train, folder.val, folder.test) == (400, 42, 100)
    drawn = [load_split(folder, split) for split in ("train", "val", "test")]
    assert len({problem.id for problems in drawn for problem in problems}) == 542
    share = prepare_data(config.model_copy(update={"test_size": 0.185}), tmp_path / "b")
    assert load_split(share, "test") == drawn[2]
    other = prepare_data(config.model_copy(update={"seed": 1}), tmp_path / "c")
    assert load_split(other, "test") != drawn[2]
    with pytest.raises(UserError, match=r"data\.test_size=542 leaves nothing to train on"):
        prepare_data(config.model_copy(update={"test_size": 542}), tmp_path / "d")


def test_a_folder_for_another_kind_of_answer_is_refused(tmp_path, rows, data_config):
    path = rows(tmp_path / "one.jsonl", [{"question": f"{i}?", "answer": "", "gold": f"x+{i}"} for i in range(9)])
    config = data_config(train_path=path, test_path=None, test_size=2, columns={"answer": "gold"})
    with pytest.raises(UserError, match=r"gold 'x\+0' is not one number"):
        prepare_data(config, tmp_path)
    folder = prepare_data(config, tmp_path, kind=AnswerKind.EXPRESSION)
    assert ensure(config, tmp_path, kind=AnswerKind.EXPRESSION) == folder
    with pytest.raises(UserError, match=r"with prompt\.answer_kind=expression, now prompt\.answer_kind=number"):
        ensure(config, tmp_path)


def test_golds_that_cannot_be_graded_are_refused_or_dropped(tmp_path, rows, data_config):
    golds = ["x+1", "\\frac{1", "2", "(1,2)", "[0,1)", "\\sqrt{2}"]
    path = rows(tmp_path / "one.jsonl", [{"question": f"{i}?", "gold": gold} for i, gold in enumerate(golds)])
    config = data_config(train_path=path, test_path=None, test_size=1, val_size=1)
    with pytest.raises(UserError, match=r"problem train-00001: gold .* is not an expression .*data\.invalid=drop"):
        prepare_data(config, tmp_path, kind=AnswerKind.EXPRESSION)
    folder = prepare_data(config.model_copy(update={"invalid": "drop"}), tmp_path, kind=AnswerKind.EXPRESSION)
    assert folder.train + folder.val + folder.test == 5
    assert folder.dropped == {"gold answer that cannot be graded": 1}
    assert ensure(config.model_copy(update={"invalid": "drop"}), tmp_path, kind=AnswerKind.EXPRESSION) == folder


def test_choices_are_shown_and_answered_by_letter(tmp_path, rows, data_config):
    items = [{"question": f"{i}?", "choices": ["one", "two"], "gold": gold} for i, gold in enumerate(["(b)", 0, "two"])]
    path = rows(tmp_path / "one.jsonl", items)
    config = data_config(train_path=path, test_path=None, test_size=1, val_size=1)
    folder = prepare_data(config, tmp_path, kind=AnswerKind.CHOICE)
    found = {p.id: p for split in ("train", "val", "test") for p in load_split(folder, split)}
    assert [found[f"train-0000{i}"].gold for i in range(3)] == ["B", "A", "B"]
    assert found["train-00000"].question == "0?\nA) one\nB) two"


@pytest.mark.parametrize("size", [1.0, 2.5, 100.0])
def test_a_test_size_that_could_be_a_number_or_a_share_is_refused(data_config, size):
    with pytest.raises(ValueError, match="give a number of problems, or a share below 1"):
        data_config(test_path=None, test_size=size)
