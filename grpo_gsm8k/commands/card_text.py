"""The text of a model card: how the model was trained and measured, and how it is loaded."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.commands.card_results import dataset_name, validations
from grpo_gsm8k.files.json_lines import read_json
from grpo_gsm8k.orchestrator.resume import listed_files
from grpo_gsm8k.tracking.manifest import last_inputs, read_manifest
from grpo_gsm8k.tracking.method import method_title, training_method

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.commands.card_results import CardResult
    from grpo_gsm8k.commands.upload import Upload
    from grpo_gsm8k.config import Config, SftConfig

OWN_ANSWERS = "the worked solutions of the data set"
TEACHER = "solutions of a teacher model to problems of the data set"
_TUNING = {
    "sft": "supervised fine-tuning (SFT)",
    "dpo": "direct preference optimization (DPO)",
    "ipo": "identity preference optimization (IPO)",
}
Row = tuple[str, str]


def body(upload: Upload, results: Sequence[CardResult]) -> str:
    """Return the Markdown below the front matter."""
    return "\n".join(
        [
            f"# {upload.repo_id.rpartition('/')[2]}",
            "",
            _summary(upload),
            "",
            *_section("Training", ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in _facts(upload))]),
            *(_section("Results of this checkpoint", _results(results)) if results else []),
            *(_section("Validations of the run", _history(upload)) if validations(upload.run) else []),
            *_section("Use", _usage(upload)),
        ]
    )


def hub_datasets(upload: Upload) -> list[str]:
    """Return the hub ids of the data sets that the run was trained on; empty if they are not on the hub or unknown."""
    if upload.trained.data.source != "hub" or _texts(upload) not in (None, OWN_ANSWERS, TEACHER):
        return []
    return [upload.trained.data.hub_id]


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _summary(upload: Upload) -> str:
    method, origin = training_method(upload.trained), upload.origin
    how = _TUNING.get(method, f"a policy-gradient method ({method_title(method)})")
    earlier = "".join(
        f", after {method_title(stage.method)}" + ("" if stage.step is None else f" of {stage.step} updates")
        for stage in origin.stages
    )
    kind = {
        "plain": "All weights",
        "adapter": "A LoRA adapter",
        "merged": "A LoRA adapter, merged into its base,",
    }[upload.form]
    was = "were" if upload.form == "plain" else "was"
    return f"{kind} {was} trained with {how}{earlier}. The base model is {origin.words}."


def _facts(upload: Upload) -> list[Row]:
    config, manifest = upload.trained, read_manifest(upload.run) or {}
    rows = _fine_tuning(upload) if config.command == "sft" else _policy_gradient(config)
    lora = config.learner.lora
    if lora.enabled:
        base = " on a base in 4 bits (NF4)" if config.learner.quantization == "nf4" else ""
        rows.append(("adapter", f"LoRA of rank {lora.rank}, alpha {lora.alpha}{base}"))
    rows += [("updates", f"{upload.step} of {_planned(upload) or 'an unknown number'}"), ("seed", f"{config.seed}")]
    git = manifest.get("git") or {}
    if git.get("sha"):
        rows.append(("code", f"commit {git['sha']}" + " with local changes" * bool(git.get("dirty"))))
    machine = manifest.get("machine") or {}
    gpus = [str(gpu).partition(",")[0] for gpu in machine.get("gpus") or []]
    if hardware := gpus or [str(machine[key]) for key in ("cpu",) if key in machine]:
        rows.append(("hardware", ", ".join(f"{hardware.count(name)} x {name}" for name in dict.fromkeys(hardware))))
    return rows


def _fine_tuning(upload: Upload) -> list[Row]:
    sft, texts = upload.trained.sft, _texts(upload)
    return [
        ("method", _TUNING[training_method(upload.trained)]),
        *([("beta", f"{sft.dpo.beta:g}")] if sft.loss == "dpo" else []),
        ("texts", texts or "not recorded"),
        *([("data set", _data(upload.trained))] if texts in (OWN_ANSWERS, TEACHER) else []),
        ("learning rate", f"{sft.lr:g}"),
        _per_update(sft),
        ("epochs", f"{sft.epochs}"),
    ]


def _per_update(sft: SftConfig) -> Row:
    if sft.min_tokens_per_update is not None:
        return "tokens per update", f"at least {sft.min_tokens_per_update}"
    return "pairs per update" if sft.loss == "dpo" else "examples per update", f"{sft.batch_size}"


def _policy_gradient(config: Config) -> list[Row]:
    pg = config.policy_gradient
    return [
        ("method", f"{method_title(training_method(config))}: loss `{pg.loss_type}`, advantage `{pg.advantage_name}`"),
        ("data set", _data(config)),
        ("learning rate", f"{config.learner.lr:g}"),
        ("completions", f"{pg.group_size} per prompt, {pg.episodes_per_update} per update"),
        ("sampling", f"temperature {pg.temperature:g}, top_p {pg.top_p:g}, at most {pg.max_new_tokens} tokens"),
        ("KL penalty", f"{pg.kl.coef:g}" if pg.kl.coef else "no"),
        ("reward", ", ".join(f"{weight:g} x {name}" for name, weight in pg.rewards.items())),
    ]


def _data(config: Config) -> str:
    at = f" at {config.data.revision}" if config.data.source == "hub" else ""
    return dataset_name(config.data) + at


def _texts(upload: Upload) -> str | None:
    """Return what a fine-tuning run was trained on; None for other runs, and if its token folder was changed since."""
    config = upload.trained
    file = upload.artifacts / config.preprocess.folder / "manifest.json"
    if config.command != "sft":
        return None
    if not file.is_file() or listed_files(file) != last_inputs(upload.run).get("preprocessed texts"):
        return "not recorded"
    source = str(read_json(file).get("made", {}).get("source"))
    if source == "answers":
        return OWN_ANSWERS
    if PurePath(source).parts[-2:] in [(config.traces.folder, name) for name in ("train.jsonl", "pairs.jsonl")]:
        return TEACHER
    return "pairs of responses from a file" if config.sft.loss == "dpo" else "prompts and responses from a file"


def _planned(upload: Upload) -> int | None:
    if upload.trained.command == "policy_gradient":
        return upload.trained.policy_gradient.updates
    summary = read_json(upload.run.summary_json) if upload.run.summary_json.is_file() else {}
    total = summary.get("total_steps")
    return total if isinstance(total, int) else None


def _results(results: Sequence[CardResult]) -> list[str]:
    rows = [
        f"| {r.dataset['name']} | {r.part} | {r.metric} | {_percent(r.value)} | {_interval(r.low, r.high)} "
        f"| {', '.join(f'{name} {value}' for name, value in r.conditions.items())} |"
        for r in results
    ]
    return ["| data set | part | metric | value | 95 % interval | measured with |", "|---|---|---|---|---|---|", *rows]


def _history(upload: Upload) -> list[str]:
    rows = [
        f"| {row['version']} | {_percent(row['accuracy'])} "
        f"| {_interval(row.get('accuracy_ci_low'), row.get('accuracy_ci_high'))} | {row.get('n', 0):.0f} |"
        for row in validations(upload.run)
    ]
    head = "Greedy accuracy on problems held out from training, with 95 % bootstrap intervals:"
    return [head, "", "| updates | accuracy | interval | problems |", "|---|---|---|---|", *rows]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _interval(low: float | None, high: float | None) -> str:
    return "not measured" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f} %"


def _usage(upload: Upload) -> list[str]:
    prompt: Any = upload.trained.prompt
    if prompt.chat:
        system = f", after the system message\n\n{_fenced(prompt.system)}" if prompt.system else ""
        asked = f"The model was trained with its chat template{system}, and with this user message:"
    else:
        asked = "The model was trained with this prompt, without a chat template:"
    return [asked, "", _fenced(prompt.text), "", *_loading(upload)]


def _fenced(text: str, language: str = "") -> str:
    fence = "`" * 3
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _loading(upload: Upload) -> list[str]:
    repo, base = upload.repo_id, upload.origin.hub_id
    if upload.form != "adapter":
        code = f"""from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = AutoModelForCausalLM.from_pretrained("{repo}")"""
        engine = f'from vllm import LLM\n\nengine = LLM("{repo}")'
        return ["With transformers:", "", _fenced(code, "python"), "", "With vLLM:", "", _fenced(engine, "python")]
    revision = f', revision="{upload.origin.commit}"' if upload.origin.commit else ""
    folder = f'"{base}"{revision}' if base else "BASE_FOLDER"
    code = f"""from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}")
base = AutoModelForCausalLM.from_pretrained({folder})
model = PeftModel.from_pretrained(base, "{repo}")"""
    engine = f"""from huggingface_hub import snapshot_download
from vllm import LLM
from vllm.lora.request import LoRARequest

engine = LLM({folder}, enable_lora=True, max_lora_rank={upload.trained.learner.lora.rank})
adapter = LoRARequest("adapter", 1, snapshot_download("{repo}"))"""
    needs = [] if base else [f"`BASE_FOLDER` is a folder with the base: {upload.origin.words}.", ""]
    return [*needs, "With peft:", "", _fenced(code, "python"), "", "With vLLM:", "", _fenced(engine, "python")]
