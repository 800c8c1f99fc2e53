"""Losses of pairs against a reference that is written out pair by pair in float64, and against open_clip's."""

import math

import numpy as np
import open_clip.loss
import pytest
import torch
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from training.objectives.scale import MAX_LOG_SCALE, clamp_scale, start
from training.objectives.sigmoid import sigmoid
from training.objectives.soft_targets import soft_targets
from training.objectives.softmax import TEMPERATURE, contrastive, softmax

PAIRS, DIM = 12, 8
GROUP = torch.tensor([0, 1, 2, 0, 3, 4, 0, 5, 2, 6, 7, 8])
ALONE = torch.arange(PAIRS)


def embeddings(seed=0, pairs=PAIRS, dtype=torch.float32, unit=True):
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(2, pairs, DIM, generator=generator, dtype=torch.float64)
    made = (normalize(made, dim=-1) if unit else made).to(dtype)
    return made[0].clone().requires_grad_(), made[1].clone().requires_grad_()


def number(value, dtype=torch.float32):
    return torch.tensor(value, dtype=dtype, requires_grad=True)


def gradients(loss, *leaves):
    value = loss(*leaves)
    return [value.detach().double(), *(each.double() for each in torch.autograd.grad(value, leaves))]


def doubles(leaves):
    return [each.detach().double().requires_grad_() for each in leaves]


def assert_near(one, other, within=1e-6):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=within, atol=within)


def written_softmax(group):
    def loss(images, texts, scale):
        total = 0
        for here, there in ((images, texts), (texts, images)):
            for i in range(PAIRS):
                logits = [scale * (here[i] * there[j]).sum() for j in range(PAIRS)]
                whole = torch.stack([each.exp() for each in logits]).sum().log()
                matches = [j for j in range(PAIRS) if group[i] == group[j]]
                total = total - sum(logits[j] - whole for j in matches) / len(matches)
        return total / PAIRS / 2

    return loss


def written_sigmoid(group):
    def loss(images, texts, scale, bias):
        total = 0
        for i in range(PAIRS):
            for j in range(PAIRS):
                z = 1 if group[i] == group[j] else -1
                total = total - torch.log(1 / (1 + torch.exp(-z * (scale * (images[i] * texts[j]).sum() + bias))))
        return total / PAIRS

    return loss


def written_soft_targets(images, texts):
    """The tutorial's lines in numpy's terms: [i, j] is caption i with picture j."""
    likeness = [
        [((images[i] * images[j]).sum() + (texts[i] * texts[j]).sum()) / 2 for j in range(PAIRS)] for i in range(PAIRS)
    ]
    targets = [[like.exp() / sum(each.exp() for each in row) for like in row] for row in likeness]
    dots = [[(texts[i] * images[j]).sum() for j in range(PAIRS)] for i in range(PAIRS)]
    total = 0
    for i in range(PAIRS):
        row = torch.stack(dots[i]).exp().sum().log()
        column = torch.stack([dots[j][i] for j in range(PAIRS)]).exp().sum().log()
        total = total - sum(targets[i][j] * (dots[i][j] - row) for j in range(PAIRS))
        total = total - sum(targets[j][i] * (dots[j][i] - column) for j in range(PAIRS))
    return total / 2 / PAIRS


@pytest.mark.parametrize("group", [None, GROUP])
def test_softmax_is_the_reference(group):
    leaves = [*embeddings(), number(14.3)]
    made = gradients(lambda *each: softmax(*each, group), *leaves)
    assert_near(made, gradients(written_softmax(ALONE if group is None else group), *doubles(leaves)))


@pytest.mark.parametrize("group", [None, GROUP])
@pytest.mark.parametrize("chunk", [0, 5])
def test_sigmoid_is_the_reference(group, chunk):
    leaves = [*embeddings(), number(10.0), number(-2.4)]
    made = gradients(lambda *each: sigmoid(*each, group, chunk), *leaves)
    assert_near(made, gradients(written_sigmoid(ALONE if group is None else group), *doubles(leaves)))


def test_soft_targets_are_the_reference_with_gradients_through_the_targets():
    leaves = embeddings(unit=False)
    made = gradients(soft_targets, *leaves)
    assert_near(made, gradients(written_soft_targets, *doubles(leaves)))
    images, texts = doubles(leaves)
    detached = ((images @ images.T + texts @ texts.T) / 2).softmax(dim=-1).detach()
    without = torch.autograd.grad(-(detached * (texts @ images.T).log_softmax(dim=-1)).sum() / PAIRS, images)[0]
    assert not torch.allclose(without, made[1], atol=1e-3)


def test_softmax_and_sigmoid_are_those_of_open_clip():
    leaves = [*embeddings(1), number(20.0)]
    assert_near(gradients(softmax, *leaves), gradients(open_clip.loss.ClipLoss(), *leaves))
    leaves.append(number(-10.0))
    theirs = gradients(open_clip.loss.SigLipLoss(), *leaves)
    assert_near(gradients(sigmoid, *leaves), theirs)
    assert_near(gradients(lambda *each: sigmoid(*each, chunk=4), *leaves), theirs)


def test_the_contrastive_loss_is_softmax_at_a_fixed_temperature():
    images, texts = embeddings(2)
    fixed, free = contrastive(images, texts, GROUP), softmax(images, texts, 1 / TEMPERATURE, GROUP)
    torch.testing.assert_close(fixed, free, rtol=1e-6, atol=1e-6)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, torch.Tensor):
                self.elements = max(self.elements, each.numel())
        return made


def cost(pairs, **chunk):
    """Of the sigmoid: the largest tensor, in elements, and the bytes that are saved for the backward pass."""
    images, texts = embeddings(pairs=pairs)
    saved = {}

    def keep(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(keep, lambda each: each):
        loss = sigmoid(images, texts, number(10.0), number(-10.0), **chunk)
    with largest:
        loss.backward()
    return largest.elements, sum(saved.values())


def test_a_chunked_sigmoid_never_holds_the_matrix():
    pairs, chunk = 256, 16
    elements, saved = cost(pairs)
    assert elements >= pairs * pairs
    assert saved >= 4 * pairs * pairs
    elements, saved = cost(pairs, chunk=chunk)
    assert elements <= pairs * max(chunk, DIM)
    assert saved < 4 * pairs * pairs / 4


def test_matches_of_a_picture_are_not_pushed_apart():
    """Two captions of one picture with equal embeddings: as matches they are at the optimum of the softmax."""
    images = texts = normalize(torch.eye(3)[[0, 0, 1, 2]], dim=-1)
    group = torch.tensor([0, 0, 1, 2])
    assert softmax(images, texts, 100.0, group) == pytest.approx(math.log(2) / 2, abs=1e-6)
    assert sigmoid(images, texts, 100.0, -50.0, group) == pytest.approx(0, abs=1e-6)
    assert sigmoid(images, texts, 100.0, -50.0) == pytest.approx(50 * 2 / 4, abs=1e-4)


def test_the_start_of_scale_and_bias():
    assert start("softmax", "paper", 8) == (pytest.approx(2.6593, abs=1e-4), None)
    assert start("sigmoid", "paper", 8) == (math.log(10), -10)
    assert start("sigmoid", "prior", 128).bias == pytest.approx(-4.844, abs=1e-3)
    assert start("soft-targets", "prior", 1) == (0, None)
    with pytest.raises(ValueError, match="2 pairs"):
        start("sigmoid", "prior", 1)


def test_the_prior_is_the_share_of_matches():
    """With no information in the cosines, the bias "prior" is where the loss of the sigmoid is least."""
    zeros, bias = torch.zeros(PAIRS, DIM), number(start("sigmoid", "prior", PAIRS).bias, torch.float64)
    (gradient,) = torch.autograd.grad(sigmoid(zeros.double(), zeros.double(), 10.0, bias), bias)
    assert abs(float(gradient)) < 1e-9


def test_the_scale_is_clamped_at_100():
    scale = torch.nn.Parameter(torch.tensor(4.7))
    clamp_scale(scale)
    assert scale.item() == pytest.approx(MAX_LOG_SCALE)
    assert scale.exp().item() <= 100 * (1 + 1e-6)
    with torch.no_grad():
        scale.fill_(2.0)
    clamp_scale(scale)
    assert scale.item() == 2
    assert np.isclose(math.exp(MAX_LOG_SCALE), 100)
