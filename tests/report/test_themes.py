"""Every recorded metric has a panel, or a reason why it has none."""

from __future__ import annotations

from collections import Counter

from grpo_gsm8k.report.panels import meaning_of
from grpo_gsm8k.report.themes import OMITTED, REWARD_PARTS, THEMES
from grpo_gsm8k.tracking.metrics import METRICS, PREFIXES

PANELS = [panel for members in THEMES.values() for panel in members]
SHOWN = Counter(name for panel in PANELS for name in panel.metrics)


def test_each_metric_has_one_panel_or_a_reason() -> None:
    without = sorted(set(METRICS) - set(SHOWN) - set(OMITTED))
    assert not without, f"add a panel to THEMES, or a reason to OMITTED, in grpo_gsm8k/report/themes.py: {without}"
    assert not (set(SHOWN) | set(OMITTED)) - set(METRICS)
    assert not set(SHOWN) & set(OMITTED)
    assert max(SHOWN.values()) == 1
    assert all(OMITTED.values())
    assert list(PREFIXES) == ["train/reward_"]  # the parts of the reward follow the first panel of this theme
    assert THEMES[REWARD_PARTS][0].names == ("train/reward_mean",)


def test_panels_with_several_lines_name_each() -> None:
    assert all(len(panel.labels) == len(panel.names) for panel in PANELS if len(panel.names) > 1 or panel.bands)
    assert len({panel.names[0] for panel in PANELS}) == len(PANELS)  # the ids of the figures


def test_a_unit_is_separated_from_the_meaning() -> None:
    assert meaning_of("train/entropy") == ("mean entropy of the policy over trained tokens", "nats per token")
    assert meaning_of("train/clip_frac") == ("fraction of trained tokens whose ratio was clipped", "")
    assert meaning_of("train/reward_tidy")[0] == PREFIXES["train/reward_"]
    assert meaning_of("train/kl_coef") == ("coefficient of the KL to the reference", "")
