"""Advantages of sampled tokens from the log-probabilities of a teacher: on-policy distillation."""

from __future__ import annotations

import numpy as np


def reverse_kl(student_R: np.ndarray, teacher_R: np.ndarray) -> np.ndarray:
    """Estimate of KL(student || teacher) per sampled token, log p - log q, float64 [R]: unbiased, and at times below 0.

    p is the policy that the tokens are weighed for, q the teacher; both given as log-probabilities of the tokens.
    """
    return np.asarray(student_R, dtype=np.float64) - np.asarray(teacher_R, dtype=np.float64)


def distill(
    student_R: np.ndarray, teacher_R: np.ndarray, task_advantage: float, kl_weight: float, task_weight: float
) -> np.ndarray:
    """A_t = task_weight A - kl_weight (log p_t - log q_t), p the student, q the teacher (arXiv:2306.13649, sampled).

    Each token answers for its own divergence alone (a discount of 0): over sampled tokens, the mean of A_t grad log p_t
    is the negative gradient of KL(p || q) of the next token, with the contexts that the student visits held fixed. A is
    the completion's advantage in the task, r - mean of the group.
    """
    advantages_R: np.ndarray = task_weight * task_advantage - kl_weight * reverse_kl(student_R, teacher_R)
    return advantages_R
