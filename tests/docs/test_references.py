"""The generated pages are current and complete: `make docs-reference` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from grpo_gsm8k.command_line.yaml_comments import flatten, read_conf
from grpo_gsm8k.config import Advantage, LossType
from grpo_gsm8k.tracking.metrics import METRICS
from scripts import config_reference, diagnoses_reference, methods_reference, metrics_reference


@pytest.mark.parametrize(
    "script",
    [config_reference, diagnoses_reference, methods_reference, metrics_reference],
    ids=lambda module: module.PAGE.name,
)
def test_the_page_is_current(script) -> None:
    written = script.PAGE.read_text(encoding="utf-8")
    # not compared in the assert, which would print both pages
    current = written == script.reference()
    assert current, f"docs/{script.PAGE.name} is not current: run `make docs-reference` and commit it"


def test_every_composed_key_is_there_with_its_default() -> None:
    with initialize_config_dir(str(config_reference.CONF), version_base="1.3"):
        composed = OmegaConf.to_container(compose("config", overrides=["command=data"]), resolve=False)
    lines = [line.split("|") for line in config_reference.PAGE.read_text(encoding="utf-8").splitlines()]
    rows = {cells[1].strip("` "): cells[3].strip() for cells in lines if len(cells) == 6}
    assert rows.pop("command") == "required"
    values = flatten(composed)
    del values["command"]
    maps = ("policy_gradient.rewards.", "data.params.")
    for key, value in values.items():
        if not key.startswith(maps):
            assert rows[key] == config_reference._default(value), key


def test_every_option_and_preset_is_there() -> None:
    page = config_reference.PAGE.read_text(encoding="utf-8")
    for path in config_reference.CONF.glob("*/*.yaml"):
        if path.stem != "default" or len(list(path.parent.glob("*.yaml"))) > 1:
            assert f"{path.parent.name}={path.stem}" in page


def test_every_metric_is_there() -> None:
    page = metrics_reference.PAGE.read_text(encoding="utf-8")
    assert all(f"| `{name}` | " in page for name in METRICS)


def test_every_method_loss_and_advantage_is_there() -> None:
    page = methods_reference.PAGE.read_text(encoding="utf-8")
    options = [path.stem for path in (config_reference.CONF / "policy_gradient").rglob("*.yaml")]
    assert all(f"`{name}`" in page for name in (*options, *get_args(LossType), *get_args(Advantage)))


def test_comments_are_told_from_text_with_a_hash(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(
        "# @package _global_\n# The title,\n# on two lines.\n"
        'defaults: [gsm8k, _self_]\na: "x # y" # of a\nb: hash # "#### 42"\n'
        "c: # of c\n  d: 1 # of d\n  e: {f: 2, g: []} # of e\nh: #\ni: 'no#comment'\n"
    )
    found = read_conf(file)
    assert found.title == "The title, on two lines."
    assert found.bases == ("gsm8k",)
    assert found.values == {"a": "x # y", "b": "hash", "c.d": 1, "c.e.f": 2, "c.e.g": [], "h": None, "i": "no#comment"}
    assert found.comments == {"a": "of a", "b": '"#### 42"', "c": "of c", "c.d": "of d", "c.e": "of e", "h": ""}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "exclusiveMaximum": 9}, "integer ≥ 1, < 9"),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "number or `null`"),
        ({"enum": ["a", "b"], "type": "string"}, "`a`, `b`"),
        ({"type": "string", "pattern": "^(a|<b>)$"}, "text matching <code>^(a&#124;&lt;b&gt;)$</code>"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2}, "list, at least 2: text"),
    ],
)
def test_values_in_words(schema: dict[str, object], words: str) -> None:
    assert config_reference.values_of(schema, config_reference._code) == words
