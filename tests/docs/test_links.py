"""Links of README.md and docs/ to files and headings of this repository are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES

_CODE = re.compile(r"^ *```.*?^ *``` *$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), f"{page.name} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors(file), f"{page.name} links to {target}: {file.name} has no such heading"


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings, as GitHub and MkDocs generate them."""
    text = _CODE.sub(
        lambda found: found[0].strip("`") if "\n" not in found[0] else "", page.read_text(encoding="utf-8")
    )
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
