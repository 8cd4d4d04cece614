"""Writes docs/metrics.md out of grpo_gsm8k/tracking/metrics.py: python -m scripts.metrics_reference"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from grpo_gsm8k.tracking.metrics import METRICS, PREFIXES, UNITS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "metrics.md"

HEAD = """\
# Metrics

<!-- Written by `make docs-reference` out of grpo_gsm8k/tracking/metrics.py: change that, not this page. -->

`metrics.jsonl` of a run folder has one object per policy update, with its number under `step`, and one per validation,
with the number of updates that its weights had under `val/version`. A key is there if it means something for the run:
no KL without a reference, no value loss without a critic. W&B gets the same keys. A name that is not listed here is
refused, so that one name has one definition in every run. What `policy_gradient.regression_suite` measures is in
`regression.json`, and in W&B as `regression/<task>/<metric>` over `regression/version`; its units are lm-eval's.

A metric without a unit is a plain number: a count, a ratio, a reward, a coefficient.
"""
KINDS = {
    "train": "What was learned",
    "rollout": "What was generated and trained on",
    "sync": "Between engine and learner",
    "time": "Where the time went",
    "val": "Validation",
}


def reference() -> str:
    """The whole page."""
    names = {**METRICS, **{f"{prefix}<part>": meaning for prefix, meaning in PREFIXES.items()}}
    order = [name.partition("/")[0] for name in names]
    by_kind = sorted(names, key=lambda name: order.index(name.partition("/")[0]))
    parts = [HEAD]
    for kind, members in groupby(by_kind, lambda name: name.partition("/")[0]):
        lines = [f"## {KINDS.get(kind, kind)}", "", "| key | unit | meaning |", "|---|---|---|"]
        lines += [_row(name, names[name]) for name in members]
        parts.append("\n".join([*lines, ""]))
    return "\n".join(parts)


def _row(name: str, text: str) -> str:
    meaning, _, unit = text.rpartition(", ")
    if unit not in UNITS:
        meaning, unit = text, ""
    return f"| `{name}` | {unit} | {meaning.replace('|', '&#124;')} |"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
