"""Weights of columns by one differentiable step of the reference learner.

After FLYT and M-FLYT (Shechter and Carmon 2025, arXiv 2503.08805): a batch of the pool is weighted by a softmax of the
mix, the reference learner takes a gradient step on the weighted loss, and the loss of the stepped learner on the
reference pairs is differentiated, through the step, by the weights of the columns. The learner keeps its step.
"""

import numpy as np

from pipeline.mixing import reference_learner
from pipeline.mixing.pairs import Floats, Pairs

STEPS, RATE = 100, 0.05
"""Steps, and the learning rate of Adam for the weights of the columns."""


def learn(columns: Floats, pool: Pairs, reference: Pairs, seed: int) -> Floats:
    """A weight for each of the standardised `columns` of the pool: float64 [columns]."""
    import torch

    images, texts, pictures = reference_learner.tensors(pool)
    clean_images, clean_texts, clean_pictures = reference_learner.tensors(reference)
    standardised = torch.from_numpy(columns.astype(np.float32))
    mix = torch.zeros(columns.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([mix], lr=RATE)
    learner, random = reference_learner.identity(pool), np.random.default_rng(seed)
    for _ in range(STEPS):
        learner.requires_grad_()
        rows = reference_learner.draw(random, len(pool))
        each = reference_learner.losses(learner, images[rows], texts[rows], pictures[rows])
        shares = torch.softmax(standardised[rows] @ mix, dim=0)
        (gradient,) = torch.autograd.grad(shares @ each, learner, create_graph=True)
        stepped = learner - reference_learner.RATE * gradient
        clean = reference_learner.draw(random, len(reference))
        loss = reference_learner.losses(stepped, clean_images[clean], clean_texts[clean], clean_pictures[clean]).mean()
        (mix.grad,) = torch.autograd.grad(loss, [mix])
        optimizer.step()
        learner = stepped.detach()
    found: Floats = mix.detach().numpy().astype(np.float64)
    return found
