"""Checks of rewards and completions: flat rewards, unread answers, lengths, parts that are gamed."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any, Final

from grpo_gsm8k.diagnoses.run_diagnosis import Check, Found
from grpo_gsm8k.diagnoses.run_record import (
    ACCURACY_PARTS,
    RunRecord,
    change_of,
    number,
    percent,
    validation_change,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

TIED: Final = 0.8  # share of groups without reward variance; the others then give a fifth of the signal, or less
FEW_RIGHT: Final = 0.05  # below this share of right completions, groups of 8 are mostly tied at 0
NONE_RIGHT: Final = 0.002  # of all completions; fewer than one group of 8 in 60 then has a right one
MOST_RIGHT: Final = 0.9  # above it, they are mostly tied at 1
TRUNCATED: Final = 0.5  # truncation explains a flat reward if at least half of the completions are cut off
OFTEN_TRUNCATED: Final = 0.3  # healthy runs stay below 0.1; above this, a third of the batch earns nothing
UNREAD: Final = 0.9  # a model that fails at the problems, not at the format, still has most of its answers read
CUT_NOW: Final = 0.1  # truncation at the end from which longer completions cost reward
LONGER: Final = 1.5  # growth of the completions that more reasoning rarely explains without more right answers
SHAPED_GAIN: Final = 0.05  # rise of a weighted reward part that is worth a look
TRAINING_FALL: Final = 0.1  # of right completions, for runs without two validations
FAILURES: Final = 0.01  # share of completions whose reward function failed
_CUT: Final = "rollout/truncated_frac"


def _tied(record: RunRecord) -> tuple[float, float] | None:
    """Return the shares of tied groups and right completions at the end; None unless most groups are tied."""
    tied, right = record.late("train/frac_zero_variance_groups"), record.late_right()
    return None if tied is None or right is None or tied < TIED else (tied, right)


def _flat_at_zero(record: RunRecord) -> tuple[float, float] | None:
    """Return the shares of tied groups and right completions if nearly nothing is right, from the first update on.

    Either most groups are tied, or hardly any completion of the run is right: other parts of the reward then make the
    variance. If the first update is better, the training broke the model: `accuracy_fell`.
    """
    tied, right, all_right = record.late("train/frac_zero_variance_groups"), record.late_right(), record.right()
    if tied is None or right is None or max(right, all_right[0]) > FEW_RIGHT:
        return None
    return (tied, right) if tied >= TIED or statistics.fmean(all_right) <= NONE_RIGHT else None


def _tied_from_the_start(record: RunRecord) -> bool:
    return (record.early("train/frac_zero_variance_groups") or 0.0) >= TIED


def reward_zero_truncated(record: RunRecord) -> Found | None:
    """No completion is right because the token limit ends them."""
    found, cut = _flat_at_zero(record), record.late(_CUT)
    if found is None or cut is None or cut < TRUNCATED:
        return None
    evidence = f"{percent(found[0])} of groups tied, {percent(found[1])} of completions right, {percent(cut)} truncated"
    return Found(evidence, f"raise {record.now('policy_gradient.max_new_tokens')}")


def answers_never_parsed(record: RunRecord) -> Found | None:
    """Finished answers are there, and grading cannot read them."""
    last = record.validations[-1] if record.validations else {}
    unread = number(last.get("format_error_frac"))
    evidence = f"{percent(unread or 0)} of the last validation's answers have no readable result"
    if unread is None or unread < UNREAD or not number(last.get("version")):
        read, cut = record.late("train/reward_format"), record.late(_CUT)
        if read is None or cut is None or read > (1 - UNREAD) * (1 - cut) or cut >= TRUNCATED:
            return None
        evidence = f"{percent(read)} of completions are well-formed, {percent(cut)} truncated"
    advice = (
        f"set {record.now('prompt.answer_format')} to what the model writes, or show the format in prompt.text or "
        "prompt.instruction, or fine-tune first (policy_gradient.model_id=run:latest:sft)"
    )
    return Found(evidence, advice)


def reward_zero_wrong(record: RunRecord) -> Found | None:
    """Answers are read, and nearly all are wrong."""
    found, cut = _flat_at_zero(record), record.late(_CUT) or 0.0
    if found is None or cut >= TRUNCATED or answers_never_parsed(record):
        return None
    evidence = f"{percent(found[0])} of groups tied, {percent(found[1])} of completions right, {percent(cut)} truncated"
    return Found(
        evidence,
        "the problems are too hard for this model: start from a fine-tuned one "
        "(policy_gradient.model_id=run:latest:sft), take easier ones (data.where, data.params), or raise "
        "policy_gradient.group_size",
    )


def groups_tied_at_one(record: RunRecord) -> Found | None:
    """Nearly all completions are right, so groups have no variance."""
    found = _tied(record)
    if found is None or found[1] < MOST_RIGHT:
        return None
    return Found(
        f"{percent(found[0])} of groups tied, {percent(found[1])} of completions right",
        "the problems are too easy for this model: data.sampler=difficulty, policy_gradient.active_sampling, or harder "
        "ones (data.where, data.params)",
        "warning"
        if _tied_from_the_start(record)
        else "note",  # a run that got this far has learned what its data teaches
    )


def groups_tied(record: RunRecord) -> Found | None:
    """Completions of a group get equal rewards, right or wrong."""
    found = _tied(record)
    if found is None or not FEW_RIGHT < found[1] < MOST_RIGHT:
        return None
    sampled = record.amount("policy_gradient.active_sampling")
    return Found(
        f"{percent(found[0])} of groups tied, although {percent(found[1])} of completions are right",
        f"raise {record.now('policy_gradient.temperature')} or {record.now('policy_gradient.group_size')}"
        + ("" if sampled else ", or replace tied groups with policy_gradient.active_sampling"),
        "note" if record.improves and not _tied_from_the_start(record) else "warning",
    )


def truncation_high(record: RunRecord) -> Found | None:
    """The token limit ends many completions."""
    cut = record.late(_CUT)
    if cut is None or cut < OFTEN_TRUNCATED or reward_zero_truncated(record) or record.change(_CUT) > 0:
        return None  # rising truncation is `length_runs_away`, or a model that broke
    limit = whole(record.setting("policy_gradient.max_new_tokens"))
    return Found(
        f"{percent(cut)} of completions truncated at {limit} tokens, which earn nothing",
        "raise policy_gradient.max_new_tokens, or shorten the answers: policy_gradient.overlong=penalty",
    )


def length_runs_away(record: RunRecord) -> Found | None:
    """Completions get longer and are cut off more often, and not better."""
    lengths = record.series("rollout/length_mean")
    end, late = record.late(_CUT), record.late("rollout/length_mean")
    if late is None or late < LONGER * lengths[0] or record.change(_CUT) <= 0 or record.improves:
        return None
    if end is None or end < CUT_NOW or (record.late_right() or 0.0) <= FEW_RIGHT:
        return None  # the length grows, but fits, or nothing is right any more: `accuracy_fell`
    return Found(
        f"{lengths[0]:.0f} tokens at the start, {late:.0f} at the end, {percent(end)} truncated, and not more right",
        f"policy_gradient.overlong=penalty, or a lower {record.lr_key} or policy_gradient.entropy_coef",
    )


def accuracy_fall(record: RunRecord) -> str:
    """Return how far the accuracy fell; empty if it did not. Training counts only without two validations."""
    measured, right = record.validations, record.right()
    if len(measured) > 1:
        if validation_change(measured) >= 0:
            return ""
        return f"validation fell {describe_fall(measured[0], measured[-1])}"
    if change_of(right) > -TRAINING_FALL or record.setting("data.sampler") == "difficulty":
        return ""  # that sampler draws problems that the model fails at
    return f"right completions fell from {percent(right[0])} to {percent(record.late_right() or 0.0)}"


def describe_fall(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return the accuracies of two validations, with their versions."""
    ends = (f"{percent(number(v.get('accuracy')) or 0.0)} (update {v.get('version')})" for v in (before, after))
    return "from {} to {}".format(*ends)


def reward_part_gamed(record: RunRecord) -> Found | None:
    """A shaped part of the reward rises while the accuracy falls."""
    fall = accuracy_fall(record)
    if not fall:
        return None
    weights = record.setting("policy_gradient.rewards")
    shaped = [name for name in weights if name not in (*ACCURACY_PARTS, "wrong")] if isinstance(weights, dict) else []
    gains = {name: (number(weights[name]) or 0.0) * record.change(f"train/reward_{name}") for name in shaped}
    best = max(gains, key=lambda name: gains[name], default=None)
    total = record.change("train/reward_mean")
    if best is None or total <= 0 or gains[best] < max(SHAPED_GAIN, total / 2):
        return None
    before, after = record.early(f"train/reward_{best}"), record.late(f"train/reward_{best}")
    return Found(
        f"reward part {best} rose from {before:.2f} to {after:.2f} while {fall}",
        f"lower policy_gradient.rewards.{best} (now {whole(weights[best])})",
    )


def reward_function_fails(record: RunRecord) -> Found | None:
    """Functions of `policy_gradient.rewards_file` fail and count as 0."""
    failed = math.fsum(record.series("rollout/reward_errors"))
    completions = (record.amount("policy_gradient.episodes_per_update") or 0) * len(record.updates)
    if not completions or failed < FAILURES * completions:
        return None
    return Found(
        f"{failed:.0f} failures counted as 0, in {completions:.0f} completions",
        "correct the function of policy_gradient.rewards_file; events.jsonl has the reasons (reward_failed)",
    )


def resampling_exhausted(record: RunRecord) -> Found | None:
    """Active sampling draws all prompts it may, update by update."""
    limit, drawn = record.amount("policy_gradient.active_sampling"), record.late("rollout/resampled_prompts")
    if not limit or drawn is None or drawn < 0.9 * limit:
        return None
    return Found(
        f"{drawn:.1f} of {limit:.0f} further prompts drawn in an update, so tied groups still fill the batch",
        "raise policy_gradient.active_sampling, or take problems of fitting difficulty (data.sampler=difficulty)",
    )


_FLAT = f"at least {percent(TIED)} of groups tied"
_ZERO: Final = (
    f"at most {percent(FEW_RIGHT)} right since the first update, and {_FLAT}, or {percent(NONE_RIGHT)} right in the run"
)
CHECKS: Final = (
    Check(
        "reward_zero_truncated",
        "warning",
        f"{_ZERO}, at least {percent(TRUNCATED)} truncated",
        ("policy_gradient.max_new_tokens",),
        reward_zero_truncated,
    ),
    Check(
        "answers_never_parsed",
        "warning",
        f"`val/format_error_frac` of the last validation at least {percent(UNREAD)}, or as few well-formed completions",
        ("prompt.answer_format", "prompt.text", "prompt.instruction", "policy_gradient.model_id"),
        answers_never_parsed,
    ),
    Check(
        "reward_zero_wrong",
        "warning",
        f"{_ZERO}, answers finished and readable",
        ("policy_gradient.model_id", "data.where", "data.params", "policy_gradient.group_size"),
        reward_zero_wrong,
    ),
    Check(
        "groups_tied_at_one",
        "note",
        f"{_FLAT}, at least {percent(MOST_RIGHT)} right; a warning if also in the first third",
        ("data.sampler", "policy_gradient.active_sampling", "data.where", "data.params"),
        groups_tied_at_one,
    ),
    Check(
        "groups_tied",
        "warning",
        f"{_FLAT}, with {percent(FEW_RIGHT)} to {percent(MOST_RIGHT)} right; a note if the accuracy rises and the "
        "first third is better",
        ("policy_gradient.temperature", "policy_gradient.group_size", "policy_gradient.active_sampling"),
        groups_tied,
    ),
    Check(
        "truncation_high",
        "warning",
        f"`rollout/truncated_frac` at least {percent(OFTEN_TRUNCATED)} at the end, and not rising",
        ("policy_gradient.max_new_tokens", "policy_gradient.overlong"),
        truncation_high,
    ),
    Check(
        "length_runs_away",
        "warning",
        f"`rollout/length_mean` at least {LONGER:g} times its first value, more truncation, accuracy not higher",
        ("policy_gradient.overlong", "learner.lr", "policy_gradient.entropy_coef"),
        length_runs_away,
    ),
    Check(
        "reward_part_gamed",
        "warning",
        f"one weighted part makes up at least half of the reward's rise, and {SHAPED_GAIN:g}, while the accuracy falls",
        ("policy_gradient.rewards",),
        reward_part_gamed,
    ),
    Check(
        "reward_function_fails",
        "warning",
        f"`rollout/reward_errors` in at least {percent(FAILURES)} of completions",
        ("policy_gradient.rewards_file",),
        reward_function_fails,
    ),
    Check(
        "resampling_exhausted",
        "note",
        "`rollout/resampled_prompts` at least 90 % of its limit",
        ("policy_gradient.active_sampling", "data.sampler"),
        resampling_exhausted,
    ),
)
