"""Soft penalty for over-long completions."""


def overlong_penalty(length: int, limit: int, buffer: int) -> float:
    """0 up to `limit - buffer` tokens, then linearly down to -1 at `limit` (DAPO, arXiv:2503.14476)."""
    return -min(max(length - (limit - buffer), 0) / buffer, 1.0)
