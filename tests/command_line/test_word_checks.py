"""Words that Hydra ignores or fails on with a traceback are refused with one line that names the fix."""

from __future__ import annotations

import pytest

from cli import load_config, main
from grpo_gsm8k.command_line.word_checks import groups
from grpo_gsm8k.errors import UserError

DATA = "command=data"


@pytest.mark.parametrize("group", [group for group in groups() if group != "recipe"])
@pytest.mark.parametrize("value", ["null", "", "[a,b]", "{}"])
def test_a_group_has_one_name(group: str, value: str) -> None:
    with pytest.raises(UserError, match=f"give {group} one name: "):
        load_config([DATA, f"{group}={value}"])


@pytest.mark.parametrize(
    ("word", "needle"),
    [
        ("~preset", "use preset=NAME"),
        ("+preset=cpu_demo", "leave out the plus sign"),
        ("++preset=cpu_demo", "leave out the plus sign"),
        ("preset@_global_=cpu_demo", "use preset=NAME"),
        ("preset={a: 1}", "give preset one name"),
        ("recipe={a: 1}", "give recipe one name"),
        ("data={val_sise: 3}", "data.val_sise: unknown key; did you mean data.val_size?"),
        ("learner={lora: {rnk: 1}}", "did you mean learner.lora.rank?"),
        ("learner.lora={rnk: 1}", "did you mean learner.lora.rank?"),
        ("hydra.run.dir=x", "settings of Hydra have no effect"),
        ("+hydra.x=1", "settings of Hydra have no effect"),
        ("hydra/launcher=submitit_slurm", "settings of Hydra have no effect"),
        ("=3", "not of the form key=value"),
        ("seed=0,1", "-m"),
    ],
)
def test_refused_with_one_line(word: str, needle: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([DATA, word]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert needle in line


def test_a_map_sets_keys_of_its_section() -> None:
    assert load_config([DATA, "data={val_size: 3, train_size: 9}"]).data.val_size == 3
    assert load_config([DATA, "learner={lora: {rank: 3}}"]).learner.lora.rank == 3
    assert load_config([DATA, "recipe=null"]).recipe is None
