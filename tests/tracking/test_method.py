"""The names of training methods."""

from __future__ import annotations

import pytest

from cli import CONF, load_config
from grpo_gsm8k.tracking.method import method_title, training_method

SETTINGS = sorted(path.stem for path in (CONF / "policy_gradient").glob("*.yaml"))


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_run_is_named_after_its_option(setting: str) -> None:
    config = load_config(["command=policy_gradient", "preset=cpu_demo", f"policy_gradient={setting}"])
    assert training_method(config) == setting


@pytest.mark.parametrize(
    ("words", "name"), [((), "sft"), (("sft.loss=dpo",), "dpo"), (("sft.loss=dpo", "sft.dpo.loss=ipo"), "ipo")]
)
def test_fine_tuning_is_named_after_its_loss(words: tuple[str, ...], name: str) -> None:
    assert training_method(load_config(["command=sft", "preset=cpu_demo", *words])) == name


def test_titles_are_those_of_the_papers() -> None:
    assert [method_title(name) for name in ("grpo", "dr_grpo", "gspo_token")] == ["GRPO", "Dr. GRPO", "GSPO-token"]
    assert len({method_title(name) for name in SETTINGS}) == len(SETTINGS)
