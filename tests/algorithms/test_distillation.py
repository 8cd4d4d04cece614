"""Advantages of on-policy distillation, and that their expected gradient is that of the reverse KL."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from grpo_gsm8k.algorithms.distillation import distill, reverse_kl


def test_by_hand() -> None:
    student, teacher = np.array([-1.0, -2.0, -0.5]), np.array([-1.5, -1.0, -0.5])
    assert reverse_kl(student, teacher).tolist() == [0.5, -1.0, 0.0]
    assert distill(student, teacher, 0.75, 2.0, 4.0).tolist() == [3.0 - 1.0, 3.0 + 2.0, 3.0]
    assert distill(student, teacher, 0.75, 1.0, 0.0).tolist() == [-0.5, 1.0, 0.0]  # the task is left out


def test_small_divergences_survive_float32_inputs() -> None:
    student = np.array([-7.25], dtype=np.float32)
    teacher = student - np.float32(2**-20)
    assert reverse_kl(student, teacher).tolist() == [2**-20]
    assert reverse_kl(student, teacher).dtype == np.float64


def test_the_expected_gradient_is_that_of_the_reverse_kl() -> None:
    """Over all outcomes of one token, by enumeration: -E[A grad log p] = grad KL(p || q), times the weight."""
    torch.manual_seed(0)
    logits = torch.randn(7, dtype=torch.float64, requires_grad=True)
    teacher = torch.log_softmax(torch.randn(7, dtype=torch.float64), 0)
    logprobs = torch.log_softmax(logits, 0)
    (wanted,) = torch.autograd.grad((logprobs.exp() * (logprobs - teacher)).sum(), logits, retain_graph=True)
    advantages = torch.from_numpy(distill(logprobs.detach().numpy(), teacher.numpy(), 0.0, 0.3, 0.0))
    surrogate = -(logprobs.detach().exp() * advantages * logprobs).sum()
    (found,) = torch.autograd.grad(surrogate, logits)
    assert found.numpy() == pytest.approx(0.3 * wanted.numpy(), rel=1e-12, abs=1e-15)


def test_of_a_sequence_it_is_that_of_each_token_in_the_contexts_that_the_student_visits() -> None:
    """Sequences of a Markov chain of 3 tokens and 3 steps, all 27 of them; not the gradient of the sequences' KL."""
    torch.manual_seed(1)
    tables = torch.randn(3, 4, 3, dtype=torch.float64, requires_grad=True)  # by step and token before (3: none)
    teacher = torch.log_softmax(torch.randn(3, 4, 3, dtype=torch.float64), -1)
    logprobs = torch.log_softmax(tables, -1)
    kl_SC = (logprobs.exp() * (logprobs - teacher)).sum(-1)
    per_token = surrogate = whole = torch.zeros((), dtype=torch.float64)
    for tokens in itertools.product(range(3), repeat=3):
        before = (3, *tokens[:2])
        steps = [logprobs[t, before[t], tokens[t]] for t in range(3)]
        scores = [teacher[t, before[t], tokens[t]] for t in range(3)]
        chance = torch.stack(steps).sum().exp()
        per_token = per_token + chance.detach() * sum(kl_SC[t, before[t]] for t in range(3))
        whole = whole + chance * (torch.stack(steps).sum() - torch.stack(scores).sum())
        values = [np.array([float(value.detach()) for value in column]) for column in (steps, scores)]
        advantages = distill(*values, 0.0, 1.0, 0.0)
        surrogate = surrogate - chance.detach() * sum(float(a) * lp for a, lp in zip(advantages, steps, strict=True))
    found, wanted, other = (
        torch.autograd.grad(value, tables, retain_graph=True)[0] for value in (surrogate, per_token, whole)
    )
    assert found.numpy() == pytest.approx(wanted.numpy(), rel=1e-10, abs=1e-14)
    assert (found - other).abs().max() > 1e-3
