"""The embedded model: a tiny Qwen2 with a character tokenizer that this project trained itself.

It exists so that the whole loop runs on two CPU cores without a network. `MODEL_FOLDER` is a plain Hugging Face
folder; `python -m grpo_gsm8k.tiny.train` makes it again.
"""

from __future__ import annotations

from pathlib import Path

MODEL_FOLDER = Path(__file__).resolve().parent / "model"
