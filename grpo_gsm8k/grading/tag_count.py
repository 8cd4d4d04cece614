r"""Graded format reward: a share for each of four tags that stands in its place exactly once.

The expected text is `<a>\n ... \n</a>\n<b>\n ... \n</b>`, with the answer in the second pair.
"""

from __future__ import annotations

SHARE = 0.125  # per tag, so 0.5 at most: the scale of the GRPO notebooks that this reward comes from


def tag_count(text: str, tags: tuple[str, str], trailing_cost: float) -> float:
    """Return SHARE per tag in place, less `trailing_cost` per character behind the last closing tag.

    The cost is charged once with the second opening tag and once with the last closing tag, as in those notebooks; a
    text that ends right behind the last tag, without a line break, gets one character back.
    """
    first, second = tags
    count = 0.0
    if text.count(f"<{first}>\n") == 1:
        count += SHARE
    if text.count(f"\n</{first}>\n") == 1:
        count += SHARE
    if text.count(f"\n<{second}>\n") == 1:
        count += SHARE
        count -= len(text.split(f"\n</{second}>\n")[-1]) * trailing_cost
    if text.count(f"\n</{second}>") == 1:
        count += SHARE
        count -= (len(text.split(f"\n</{second}>")[-1]) - 1) * trailing_cost
    return count
