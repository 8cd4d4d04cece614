"""How much memory the learner needs, from what its code allocates. Pure functions; all amounts in bytes.

What lives through a run: float32 master weights and gradients (or a frozen base in the compute precision with a
float32 adapter), the optimizer's state, a reference, a critic. What comes and goes: the activations of one
micro-batch, copies of the weights in the compute precision, logits of one chunk of positions. The peak is the largest
of three moments. The factors are the tensors that autograd keeps of Hugging Face's Llama and Qwen blocks; a test counts
them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config, LearnerConfig
    from grpo_gsm8k.preflight.parameters import ModelShape

F32 = 4
ADAMW = 8  # bytes per parameter: two moments
ADAMW_8BIT = 2 * (1 + F32 / 256)  # two moments of a byte, a float32 scale for each block of 256
NF4 = 0.5 + 1 / 64 + F32 / (64 * 256)  # 4 bits, an 8-bit scale for 64 values, a float32 one for 256 of those
TYPICAL_PROMPT = 160  # tokens of a GSM8K question with its template
LONG_PROMPT = 512  # no GSM8K question is longer


@dataclass(frozen=True, slots=True)
class Load:
    """One micro-batch: its tokens, those that are predicted, and completions that share a prompt (0: none does)."""

    tokens: int
    predicted: int
    completions: int
    prompt: int


@dataclass(frozen=True, slots=True)
class LearnerMemory:
    """By what it is for. `lasting` items are there always, the others at their own moments; `host` is offloaded."""

    weights: float
    gradients: float
    optimizer: float
    reference: float
    critic: float
    weight_copies: float
    activations: float
    logits: float
    backward: float
    optimizer_step: float
    host: float

    @property
    def lasting(self) -> float:
        """What is there all the time."""
        return self.weights + self.gradients + self.optimizer + self.reference + self.critic

    @property
    def peak(self) -> float:
        """At the worst moment: the head's passes, a block's backward pass, or the optimizer's step."""
        head = self.activations + self.weight_copies + self.logits
        block = self.activations + self.weight_copies + self.backward
        return self.lasting + max(head, block, self.optimizer_step)


def longest_sequence(config: Config) -> int:
    """Tokens of the longest sequence that is trained on."""
    if config.command == "sft":
        return config.preprocess.max_tokens
    return min(config.actor.max_model_len, config.policy_gradient.max_new_tokens + LONG_PROMPT)


def load_of(config: Config) -> Load:
    """The fullest micro-batch that a run can meet; a sequence beyond the budget gets one of its own."""
    longest = longest_sequence(config)
    tokens = max(config.learner.token_budget, longest)
    if config.command == "sft":
        return Load(tokens, tokens, 0, 0)  # every example has a prompt of its own
    # Long completions cost the most: each has a mask of its length times its context.
    prompt = min(TYPICAL_PROMPT, longest // 4)
    completions = max(1, min(config.policy_gradient.group_size, (tokens - prompt) // (longest - prompt)))
    return Load(tokens, tokens - prompt, completions if completions > 1 else 0, prompt)


def learner_memory(
    shape: ModelShape,
    learner: LearnerConfig,
    load: Load,
    reference: bool,
    critic: Literal["none", "shared", "separate"],
) -> LearnerMemory:
    """What the learner's device holds for `load`; `reference`: a frozen copy of the start model beside the policy."""
    width = 2 if learner.dtype == "bfloat16" else F32
    weights, trained = _weights(shape, learner, width)
    state = (ADAMW if learner.optimizer == "adamw" else ADAMW_8BIT) * trained
    twice = critic == "separate"  # a critic of its own is a second model with weights, gradients and activations
    if learner.offload_optimizer:
        host, state = state + 2 * F32 * trained, 0.0
    else:
        host = 0.0
    return LearnerMemory(
        weights=weights,
        gradients=F32 * trained,
        optimizer=state,
        reference=float(width * shape.parameters if reference else 0),
        critic=weights + F32 * trained + state if twice else 0.0,
        weight_copies=_weight_copies(shape, learner, width) * (2 if twice else 1),
        activations=activations(shape, learner, load) * (2 if twice else 1),
        logits=_logits(shape, learner, load, width),
        backward=_backward(shape, learner, load, width),
        optimizer_step=_optimizer_step(shape, learner, trained),
        host=host * (2 if twice else 1),
    )


def activations(shape: ModelShape, learner: LearnerConfig, load: Load) -> float:
    """What the forward pass of one micro-batch keeps for the backward pass."""
    width = 2 if learner.dtype == "bfloat16" else F32
    stream = width if learner.lora.enabled else F32  # the residual stream has the precision of the embeddings
    of_block = block_activations(shape, learner, load)
    # The final norm's input and normalised values; hidden states of the predicted tokens in the head's precision.
    ends = load.tokens * shape.hidden * (F32 + stream) + load.predicted * shape.hidden * width
    if learner.gradient_checkpointing:
        return shape.layers * load.tokens * shape.hidden * stream + ends
    return shape.layers * of_block + ends


def block_activations(shape: ModelShape, learner: LearnerConfig, load: Load) -> float:
    """What one transformer block keeps: inputs of norms, of linear layers, of attention and of the gated product."""
    width = 2 if learner.dtype == "bfloat16" else F32
    targets = learner.lora.targets if learner.lora.enabled else ["all-linear"]
    adapted = {linear.name for linear in shape.adapted(targets)}
    read_from_norm = adapted & {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"}
    values = 2 * shape.hidden * F32  # the inputs of both norms in float32
    if not learner.lora.enabled:
        values += 2 * shape.hidden * F32  # the normalised values: a trained scale needs them
    if width == F32:
        readers = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"})
        values += sum(bool(adapted & names) for names in readers) * shape.hidden * width  # all readers share it
    else:
        values += len(read_from_norm) * shape.hidden * width  # autocast makes a copy for each of them
    values += (2 * shape.query + 2 * shape.key_value) * width  # query, output, key, value of attention
    values += shape.query * width * ("o_proj" in adapted)
    values += shape.intermediate * width * (3 + ("down_proj" in adapted))  # gate, its activation, up, their product
    if learner.lora.enabled:
        values += len(adapted) * learner.lora.rank * width
    return load.tokens * values + _shared_prompts(shape, load, width)


def _shared_prompts(shape: ModelShape, load: Load, width: int) -> float:
    """Of completions behind one prompt, each has keys and values of its context, and a mask, of its own."""
    if not load.completions:
        return 0.0
    length = (load.tokens - load.prompt) / load.completions
    context = load.prompt + length
    return load.completions * context * (2 * shape.key_value + length) * width


def _weights(shape: ModelShape, learner: LearnerConfig, width: int) -> tuple[float, int]:
    """Bytes of the model, and how many parameters are trained."""
    if not learner.lora.enabled:
        return float(F32 * shape.parameters), shape.parameters
    adapter = shape.adapter(learner.lora.rank, learner.lora.targets)
    base = float(width * shape.parameters)
    if learner.quantization == "nf4":
        base = NF4 * shape.linear + width * (shape.parameters - shape.linear)
    return base + F32 * adapter, adapter


def _weight_copies(shape: ModelShape, learner: LearnerConfig, width: int) -> float:
    """Autocast's copies of float32 weights, held from the forward to the backward pass; recomputing makes them anew."""
    if not _casts(learner, width):
        return 0.0
    return float(width * (shape.head + (0 if learner.gradient_checkpointing else shape.linear)))


def _casts(learner: LearnerConfig, width: int) -> bool:
    return width < F32 and not learner.lora.enabled  # a frozen base has the compute precision already


def _logits(shape: ModelShape, learner: LearnerConfig, load: Load, width: int) -> float:
    """Two float32 chunks of logits; where the head is trained, also its gradient and one chunk's share of it."""
    chunk = min(learner.logprob_chunk, load.predicted)
    trained = 0 if learner.lora.enabled else shape.head * (F32 + width)
    if learner.gradient_checkpointing and _casts(learner, width):
        trained = max(trained, width * shape.linear)  # autocast keeps its copies to the end of the forward pass
    return chunk * shape.vocab * 2 * F32 + trained + load.predicted * shape.hidden * width


def _backward(shape: ModelShape, learner: LearnerConfig, load: Load, width: int) -> float:
    """One block's backward pass: gradients of its widest values, of its largest weight, and of a tied head."""
    values: float = load.tokens * (2 * shape.intermediate * width + shape.hidden * (F32 + width))
    if learner.gradient_checkpointing:
        copies = width * shape.linear / shape.layers if _casts(learner, width) else 0
        values += block_activations(shape, learner, load) + copies
    if learner.lora.enabled:
        widest = max(linear.inputs * linear.outputs for linear in shape.linears)
        return values + (2 * widest if learner.quantization == "nf4" else 0)  # the 4 bits as bf16
    weight = shape.hidden * shape.intermediate * (F32 if width == F32 else F32 + width)
    return values + weight + (shape.head * F32 if shape.tied else 0)


def _optimizer_step(shape: ModelShape, learner: LearnerConfig, trained: int) -> float:
    """Temporaries of AdamW: on a GPU the roots of all second moments at once, else two of one tensor's size.

    With a head that is also the embedding, the moment before counts too: both of its gradients are there to be added.
    """
    tied = 2 * F32 * shape.head if shape.tied and not learner.lora.enabled else 0
    if learner.offload_optimizer or learner.optimizer == "adamw_8bit":
        return float(tied)
    if learner.device != "cpu":
        return float(max(tied, F32 * trained))
    return float(max(tied, 2 * F32 * min(shape.largest, trained)))


def gib(amount: float) -> str:
    """Bytes in GiB for people, small ones in MiB."""
    return f"{amount / 2**30:.1f} GiB" if amount >= 2**30 else f"{math.ceil(amount / 2**20)} MiB"
