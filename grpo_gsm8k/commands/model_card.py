"""The model card of an uploaded model, checked by huggingface_hub's own parser before anything is uploaded.

It has no local paths, user or host names: its facts are chosen one by one, and secrets are replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import huggingface_hub
import yaml
from huggingface_hub import ModelCardData
from huggingface_hub.utils._validators import validate_repo_id

from grpo_gsm8k.commands import card_results, card_text
from grpo_gsm8k.commands.base_model import license_of
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.tracking.method import training_method
from grpo_gsm8k.tracking.redaction import redact

if TYPE_CHECKING:
    from grpo_gsm8k.commands.upload import Upload


def model_card(upload: Upload) -> str:
    """Return the checked card. Raises UserError for values that a card must not have."""
    validation = card_results.validation_of(upload.run, upload.step, upload.trained)
    results = [*([validation] if validation else []), *card_results.evaluations(upload.artifacts, upload.weights)]
    data = _metadata(upload, results)
    text = f"---\n{data.to_yaml()}\n---\n\n{card_text.body(upload, results)}"
    return _checked(redact(text), data)


def _metadata(upload: Upload, results: list[card_results.CardResult]) -> ModelCardData:
    trained, origin = upload.trained, upload.origin
    granted = {"license": upload.license} if upload.license else license_of(origin)
    method = training_method(trained)
    tags = [method.replace("_", "-"), *(stage.method.replace("_", "-") for stage in origin.stages if stage.step)]
    kind = [] if trained.command == "sft" else ["reinforcement-learning"]
    entries: dict[str, Any] = {
        "base_model": origin.hub_id,
        "base_model_relation": _relation(upload) if origin.hub_id else None,
        "library_name": "peft" if upload.form == "adapter" else "transformers",
        "pipeline_tag": card_results.TASK,
        "datasets": card_text.hub_datasets(upload),
        "language": [str(trained.prompt.locale)],
        "tags": [*tags, *kind, "math"],
        **granted,
    }
    if results:
        entries |= {"model_name": upload.repo_id.partition("/")[2], "metrics": ["accuracy"]}
        entries["eval_results"] = [result.as_eval_result() for result in results]
    return ModelCardData(**{name: value for name, value in entries.items() if value})


def _relation(upload: Upload) -> str:
    return "adapter" if upload.form == "adapter" else "finetune"


def _checked(text: str, data: ModelCardData) -> str:
    """Return `text` if huggingface_hub reads from it what it was made from, and its ids are valid hub ids."""
    try:
        card = huggingface_hub.ModelCard(text)
        base, datasets = card.data.get("base_model"), card.data.get("datasets", [])
        for repo_id in [*([base] if base else []), *datasets]:
            validate_repo_id(repo_id)
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"push: the model card is not valid ({reason}): check push.license and the run's data"
        ) from None
    if card.data.to_dict() != data.to_dict():
        raise UserError("push: the model card's metadata contain a secret or are not plain YAML: check push.license")
    return text
