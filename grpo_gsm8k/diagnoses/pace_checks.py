"""Checks of time and machines: who waits for whom, and why; memory; restarts."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any, Final

from grpo_gsm8k.diagnoses.reward_checks import TIED
from grpo_gsm8k.diagnoses.run_diagnosis import Check, Found
from grpo_gsm8k.diagnoses.run_record import MIN_UPDATES, RunRecord, number, percent, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

LEARNER_IDLE: Final = 0.4  # of the wall time; generation and learning never take exactly the same time
ACTOR_IDLE: Final = 0.5  # higher: an idle engine costs less than an idle learner, if both share a machine
BUSY: Final = 0.15  # a process that waits less than this is the bottleneck
GRADING: Final = 0.2  # of the wall time; grading that keeps up with the engine costs the learner next to nothing
BOTH_IDLE: Final = 0.2  # of the wall time; a sum of idle shares of 1 is only taking turns
TURNS: Final = 0.3  # an engine that waits longer is not what the learner waits for, or they take turns
BLOCKED: Final = 0.25  # of the wall time; the demo with a validation in 10 updates stays below 0.15
FREE_UPDATES: Final = 3  # updates without a validation to compare with; fewer have no meaningful median


def learner_waits(record: RunRecord) -> Found | None:
    """The learner is idle because completions come too slowly."""
    idle, actor = record.over_time("time/learner_idle_frac"), record.over_time("time/actor_idle_frac")
    tied = record.late("train/frac_zero_variance_groups") or 0.0  # a learner without a signal has nothing to compute
    if idle is None or idle < LEARNER_IDLE or tied >= TIED or record.fine_tuning or validation_blocks(record):
        return None
    advice = _faster_generation(record)
    if grading_blocks(record) or not advice:
        return None
    waits = "" if actor is None else f", the engine {percent(actor)}"
    rates, engines = record.series("rollout/tokens_per_s"), record.amount("actor.replicas") or 1.0
    rate = f"; {statistics.fmean(rates) / engines:.0f} tokens/s per engine, {engines:.0f} of them" if rates else ""
    return Found(f"the learner waits {percent(idle)} of the time{waits}{rate}", advice)


def grading_blocks(record: RunRecord) -> Found | None:
    """The learner waits until completions that have arrived are graded."""
    waits = None if record.fine_tuning else _waits_for_grades(record)
    if waits is None:
        return None
    return Found(
        waits,
        "make the functions of policy_gradient.rewards_file faster, or failing ones right"
        if record.setting("policy_gradient.rewards_file")
        else f"answers of prompt.answer_kind={record.setting('prompt.answer_kind')} take long to grade: lower "
        "policy_gradient.episodes_per_update, or add cores",
    )


def _waits_for_grades(record: RunRecord) -> str | None:
    """Return the evidence that grading is slow; None if it is not.

    Earlier versions counted grading as idle time of the learner: they show it where neither process works.
    """
    idle, actor = record.over_time("time/learner_idle_frac"), record.over_time("time/actor_idle_frac")
    graded = [(number(u.get("time/grading_s")), _took(u)) for u in record.updates]
    known = [(waited, seconds) for waited, seconds in graded if waited is not None and seconds]
    if known:
        share = math.fsum(waited for waited, _ in known) / math.fsum(seconds for _, seconds in known)
        late = record.long and share >= GRADING
        return f"the learner waits {percent(share)} of the time for completions to be graded" if late else None
    if idle is None or actor is None or idle + actor < 1 + BOTH_IDLE:
        return None
    return f"the learner waits {percent(idle)} of the time, the engine {percent(actor)}: both wait for grades"


def _faster_generation(record: RunRecord) -> str:
    """Return which setting would help: overlap, sequences at once, engines, threads, or shorter completions.

    Empty if none is known to.
    """
    engines = int(record.amount("actor.replicas") or 1)
    at_once, wanted = record.amount("actor.max_num_seqs"), record.amount("policy_gradient.episodes_per_update")
    actor = record.over_time("time/actor_idle_frac")
    if record.setting("policy_gradient.max_staleness") == 0 and (actor is None or actor > TURNS):
        return "generate during the update: policy_gradient.max_staleness=1 (now 0)"
    if actor is not None and actor > TURNS:  # the engine is not the bottleneck
        return _fewer_further_prompts(record)
    if at_once and wanted and at_once * engines < wanted:
        each = math.ceil(wanted / engines)
        return f"raise actor.max_num_seqs (now {at_once:g}, an update has {each} completions per engine)"
    if record.setting("actor.device") == "cpu":
        return _more_cores(record, "actor")
    gpus, taken = _gpus(record), engines + _own_devices(record)
    if gpus > taken:
        more = engines + gpus - taken
        # Engines count up from actor.device, and the learner must be on the GPU of none but the first.
        learner = _learner_on(more, _own_devices(record))
        places = f" actor.device=cuda:0{learner}" if learner else ""
        return f"set actor.replicas={more} (now {engines}){places}: this run uses {taken} of {gpus} GPUs"
    if record.setting("actor.enforce_eager"):
        return "set actor.enforce_eager=false (now true), which compiles the engine's model"
    return "add a GPU and raise actor.replicas, or lower policy_gradient.max_new_tokens"


def _fewer_further_prompts(record: RunRecord) -> str:
    drawn = record.late("rollout/resampled_prompts")
    if not drawn:
        return ""
    return (
        f"{drawn:.1f} further prompts in an update are requested only after the first ones turned out to be tied: set "
        "data.sampler=difficulty, or lower policy_gradient.active_sampling"
    )


def _gpus(record: RunRecord) -> int:
    """Return how many GPUs the run could use: those that CUDA_VISIBLE_DEVICES selected."""
    usable = number(record.machine.get("usable_gpus"))  # absent in older runs
    return len(record.machine.get("gpus") or ()) if usable is None else int(usable)


def _own_devices(record: RunRecord) -> int:
    """Return how many GPUs the learner has for itself; 0 if it shares the actor's or uses none."""
    if devices := record.setting("learner.devices"):  # absent in older runs
        return len(devices)
    learner = record.setting("learner.device")
    return int(learner not in ("cpu", record.setting("actor.device")))


def _learner_on(first: int, count: int) -> str:
    """Return the overrides that put the learner on `count` GPUs of its own from `first` on; empty for none."""
    if not count:
        return ""
    listed = ",".join(f"cuda:{first + i}" for i in range(count))
    return f" learner.device=cuda:{first}" + (f" learner.devices=[{listed}]" if count > 1 else "")


def _more_cores(record: RunRecord, process: str) -> str:
    """Return advice on CPU threads for the process that the other one waits for."""
    key, cores = f"{process}.threads", _cores(record)
    threads = {name: record.amount(f"{name}.threads") or 1.0 for name in ("actor", "learner")}
    engines = record.amount("actor.replicas") or 1.0
    ranks = record.amount("learner.ranks") or 1.0
    unused = (cores or 0.0) - threads["actor"] * engines - threads["learner"] * ranks
    processes = engines if process == "actor" else ranks
    if unused >= processes:
        more = threads[process] + unused // processes
        return f"set {key}={more:g} (now {threads[process]:g}): {unused:g} of {cores:g} cores are unused"
    other = "learner" if process == "actor" else "actor"
    known = "" if cores is None else f", on {cores:g} cores"
    if threads[other] > 1:
        return f"raise {key} (now {threads[process]:g}) and lower {other}.threads (now {threads[other]:g}){known}"
    # With learner.threads=2 beside an engine on 2 busy cores an update of PPO took 15 to 18 s instead of 4 s.
    return (
        f"add cores, and raise {key} by as many (now {threads[process]:g}{known}; more threads than cores are slower)"
    )


def _cores(record: RunRecord) -> float | None:
    """Return how many cores the run may use: those of its process, within the container's limit; None if unknown."""
    usable = number(record.machine.get("usable_cores"))
    quota, _, period = str(record.machine.get("container_cpu_limit") or "max").partition(" ")  # of cpu.max, in us
    if usable is None or not (quota.isdigit() and period.isdigit()):
        return usable
    return min(usable, float(max(int(quota) // max(int(period), 1), 1)))


def actor_waits(record: RunRecord) -> Found | None:
    """The engine is idle because the learner computes all the time."""
    idle, learner = record.over_time("time/actor_idle_frac"), record.over_time("time/learner_idle_frac")
    if idle is None or learner is None or idle < ACTOR_IDLE or learner > BUSY or record.fine_tuning:
        return None
    return Found(
        f"the engine waits {percent(idle)} of the time, the learner {percent(learner)}", _faster_update(record)
    )


def _faster_update(record: RunRecord) -> str:
    if record.setting("learner.device") == "cpu":
        return _more_cores(record, "learner")
    if record.setting("learner.gradient_checkpointing"):
        return "set learner.gradient_checkpointing=false (now true) if memory allows"
    budget, tokens = record.amount("learner.token_budget"), record.series("rollout/tokens")
    if budget and tokens and statistics.fmean(tokens) > 4 * budget:
        return f"raise learner.token_budget (now {budget:g}) if memory allows, or set learner.compile=true"
    return "set learner.compile=true, or give the engine's share of the hardware to the learner (actor.replicas)"


def validation_blocks(record: RunRecord) -> Found | None:
    """Completions for training wait behind validations."""
    lost, waits = _lost_to_validation(record), record.over_time("time/learner_idle_frac")
    total = math.fsum(record.series("time/step_s"))
    if lost is None or waits is None or lost < max(BLOCKED, waits / 2) * total:
        return None  # or most of the wait has another reason
    section = "sft" if record.fine_tuning else "policy_gradient"
    return Found(
        f"the learner waits {percent(waits)} of the time, {percent(lost / total)} because of "
        f"{len(record.validations)} validations in {len(record.updates)} updates",
        f"raise {record.now(f'{section}.eval_every')}, or validate on fewer problems: {section}.eval_limit",
    )


def _lost_to_validation(record: RunRecord) -> float | None:
    """Return the seconds that the learner waited because of validations; None for short runs.

    That is the wait beyond the median wait of updates that follow no validation, at most as long as the validations. If
    nearly all updates follow one, it is the wait times the validation's share of the generated tokens.
    """
    validated = {int(number(v.get("version")) or 0): v for v in record.validations}
    later = record.updates[1:]  # the first update waits for the engine's first completions as well
    waits = [(u, idle * took) for u in later if (idle := _idle(u)) is not None and (took := _took(u))]
    if len(waits) < MIN_UPDATES - 1 or not validated:
        return None
    # Until the validation of version n is done, the engine does not load version n + 1, whose first completions are
    # those of update n + 2 + max_staleness. Earlier versions made those of the update before it wait as well.
    last = 2 + int(record.amount("policy_gradient.max_staleness") or 0)
    behind = [(u, w, [validated[n] for n in range(_step(u) - last, _step(u)) if n in validated]) for u, w in waits]
    free = [wait for _, wait, behind_of in behind if not behind_of]
    lost = []
    for update, wait, found in behind:
        if len(free) < FREE_UPDATES:
            tokens = max((_tokens(v) for v in found), default=0.0)
            extra = wait * tokens / (tokens + (number(update.get("rollout/tokens")) or math.inf))
        else:
            extra = max(wait - statistics.median(free), 0.0)
        lost.append(min(extra, max((number(v.get("seconds")) or 0.0 for v in found), default=0.0)))
    return min(math.fsum(lost), math.fsum(number(v.get("seconds")) or 0.0 for v in validated.values()))


def _step(update: Mapping[str, Any]) -> int:
    return int(number(update.get("step")) or 0)


def _idle(update: Mapping[str, Any]) -> float | None:
    return number(update.get("time/learner_idle_frac"))


def _took(update: Mapping[str, Any]) -> float | None:
    return number(update.get("time/step_s"))


def _tokens(validation: Mapping[str, Any]) -> float:
    """Number of tokens that a validation generated."""
    return (number(validation.get("n")) or 0.0) * (number(validation.get("length_mean")) or 0.0)


def memory_budget_halved(record: RunRecord) -> Found | None:
    """The learner ran out of memory and continued with smaller micro-batches."""
    events = [event for event in record.events if event.get("kind") == "out_of_memory"]
    times = max([*record.series("learner/oom_halvings"), float(len(events))])
    if not times:
        return None
    budget = record.amount("learner.token_budget")
    left = number(events[-1].get("token_budget")) if events else budget and budget * 0.5**times
    now = "" if left is None else f" from {whole(budget)} to {whole(left // 1)} tokens"
    fits = "what fits" if left is None else f"{left // 1:g}"
    return Found(
        f"out of memory {times:.0f} times: the micro-batch was halved{now}",
        f"set learner.token_budget={fits} from the start, or learner.gradient_checkpointing=true for larger ones",
    )


def workers_restarted(record: RunRecord) -> Found | None:
    """A worker process was replaced."""
    restarts = [e for e in record.events if e.get("kind") in ("actor_restarted", "learner_restarted")]
    if not restarts:
        return None
    workers = sorted({str(event["kind"]).partition("_")[0] for event in restarts})
    reason = " ".join(str(restarts[-1].get("reason", "unknown")).split())[:120]
    limit = "start_timeout_s" if reason.startswith("not ready") else "progress_timeout_s"
    keys = [f"{worker}.{limit}" for worker in workers]
    if reason.startswith("RankError"):  # of a learner of several ranks
        keys = ["learner.rank_timeout_s"]
    return Found(
        f"{' and '.join(workers)} replaced {len(restarts)} times, last because: {reason}",
        f"logs/ has the output of each; if it was only slow, raise {' or '.join(keys)}",
    )


CHECKS: Final = (
    Check(
        "learner_waits_for_generation",
        "note",
        f"`time/learner_idle_frac` at least {LEARNER_IDLE:g}, and neither validation nor grading is the reason",
        (
            "policy_gradient.max_staleness",
            "policy_gradient.active_sampling",
            "data.sampler",
            "actor.max_num_seqs",
            "actor.replicas",
            "actor.device",
            "learner.device",
            "learner.devices",
            "actor.threads",
            "actor.enforce_eager",
            "policy_gradient.max_new_tokens",
        ),
        learner_waits,
    ),
    Check(
        "grading_blocks_both",
        "note",
        f"`time/grading_s` at least {percent(GRADING)} of the wall time; in runs without it, sum of "
        f"`time/learner_idle_frac` and `time/actor_idle_frac` at least {1 + BOTH_IDLE:g}",
        ("policy_gradient.rewards_file", "prompt.answer_kind", "policy_gradient.episodes_per_update"),
        grading_blocks,
    ),
    Check(
        "actor_waits_for_learner",
        "note",
        f"`time/actor_idle_frac` at least {ACTOR_IDLE:g} and `time/learner_idle_frac` at most {BUSY:g}",
        (
            "learner.threads",
            "learner.token_budget",
            "learner.gradient_checkpointing",
            "learner.compile",
            "actor.replicas",
        ),
        actor_waits,
    ),
    Check(
        "validation_blocks_generation",
        "note",
        f"waits of the learner behind validations (`val/seconds`) are at least {percent(BLOCKED)} of the wall time, "
        "and half of its waits",
        (
            "policy_gradient.eval_every",
            "policy_gradient.eval_limit",
            "sft.eval_every",
            "sft.eval_limit",
        ),
        validation_blocks,
    ),
    Check(
        "memory_budget_halved",
        "warning",
        "an event `out_of_memory`, or `learner/oom_halvings` above 0",
        ("learner.token_budget", "learner.gradient_checkpointing"),
        memory_budget_halved,
    ),
    Check(
        "workers_restarted",
        "warning",
        "an event `actor_restarted` or `learner_restarted`",
        (
            "actor.progress_timeout_s",
            "learner.progress_timeout_s",
            "actor.start_timeout_s",
            "learner.start_timeout_s",
            "learner.rank_timeout_s",
        ),
        workers_restarted,
    ),
)
