"""Weights of columns by logistic regression of reference pairs against pairs of the pool.

The pool holds right pairs, too: the regression does not tell right from wrong, but typical of the reference from
typical of the pool. The order of the scores is what is used.
"""

import numpy as np

from pipeline.mixing.pairs import Floats

ROUNDS = 50
"""Newton's steps, at most. Ten are usual."""

PENALTY = 1e-3
"""Of squared weights, beside the mean loss: it bounds the weight of a column that separates both sides alone."""


def learn(pool: Floats, reference: Floats) -> Floats:
    """A weight for each standardised column: float64 [columns], of pairs [pairs, columns] of both sides.

    Both sides count equally, however many pairs they have.
    """
    inputs = np.concatenate([pool, reference])
    inputs = np.column_stack([inputs, np.ones(len(inputs))])
    label = np.repeat([0.0, 1.0], (len(pool), len(reference)))
    share = np.repeat([0.5 / len(pool), 0.5 / len(reference)], (len(pool), len(reference)))
    penalty = np.append(np.full(pool.shape[1], PENALTY), 1e-9)
    weights = np.zeros(inputs.shape[1])
    for _ in range(ROUNDS):
        chance = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        slope = inputs.T @ (share * (chance - label)) + penalty * weights
        curve = (inputs * (share * chance * (1 - chance))[:, None]).T @ inputs + np.diag(penalty)
        change = np.linalg.solve(curve, slope)
        weights -= change
        if np.abs(change).max() < 1e-8:
            break
    found: Floats = weights[:-1]
    return found
