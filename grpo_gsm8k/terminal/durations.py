"""Durations and amounts of money as text."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Format seconds: `2 h 05 min`, `3 min 26 s`, `12 s`; with one decimal below ten seconds."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def dollars(usd: float) -> str:
    """Format an amount; below one cent it keeps its first digits: `$1.25`, `$0.0031`."""
    return f"${usd:.2f}" if usd >= 0.01 or usd <= 0 else f"${usd:.2g}"
