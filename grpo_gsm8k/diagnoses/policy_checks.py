"""Checks of the policy and its optimization: entropy, drift, gradients, clipping, numerics, critic."""

from __future__ import annotations

import math
import statistics
from typing import Final

from grpo_gsm8k.diagnoses.reward_checks import MOST_RIGHT, TIED
from grpo_gsm8k.diagnoses.run_diagnosis import Check, Found
from grpo_gsm8k.diagnoses.run_record import RunRecord, percent

COLLAPSED: Final = 0.03  # nats per token; healthy runs of the embedded model end at 0.05 to 0.09
COLLAPSED_TO: Final = (
    0.25  # of the entropy at the start: a policy that began sharp (after fine-tuning) did not collapse
)
EXPLODED: Final = 0.5  # nats per token; math answers are mostly forced, and start at 0.2 to 0.4
EXPLODED_BY: Final = 2.0
FAR: Final = 0.5  # nats per token of KL to the reference; a trained policy is mostly below 0.1
DRIFT: Final = 0.08  # nats per token in one update; this much took a fine-tuned model from 78.9 % to 27.3 %
OFTEN_CLIPPED: Final = 0.3  # of tokens; PPO's and GRPO's usual values are 0.01 to 0.1
SPIKE: Final = 10.0  # times the median gradient norm
SPIKES: Final = 3  # fewer are chance
CLIPPED_BY: Final = 10.0  # median gradient norm over learner.max_grad_norm; healthy fine-tuning has up to 4.5
GAP_FLOAT32: Final = 0.01  # nats; engine and learner in float32 agree to 1e-6
GAP: Final = 0.1  # nats; in bfloat16 we measured 0.02 to 0.04
GAPS: Final = 3  # measurements; no trend is needed
STALE: Final = 3.0  # policy updates
MASKED: Final = 0.5  # share of tokens


def entropy_collapsed(record: RunRecord) -> Found | None:
    """The policy became deterministic before it became right."""
    values, late, right = record.series("train/entropy"), record.late("train/entropy"), record.late_right()
    if late is None or late > COLLAPSED or late > COLLAPSED_TO * values[0] or (right or 0.0) >= MOST_RIGHT:
        return None
    accuracy = "" if right is None else f", {percent(right)} of completions right"
    return Found(
        f"entropy {values[0]:.3f} at the start, {late:.3g} nats per token at the end{accuracy}",
        f"lower {record.now('learner.lr')}, set policy_gradient.entropy_coef=0.001, or "
        "raise policy_gradient.cliprange_high",
        "note" if record.improves else "warning",
    )


def entropy_explodes(record: RunRecord) -> Found | None:
    """The policy approaches random text."""
    values, late = record.series("train/entropy"), record.late("train/entropy")
    if late is None or late < EXPLODED or late < EXPLODED_BY * values[0] or record.improves:
        return None
    bonus = record.amount("policy_gradient.entropy_coef") or 0.0
    cause = record.now("policy_gradient.entropy_coef" if bonus else "learner.lr")
    return Found(f"entropy {values[0]:.3f} at the start, {late:.2f} nats per token at the end", f"lower {cause}")


def kl_runs_away(record: RunRecord) -> Found | None:
    """The policy is far from the reference."""
    far = record.late_median("train/kl_reference")
    if far is None or far < FAR:
        return None
    return Found(
        f"{far:.2f} nats per token from the reference in the last third of the updates",
        f"raise {record.now('policy_gradient.kl.coef')}, set policy_gradient.kl.target, or lower learner.lr",
    )


def updates_too_large(record: RunRecord) -> Found | None:
    """One update moves the policy far from the one that sampled."""
    drift = record.late_median("train/kl_behaviour")
    if drift is None or drift < DRIFT or record.improves:
        return None
    return Found(
        f"{drift:.2f} nats per token between the sampling policy and the updated one, and the accuracy does not rise",
        f"lower {record.now('learner.lr')} or policy_gradient.epochs_per_batch, or set policy_gradient.target_kl",
    )


def clip_fraction_high(record: RunRecord) -> Found | None:
    """Clipping removes the gradient of many tokens."""
    clipped = record.late("train/clip_frac")
    if clipped is None or clipped < OFTEN_CLIPPED or record.setting("policy_gradient.ratio") not in (None, "token"):
        return None  # ratios of whole sequences are clipped far more often, by design (GSPO)
    loss = record.setting("policy_gradient.loss_type")
    bound = "policy_gradient.m2po.threshold" if loss == "m2po" else "policy_gradient.cliprange"
    return Found(
        f"{percent(clipped)} of trained tokens clipped",
        f"lower {record.now('learner.lr')}, policy_gradient.epochs_per_batch or policy_gradient.minibatches, or raise "
        f"{bound}",
    )


def gradient_spikes(record: RunRecord) -> Found | None:
    """Single updates have a far larger gradient than the others."""
    norms, limit = record.series("train/grad_norm"), record.amount("learner.max_grad_norm") or 0.0
    usual = statistics.median(norms) if record.long and norms else 0.0
    spikes = [norm for norm in norms if usual and norm > max(SPIKE * usual, limit)]
    if len(spikes) < SPIKES:
        return None
    return Found(
        f"{len(spikes)} of {len(norms)} updates have a gradient norm above {SPIKE:g} times the median of {usual:.2g}; "
        f"the largest is {max(spikes):.3g}",
        f"lower {record.now('learner.max_grad_norm')} or {record.lr_key}",
    )


def gradient_always_clipped(record: RunRecord) -> Found | None:
    """Clipping, not the gradient, sets the size of every step."""
    norms, limit = record.series("train/grad_norm"), record.amount("learner.max_grad_norm")
    if not record.long or not norms or not limit:
        return None
    clipped, usual = sum(norm > limit for norm in norms) / len(norms), statistics.median(norms)
    if clipped < 0.9 or usual < CLIPPED_BY * limit:
        return None
    return Found(
        f"{percent(clipped)} of updates clipped; the median norm {usual:.3g} is {usual / limit:.0f} times the limit",
        f"raise learner.max_grad_norm (now {limit:g})",
    )


def gradients_not_finite(record: RunRecord) -> Found | None:
    """Optimizer steps were skipped."""
    skipped = math.fsum(record.series("train/skipped_steps"))
    if not skipped:
        return None
    total = skipped + math.fsum(record.series("train/optimizer_steps"))
    return Found(
        f"{skipped:.0f} of {total:.0f} optimizer steps skipped, because their gradient was not finite",
        f"lower {record.lr_key}, or set learner.dtype=float32",
    )


def update_without_effect(record: RunRecord) -> Found | None:
    """The weights do not change."""
    rates, norms = record.series("train/lr"), record.series("train/grad_norm")
    if rates and max(rates) == 0:
        return Found(f"learning rate 0 in all {len(rates)} updates", f"raise {record.lr_key} (now 0)")
    tied = record.late("train/frac_zero_variance_groups") or 0.0
    if not record.long or not norms or max(norms) > 0 or tied >= TIED:  # tied groups have diagnoses of their own
        return None
    return Found(
        f"gradient norm 0 in all {len(norms)} updates",
        "check policy_gradient.rewards: weights of 0 give no signal",
    )


def critic_explains_nothing(record: RunRecord) -> Found | None:
    """A constant would explain the returns as well as the value function does."""
    explained = record.late("train/explained_variance")
    if explained is None or explained > 0:
        return None
    return Found(
        f"explained variance {explained:.2g} in the last third of the updates",
        f"raise {record.now('policy_gradient.critic.lr')}, or use a method without a critic (policy_gradient=grpo)",
    )


def logprob_gap_high(record: RunRecord) -> Found | None:
    """Engine and learner disagree about the log-probabilities of the same tokens."""
    kinds, gaps = _precisions(record), record.series("sync/logprob_gap_mean")
    if len(gaps) < GAPS:  # stale batches have no on-policy tokens; the canary of each weight load is always there
        gaps = record.series("sync/canary_gap")
    gap, limit = statistics.median(gaps or [0.0]), GAP_FLOAT32 if kinds == ("float32", "float32") else GAP
    if len(gaps) < GAPS or gap < limit or _changes_sampling(record):
        return None
    same = (
        "actor.dtype=float32 learner.dtype=float32" if kinds[0] == kinds[1] else "actor.dtype and learner.dtype alike"
    )
    return Found(
        f"engine and learner differ by {gap:.2g} nats per token, usual are at most {limit:g}",
        f"set {same} (now {kinds[0]} and {kinds[1]}), or correct for it: "
        "policy_gradient.off_policy.proximal=recomputed policy_gradient.off_policy.correction=truncate",
    )


def _precisions(record: RunRecord) -> tuple[str, str]:
    return str(record.setting("actor.dtype")), str(record.setting("learner.dtype"))


def _changes_sampling(record: RunRecord) -> bool:
    """Whether the gap contains what a sampling setting changes in the engine's distribution."""
    neutral = {"top_p": 1.0, "top_k": 0.0, "min_p": 0.0, "repetition_penalty": 1.0}
    return any(record.amount(f"policy_gradient.{key}") not in (None, value) for key, value in neutral.items())


def staleness_high(record: RunRecord) -> Found | None:
    """Completions come from much older weights, and nothing corrects for it."""
    stale, drift = record.late("rollout/staleness_mean"), record.late_median("train/kl_behaviour") or 0.0
    corrected = record.setting("policy_gradient.off_policy.correction") not in (None, "none")
    if stale is None or stale < STALE or corrected:
        return None
    return Found(
        f"completions are {stale:.1f} updates old on average; the policy has moved by {drift:.2g} nats per token",
        f"lower {record.now('policy_gradient.max_staleness')}, or "
        "correct for it: policy_gradient.off_policy.proximal=recomputed policy_gradient.off_policy.correction=truncate",
        "warning" if drift >= DRIFT else "note",
    )


def correction_masks_most(record: RunRecord) -> Found | None:
    """The off-policy correction removes most tokens from the loss."""
    masked = record.late("train/correction_masked_frac")
    if masked is None or masked < MASKED:
        return None
    return Found(
        f"{percent(masked)} of trained tokens masked by the off-policy correction",
        f"lower policy_gradient.max_staleness or learner.lr, or raise {record.now('policy_gradient.off_policy.high')} "
        "or widen policy_gradient.off_policy.reject",
    )


CHECKS: Final = (
    Check(
        "entropy_collapsed",
        "warning",
        f"`train/entropy` at most {COLLAPSED:g} and at most {percent(COLLAPSED_TO)} of its first value, with less than "
        f"{percent(MOST_RIGHT)} right; a note if the accuracy rises",
        ("learner.lr", "policy_gradient.entropy_coef", "policy_gradient.cliprange_high"),
        entropy_collapsed,
    ),
    Check(
        "entropy_explodes",
        "warning",
        f"`train/entropy` at least {EXPLODED:g} and {EXPLODED_BY:g} times its first value, accuracy not higher",
        ("policy_gradient.entropy_coef", "learner.lr"),
        entropy_explodes,
    ),
    Check(
        "kl_runs_away",
        "warning",
        f"median `train/kl_reference` at least {FAR:g}",
        ("policy_gradient.kl.coef", "policy_gradient.kl.target", "learner.lr"),
        kl_runs_away,
    ),
    Check(
        "updates_too_large",
        "warning",
        f"median `train/kl_behaviour` at least {DRIFT:g}, accuracy not higher",
        ("learner.lr", "policy_gradient.epochs_per_batch", "policy_gradient.target_kl"),
        updates_too_large,
    ),
    Check(
        "clip_fraction_high",
        "warning",
        f"`train/clip_frac` of token ratios at least {OFTEN_CLIPPED:g}",
        (
            "learner.lr",
            "policy_gradient.epochs_per_batch",
            "policy_gradient.minibatches",
            "policy_gradient.cliprange",
        ),
        clip_fraction_high,
    ),
    Check(
        "gradient_spikes",
        "note",
        f"`train/grad_norm` above {SPIKE:g} times its median, and above the limit, in at least {SPIKES} updates",
        ("learner.max_grad_norm", "learner.lr", "sft.lr"),
        gradient_spikes,
    ),
    Check(
        "gradient_always_clipped",
        "note",
        f"90 % of updates clipped, and the median `train/grad_norm` at least {CLIPPED_BY:g} times the limit",
        ("learner.max_grad_norm",),
        gradient_always_clipped,
    ),
    Check(
        "gradients_not_finite",
        "warning",
        "`train/skipped_steps` above 0 in any update",
        ("learner.lr", "sft.lr", "learner.dtype"),
        gradients_not_finite,
    ),
    Check(
        "update_without_effect",
        "warning",
        "`train/lr` 0 in all updates, or `train/grad_norm` 0 in all although groups are not tied",
        ("learner.lr", "sft.lr", "policy_gradient.rewards"),
        update_without_effect,
    ),
    Check(
        "critic_explains_nothing",
        "warning",
        "`train/explained_variance` at most 0",
        ("policy_gradient.critic.lr",),
        critic_explains_nothing,
    ),
    Check(
        "logprob_gap_high",
        "warning",
        f"median over all updates of `sync/logprob_gap_mean`, or of `sync/canary_gap` where it is missing, at least "
        f"{GAP:g}; {GAP_FLOAT32:g} with float32 on both sides",
        (
            "actor.dtype",
            "learner.dtype",
            "policy_gradient.off_policy.proximal",
            "policy_gradient.off_policy.correction",
        ),
        logprob_gap_high,
    ),
    Check(
        "staleness_high",
        "note",
        f"`rollout/staleness_mean` at least {STALE:g} without a correction; a warning with `train/kl_behaviour` of "
        f"{DRIFT:g}",
        (
            "policy_gradient.max_staleness",
            "policy_gradient.off_policy.proximal",
            "policy_gradient.off_policy.correction",
        ),
        staleness_high,
    ),
    Check(
        "correction_masks_most",
        "warning",
        f"`train/correction_masked_frac` at least {MASKED:g}",
        ("policy_gradient.max_staleness", "learner.lr", "policy_gradient.off_policy.high"),
        correction_masks_most,
    ),
)
