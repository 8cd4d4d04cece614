"""The embedded model: a tiny Qwen2 with a character tokenizer, trained by this project.

With it, the whole training loop runs on two CPU cores without a network. `MODEL_FOLDER` is a plain Hugging Face
folder; `python -m grpo_gsm8k.tiny.train` reproduces it.
"""

from __future__ import annotations

from pathlib import Path

MODEL_FOLDER = Path(__file__).resolve().parent / "model"
