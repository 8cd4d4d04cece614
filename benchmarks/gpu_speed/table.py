"""The table of results. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.gpu_speed.case_process import Row
from benchmarks.gpu_speed.cases import Case

HEADER = (
    "| model | kind | sequence length | tokens/step | step time (s) | forward / backward / optimizer (s) "
    "| tokens/s | MFU | tokens/s, prompt per completion | MFU, prompt per completion | peak memory (GiB) |"
)


def markdown(results: Mapping[Case, Row | str], peak_flops: float | None) -> str:
    """Return a Markdown table; `peak_flops` None: the device's peak is unknown, so MFU is left out.

    MFU is the operations of forward and backward passes divided by what the device could do in the time of the whole
    update, optimizer included. It credits each prompt once, since it is computed once for its completions; the columns
    named `prompt per completion` count as a user would who gives every completion its own prompt.
    """
    lines = [HEADER, "|---|---|" + "---:|" * (HEADER.count("|") - 3)]
    for case, row in results.items():
        start = f"| {case.model} | {case.kind} | {case.sequence} |"
        if isinstance(row, str):
            lines.append(f"{start} failed: {row.replace('|', '/')} |" + " |" * (HEADER.count("|") - 5))
            continue
        parts = f"{row.forward_s:.3f} / {row.backward_s:.3f} / {row.optimizer_s:.3f}"
        speeds = [
            f"{tokens / row.update_s:.0f} | {_share(flops / row.update_s, peak_flops)}"
            for tokens, flops in ((row.tokens, row.flops), (row.user_tokens, row.user_flops))
        ]
        memory = f"{row.peak_mb / 1024:.2f}"
        lines.append(f"{start} {row.tokens} | {row.update_s:.3f} | {parts} | {' | '.join(speeds)} | {memory} |")
    return "\n".join(lines)


def _share(flops_per_s: float, peak_flops: float | None) -> str:
    return "-" if peak_flops is None else f"{flops_per_s / peak_flops:.1%}"
