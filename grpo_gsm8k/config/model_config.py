"""The section `model`: the start model."""

from __future__ import annotations

from typing import Literal

from grpo_gsm8k.config.fields import Section


class ModelSection(Section):
    """The start model. `path`: hub id, local folder, `embedded:tiny`, `wheel:smollm2_135m` or `run:latest:sft`."""

    path: str
    revision: str | None
    init: Literal["pretrained", "random"]
