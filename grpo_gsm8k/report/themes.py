"""Which panels a report has: each metric of the registry, grouped by what it tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Panel:
    """One small figure: lines of `names`, the first one solid, and areas between pairs of metrics in `bands`."""

    title: str
    names: tuple[str, ...]
    labels: tuple[str, ...] = ()  # of the lines, if there are several
    bands: tuple[tuple[str, str], ...] = ()  # lower and upper end, wider ones first
    tickformat: str = ""
    caption: str = ""  # instead of the meanings of the metrics

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics that the panel shows."""
        return (*self.names, *(name for pair in self.bands for name in pair))


def _panel(title: str, *names: str, labels: tuple[str, ...] = (), percent: bool = False) -> Panel:
    return Panel(title, names, labels, tickformat=".2~%" if percent else "")


REWARD_PARTS: Final = "Reward"  # the theme that gets a panel per part of the reward
THEMES: Final[dict[str, tuple[Panel, ...]]] = {
    "Reward": (
        _panel("Reward", "train/reward_mean"),
        Panel(
            "Reward distribution",
            ("rollout/reward_p50",),
            ("median",),
            bands=(("rollout/reward_p10", "rollout/reward_p90"), ("rollout/reward_p25", "rollout/reward_p75")),
            caption="Median of the total rewards; shaded: the middle 50 % and the middle 80 % of the completions.",
        ),
        _panel("Groups without variance", "train/frac_zero_variance_groups", percent=True),
        _panel("Advantage, standard deviation", "train/advantage_std"),
        _panel("Mean return", "train/return_mean"),
        _panel("Failures of reward functions", "rollout/reward_errors"),
        _panel("Gradings that reached a limit", "rollout/grading_failed"),
    ),
    "Completions": (
        _panel("Completion length", "rollout/length_mean"),
        _panel("Completions at the token limit", "rollout/truncated_frac", percent=True),
        _panel("Left out as overlong", "train/overlong_frac", percent=True),
        _panel("Extra prompts requested", "rollout/resampled_prompts"),
        _panel("Prompts skipped", "rollout/skipped_prompts"),
        _panel("Groups dropped as too stale", "rollout/dropped_groups"),
        _panel("Tokens too stale for the loss", "rollout/stale_tokens_frac", percent=True),
    ),
    "Validation": (
        _panel("Validation: wrong result", "val/logic_error_frac", percent=True),
        _panel("Validation: no readable result", "val/format_error_frac", percent=True),
        _panel("Validation: ended by the token limit", "val/truncated_frac", percent=True),
        _panel("Validation: answer length", "val/length_mean"),
        _panel("Validation: seconds", "val/seconds"),
    ),
    "Policy update": (
        _panel("Loss", "train/loss", "train/policy_loss", labels=("all terms", "policy")),
        _panel("Perplexity", "train/perplexity"),
        _panel("Token accuracy", "train/token_accuracy", percent=True),
        _panel("Entropy", "train/entropy"),
        _panel("KL, before to during the update", "train/approx_kl"),
        _panel("KL, behavior to policy", "train/kl_behaviour"),
        _panel("KL to the reference", "train/kl_reference"),
        _panel("KL coefficient", "train/kl_coef"),
        _panel("KL to the teacher", "distill/reverse_kl"),
        _panel("Pairs: loss", "train/pair_loss"),
        _panel("Pairs: better one has the larger score", "train/pair_accuracy", percent=True),
        _panel("Pairs: margin", "train/pair_margin"),
        _panel(
            "Clip fraction",
            *("train/clip_frac", "train/clip_frac_low", "train/clip_frac_high"),
            labels=("all", "ratio below 1", "ratio above 1"),
        ),
        Panel(
            "Importance ratio",
            ("train/ratio_mean",),
            ("mean",),
            bands=(("train/ratio_min", "train/ratio_max"),),
            caption="Mean importance ratio of a trained token; shaded: from the smallest to the largest.",
        ),
        _panel("Correction weight", "train/correction_mean"),
        _panel("Masked by the correction", "train/correction_masked_frac", percent=True),
        _panel("Gradient norm", "train/grad_norm"),
        _panel("Learning rate", "train/lr"),
        _panel("Optimizer steps", "train/optimizer_steps", "train/skipped_steps", labels=("applied", "skipped")),
        _panel("Epochs on a batch", "train/epochs"),
    ),
    "Critic": (
        _panel("Value loss", "train/value_loss"),
        _panel("Value clip fraction", "train/value_clip_frac"),
        _panel("Explained variance", "train/explained_variance"),
        _panel("Critic: gradient norm", "train/value_grad_norm"),
    ),
    "Engine and learner": (
        _panel("Staleness", "rollout/staleness_mean", "rollout/staleness_max", labels=("mean", "largest")),
        _panel(
            "Log-probability gap, engine to learner",
            *("sync/logprob_gap_mean", "sync/logprob_gap_max"),
            labels=("mean", "largest"),
        ),
        _panel("Canary gap, engine to learner", "sync/canary_gap"),
        _panel(
            "Seconds to publish, verify and load",
            *("sync/publish_s", "sync/verify_s", "sync/load_s"),
            labels=("publish", "verify", "load (pause)"),
        ),
        _panel("Damaged weights published again", "sync/published_again"),
    ),
    "Speed": (
        _panel("Seconds per update", "time/step_s"),
        _panel("Seconds of waiting for grades", "time/grading_s"),
        _panel("Seconds of the teacher", "time/teacher_s"),
        _panel("Seconds of standing still for a checkpoint", "time/checkpoint_s"),
        _panel("Idle", "time/learner_idle_frac", "time/actor_idle_frac", labels=("learner", "actor"), percent=True),
        _panel("Sampled tokens per second", "rollout/tokens_per_s"),
        _panel("Trained tokens per second", "train/tokens_per_s"),
        _panel("Sampled tokens", "rollout/tokens"),
        _panel("Response tokens", "train/response_tokens"),
    ),
    "Memory": (
        _panel(
            "Resident memory, GiB",
            *("mem/learner_rss", "mem/actor_rss", "mem/orchestrator_rss"),
            labels=("learner", "actors", "orchestrator"),
        ),
        _panel("Memory in use on the machine, GiB", "mem/host_used"),
        _panel(
            "GPU memory of the learner, GiB",
            *("mem/learner_gpu_held", "mem/learner_gpu_used"),
            labels=("held", "in use"),
        ),
        _panel("GPU memory of the actors, GiB", "mem/actor_gpu_held"),
        _panel("Token budget halvings", "learner/oom_halvings"),
    ),
}
OMITTED: Final[dict[str, str]] = {
    "train/epoch": "a straight line over the updates; the tile `Updates` shows its last value",
    "val/accuracy": "drawn with its interval in the learning curves",
    "val/accuracy_ci_low": "the band of the learning curves",
    "val/accuracy_ci_high": "the band of the learning curves",
    "val/version": "the x axis of the panels about validation",
    "val/n": "constant in a run; named in the tile of the accuracy",
}
