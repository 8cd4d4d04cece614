"""Memory of the learner, computed from what its code allocates. Pure functions; all amounts in bytes.

Permanent: float32 master weights and gradients (or a frozen base in the compute precision with a float32 adapter),
optimizer state, reference, critic, teacher. Temporary: activations of one micro-batch, copies of the weights in the
compute precision, logits of one chunk of positions. The peak is the largest of five moments. The factors count the
tensors that autograd saves in Hugging Face's Llama and Qwen blocks, and those of the attention that the device and
precision select (learner/attention_choice.py); a test verifies them on a CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from grpo_gsm8k.learner.attention_choice import attention_kind
from grpo_gsm8k.preflight.workload import TYPICAL_PROMPT, workload_of

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config, LearnerConfig
    from grpo_gsm8k.preflight.parameters import ModelShape

F32 = 4
ADAMW = 8  # bytes per parameter: two moments
ADAMW_8BIT = 2 * (1 + F32 / 256)  # two one-byte moments, each with a float32 scale per block of 256
NF4 = 0.5 + 1 / 64 + F32 / (64 * 256)  # 4 bits, an 8-bit scale per 64 values, a float32 scale per 256 scales


@dataclass(frozen=True, slots=True)
class Load:
    """Sizes of one micro-batch in tokens."""

    tokens: int
    predicted: int
    completions: int  # how many share a prompt; 0: none
    prompt: int


@dataclass(frozen=True, slots=True)
class LearnerMemory:
    """Memory by purpose. The first six items are permanent, the others temporary; `host` is in the host's memory."""

    weights: float
    gradients: float
    optimizer: float
    reference: float
    critic: float
    teacher: float
    weight_copies: float
    activations: float
    ends: float  # part of the activations that is freed before the first block's backward pass
    logits: float
    backward: float
    optimizer_step: float
    teacher_pass: float
    resumed_policy: float
    host: float

    @property
    def lasting(self) -> float:
        """Memory that is allocated for the whole run."""
        return self.weights + self.gradients + self.optimizer + self.reference + self.critic + self.teacher

    @property
    def peak(self) -> float:
        """Largest of five moments: the head's passes, a block's backward pass, the optimizer, a teacher, a resume.

        After a resume, a policy of each version whose validation was cut off is loaded, before there are gradients.
        """
        head = self.activations + self.weight_copies + self.logits
        block = self.activations - self.ends + self.weight_copies + self.backward
        rest = (self.optimizer_step, self.teacher_pass, self.resumed_policy - self.gradients)
        return self.lasting + max(head, block, *rest)


def load_of(config: Config) -> Load:
    """Return the largest micro-batch of a run; a sequence longer than the token budget gets its own micro-batch."""
    work = workload_of(config)
    tokens = max(config.learner.token_budget, work.longest_sequence)
    if work.group_size == 0:
        return Load(tokens, tokens, 0, 0)
    # Assume completions of maximal length: they cost the most, because each has a mask of its length times its context.
    prompt = min(TYPICAL_PROMPT, work.longest_sequence // 4)
    completions = max(1, min(work.group_size, (tokens - prompt) // (work.longest_sequence - prompt)))
    return Load(tokens, tokens - prompt, completions if completions > 1 else 0, prompt)


def learner_memory(
    shape: ModelShape,
    learner: LearnerConfig,
    load: Load,
    reference: bool,
    critic: Literal["none", "shared", "separate"],
) -> LearnerMemory:
    """Return the learner's memory for `load`. `reference`: a frozen copy of the start model is kept as well."""
    width = 2 if learner.dtype == "bfloat16" else F32
    weights, trained = _weights(shape, learner, width)
    kept = _kept(shape, learner)
    own = stepped(shape, learner, trained)
    state = (ADAMW if learner.optimizer == "adamw" else ADAMW_8BIT) * own
    twice = critic == "separate"  # a second model with its own weights, gradients and activations
    if learner.offload_optimizer:
        host, state = state + 2 * F32 * own, 0.0
    else:
        host = 0.0
    return LearnerMemory(
        weights=kept * weights,
        gradients=kept * F32 * trained,
        optimizer=state,
        reference=float(kept * width * shape.parameters if reference else 0),
        critic=kept * (weights + F32 * trained) + state if twice else 0.0,
        teacher=float(_kept(shape.teacher, learner) * width * shape.teacher.parameters if shape.teacher else 0),
        weight_copies=_weight_copies(shape, learner, width) * (2 if twice else 1),
        activations=2 * activations(shape, learner, load) + kept_logits(shape, learner, load)
        if twice
        else activations(shape, learner, load),
        ends=_ends(shape, learner, load) * (2 if twice else 1),
        logits=_logits(shape, learner, load, width),
        backward=_backward(shape, learner, load, width),
        optimizer_step=_optimizer_step(shape, learner, trained),
        teacher_pass=_forward_pass(shape.teacher, learner, load, width) if shape.teacher else 0.0,
        resumed_policy=weights,
        host=host * (2 if twice else 1),
    )


def _kept(shape: ModelShape, learner: LearnerConfig) -> float:
    """Return the fraction of the parameters that one rank keeps: all, or all but the others' rows in the blocks."""
    if learner.shard != "full":
        return 1.0
    return 1 - shape.linear / shape.parameters * (1 - 1 / len(learner.rank_devices))


def stepped(shape: ModelShape, learner: LearnerConfig, trained: int) -> float:
    """Return how many of the trained parameters one rank has the optimizer's state of; whole tensors are dealt."""
    if learner.shard == "none":
        return trained
    ranks = len(learner.rank_devices)
    if learner.shard == "full":
        ends = trained - shape.linear
        return shape.linear / ranks + max(ends / ranks, shape.head)
    mean = trained / ranks
    return mean if learner.lora.enabled else max(mean, shape.largest)


def activations(shape: ModelShape, learner: LearnerConfig, load: Load) -> float:
    """Return what the forward pass of one micro-batch saves for the backward pass."""
    ends = _ends(shape, learner, load)
    if learner.gradient_checkpointing:
        return shape.layers * load.tokens * shape.hidden * _stream(learner) + ends
    return shape.layers * block_activations(shape, learner, load) + ends


def _stream(learner: LearnerConfig) -> int:
    """Return the bytes of a value of the residual stream, which has the precision of the embeddings."""
    return 2 if learner.dtype == "bfloat16" and learner.lora.enabled else F32


def _ends(shape: ModelShape, learner: LearnerConfig, load: Load) -> float:
    """Return the final norm's input and normalized values, and the predicted tokens' hidden states for the head."""
    width = 2 if learner.dtype == "bfloat16" else F32
    return load.tokens * shape.hidden * (F32 + _stream(learner)) + load.predicted * shape.hidden * width


def block_activations(shape: ModelShape, learner: LearnerConfig, load: Load) -> float:
    """Return what one transformer block saves: inputs of norms, linear layers, attention and the gated product."""
    width = 2 if learner.dtype == "bfloat16" else F32
    targets = learner.lora.targets if learner.lora.enabled else ["all-linear"]
    adapted = {linear.name for linear in shape.adapted(targets)}
    read_from_norm = adapted & {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"}
    values = 2 * shape.hidden * F32  # the inputs of both norms in float32
    if not learner.lora.enabled:
        values += 2 * shape.hidden * F32  # the normalized values: the gradient of a trained scale needs them
    if width == F32:
        readers = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"})
        values += sum(bool(adapted & names) for names in readers) * shape.hidden * width  # one shared tensor
    else:
        values += len(read_from_norm) * shape.hidden * width  # autocast makes one copy per reader
    values += (2 * shape.query + 2 * shape.key_value) * width  # query, output, key, value of attention
    values += shape.query * width * ("o_proj" in adapted)
    values += shape.intermediate * width * (3 + ("down_proj" in adapted))  # gate, its activation, up, their product
    if learner.lora.enabled:
        values += len(adapted) * learner.lora.rank * width
    return load.tokens * values + _shared_prompts(shape, learner, load, width)


def _shared_prompts(shape: ModelShape, learner: LearnerConfig, load: Load, width: int) -> float:
    """Return what attention keeps for the completions that share a prompt, beyond each token's own keys and values.

    FlashAttention: a copy of the prompt's keys and values for each completion. SDPA in pieces: keys and values of each
    completion's context, on a GPU repeated for all heads, and one mask, as completions of similar length share a call.
    """
    if not load.completions:
        return 0.0
    if attention_kind(learner.device, learner.dtype) != "pieces":
        return load.completions * load.prompt * 2 * shape.key_value * width
    length = (load.tokens - load.prompt) / load.completions
    context = load.prompt + length
    heads = shape.key_value if learner.device == "cpu" else shape.query
    return context * (2 * heads * load.completions + length) * width


def _weights(shape: ModelShape, learner: LearnerConfig, width: int) -> tuple[float, int]:
    """Return the model's size and the number of trained parameters."""
    if not learner.lora.enabled:
        return float(F32 * shape.parameters), shape.parameters
    adapter = shape.adapter(learner.lora.rank, learner.lora.targets)
    base = float(width * shape.parameters)
    if learner.quantization == "nf4":
        base = NF4 * shape.linear + width * (shape.parameters - shape.linear)
    return base + F32 * adapter, adapter


def _weight_copies(shape: ModelShape, learner: LearnerConfig, width: int) -> float:
    """Return autocast's copies of float32 weights, held from the forward to the backward pass unless recomputed."""
    if learner.shard == "full":
        # The blocks that compute and come next, gathered, and one's gradients before and in the exchange.
        block = shape.linear / shape.layers
        return block * (3 * width + F32) + (width * shape.head if _casts(learner, width) else 0)
    if not _casts(learner, width):
        return 0.0
    return float(width * (shape.head + (0 if learner.gradient_checkpointing else shape.linear)))


def _casts(learner: LearnerConfig, width: int) -> bool:
    return width < F32 and not learner.lora.enabled  # a frozen base is stored in the compute precision


def _logits(shape: ModelShape, learner: LearnerConfig, load: Load, width: int) -> float:
    """Return two float32 chunks of logits; if the head is trained, also its gradient and one chunk's part of it."""
    chunk = min(learner.logprob_chunk, load.predicted)
    trained = 0 if learner.lora.enabled else shape.head * (F32 + width)
    if learner.gradient_checkpointing and _casts(learner, width):
        trained = max(trained, width * shape.linear)  # autocast keeps its copies until the forward pass ends
    return chunk * shape.vocab * 2 * F32 + trained + load.predicted * shape.hidden * width


def kept_logits(shape: ModelShape, learner: LearnerConfig, load: Load) -> float:
    """Return the chunk of log-probabilities that the policy keeps for its backward pass, beside a critic's passes."""
    return float(min(learner.logprob_chunk, load.predicted) * shape.vocab * F32)


def _backward(shape: ModelShape, learner: LearnerConfig, load: Load, width: int) -> float:
    """Return one block's backward pass: gradients of its widest values, its largest weight, and a tied head."""
    values: float = load.tokens * (2 * shape.intermediate * width + shape.hidden * (F32 + width))
    if learner.gradient_checkpointing:
        copies = width * shape.linear / shape.layers if _casts(learner, width) else 0
        values += block_activations(shape, learner, load) + copies
    if learner.lora.enabled:
        widest = max(linear.inputs * linear.outputs for linear in shape.linears)
        return values + (2 * widest if learner.quantization == "nf4" else 0)  # the weight dequantized to bf16
    weight = shape.hidden * shape.intermediate * (F32 if width == F32 else F32 + width)
    return values + weight + (shape.head * F32 if shape.tied else 0)


def _forward_pass(shape: ModelShape, learner: LearnerConfig, load: Load, width: int) -> float:
    """Return what a frozen model holds in a pass without gradients: one block's widest values, logits of one chunk."""
    values = load.tokens * (2 * shape.hidden * F32 + (2 * shape.query + 2 * shape.key_value) * width)
    values += load.tokens * 3 * shape.intermediate * width
    logits = 2 * F32 * shape.vocab * min(learner.logprob_chunk, load.predicted)
    return float(max(values, logits + load.predicted * shape.hidden * width))


def _optimizer_step(shape: ModelShape, learner: LearnerConfig, trained: int) -> float:
    """Return AdamW's temporaries: none of the fused kernel on a GPU, else two of one tensor's size.

    A tied head also counts the moment before the step, when the gradients of head and embedding are added.
    """
    tied = 2 * F32 * shape.head if shape.tied and not learner.lora.enabled else 0
    if learner.offload_optimizer or learner.optimizer == "adamw_8bit" or learner.device != "cpu":
        return float(tied)
    return float(max(tied, 2 * F32 * min(shape.largest, trained)))


def gib(amount: float) -> str:
    """Format bytes as GiB, small amounts as MiB."""
    return f"{amount / 2**30:.1f} GiB" if amount >= 2**30 else f"{math.ceil(amount / 2**20)} MiB"
