"""Losses over pairs of completions of one prompt, of which one is preferred (DPO and IPO)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy.special import expit

PairLoss = Literal["sigmoid", "ipo"]


class PairLosses(NamedTuple):
    """The loss of one group of N completions, the mean over its P pairs; 0 and empty for a group without pairs."""

    loss: float
    gradient_N: np.ndarray  # float64: of the loss, with respect to each completion's score
    pair_losses_P: np.ndarray  # float64
    margins_P: np.ndarray  # float64: score of the better completion less that of the other one


def pair_losses(scores_N: np.ndarray, order_N: np.ndarray, beta: float, kind: PairLoss) -> PairLosses:
    """Compare every two completions of a group that `order_N` tells apart; the larger one is the better.

    A score is log pi(y) - log pi_ref(y), a sum over the tokens of completion y; h is the difference of the scores of a
    pair. `sigmoid` is -log sigmoid(beta h) (DPO, arXiv:2305.18290, eq. 7), `ipo` is (h - 1 / (2 beta))^2 (IPO,
    arXiv:2310.12036, eq. 17). Of a group of two this is the loss of online DPO (arXiv:2402.04792).
    """
    better_P, worse_P = np.nonzero(order_N[:, None] > order_N[None, :])
    scores_N = np.asarray(scores_N, dtype=np.float64)
    gradient_N = np.zeros(len(scores_N))
    margins_P = scores_N[better_P] - scores_N[worse_P]
    if not len(margins_P):
        return PairLosses(0.0, gradient_N, margins_P, margins_P)
    if kind == "sigmoid":
        losses_P, slopes_P = np.logaddexp(0.0, -beta * margins_P), -beta * expit(-beta * margins_P)
    else:
        distance_P = margins_P - 1 / (2 * beta)
        losses_P, slopes_P = distance_P**2, 2 * distance_P
    np.add.at(gradient_N, better_P, slopes_P / len(margins_P))
    np.subtract.at(gradient_N, worse_P, slopes_P / len(margins_P))
    return PairLosses(float(losses_P.mean()), gradient_N, losses_P, margins_P)
