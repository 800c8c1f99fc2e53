"""Gradient caching: the gradient of parts is that of the whole batch, dropout included."""

from functools import partial

import pytest
import torch
from torch.nn.functional import normalize

from pipeline.errors import TrainingError
from training.learners.divergence import check_loss
from training.objectives.cached import batch_norms, cached_backward, warning
from training.objectives.pruning import Pruning
from training.objectives.sigmoid import sigmoid
from training.objectives.softmax import softmax

PAIRS, PART, DIM = 20, 8, 6  # the last part is smaller


class Towers(torch.nn.Module):
    def __init__(self, dropout=0.0, norm=torch.nn.LayerNorm):
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = (
            torch.nn.Sequential(torch.nn.Linear(DIM, 16), norm(16), torch.nn.Dropout(dropout), torch.nn.Linear(16, DIM))
            for _ in range(2)
        )
        self.scale, self.bias = (torch.nn.Parameter(torch.tensor(each)) for each in (5.0, -2.0))

    def forward(self, part):
        return normalize(self.image(part[0]), dim=-1), normalize(self.text(part[1]), dim=-1)

    def softmax(self, images, texts):
        return softmax(images, texts, self.scale)

    def sigmoid(self, images, texts):
        return sigmoid(images, texts, self.scale, self.bias)

    def gradients(self):
        return {name: each.grad for name, each in self.named_parameters() if each.grad is not None}


def parts(size=PART):
    pictures, captions = torch.randn(2, PAIRS, DIM, generator=torch.Generator().manual_seed(1))
    return list(zip(pictures.split(size), captions.split(size), strict=True))


def plain_backward(pieces, encode, loss):
    """All parts embedded with their gradients, in the same order, and one backward pass."""
    images, texts = (torch.cat(each) for each in zip(*map(encode, pieces), strict=True))
    value = loss(images, texts)
    value.backward()
    return value.detach()


def assert_equal(one, other, within=1e-6):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=within, atol=within, msg=name)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_without_dropout_it_is_the_large_batch(loss):
    large, cached = Towers(), Towers()
    value = plain_backward(parts(PAIRS), large, getattr(large, loss))
    torch.testing.assert_close(cached_backward(parts(), cached, getattr(cached, loss)), value)
    assert_equal(cached.gradients(), large.gradients())
    assert "scale" in cached.gradients()


def test_with_dropout_the_second_pass_draws_the_same_numbers():
    """And whatever is drawn next does not depend on caching, also where the loss draws."""
    whole, cached = Towers(0.5), Towers(0.5)
    states = []
    for towers, backward in ((whole, plain_backward), (cached, cached_backward)):
        torch.manual_seed(7)
        backward(parts(), towers, partial(Pruning("random", 0.5).softmax, scale=towers.scale))
        states.append(torch.get_rng_state())
    assert_equal(cached.gradients(), whole.gradients())
    assert torch.equal(*states)


def test_dropout_does_matter_here():
    one, other = Towers(0.5), Towers(0.5)
    for seed, towers in enumerate((one, other)):
        torch.manual_seed(seed)
        cached_backward(parts(), towers, towers.sigmoid)
    assert not torch.allclose(one.gradients()["image.0.weight"], other.gradients()["image.0.weight"], atol=1e-3)


def test_autocast_around_it_keeps_the_gradients():
    whole, cached = Towers(), Towers()
    for towers, backward in ((whole, plain_backward), (cached, cached_backward)):
        with torch.autocast("cpu", torch.bfloat16):
            backward(parts(), towers, towers.sigmoid)
    assert_equal(cached.gradients(), whole.gradients(), 1e-2)


def test_a_frozen_tower_takes_no_gradient():
    towers = Towers()
    towers.image.requires_grad_(False)
    cached_backward(parts(), towers, towers.softmax)
    assert not any(name.startswith("image") for name in towers.gradients())
    assert "text.0.weight" in towers.gradients()


def test_a_loss_that_is_not_finite_leaves_the_towers_without_a_gradient():
    towers = Towers()
    with torch.no_grad():
        towers.scale.fill_(float("nan"))
    with pytest.raises(TrainingError, match="the loss is nan"):
        cached_backward(parts(), towers, lambda *each: check_loss(towers.softmax(*each)))
    assert towers.gradients() == {}


def test_batch_norm_that_trains_is_not_exact_and_is_named():
    large, cached = Towers(norm=torch.nn.BatchNorm1d), Towers(norm=torch.nn.BatchNorm1d)
    assert batch_norms(cached.image, cached.text) == ["1", "1"]
    assert "batch norm trains (1 and 1 others)" in str(warning(cached.image, cached.text))
    plain_backward(parts(PAIRS), large, large.sigmoid)
    cached_backward(parts(), cached, cached.sigmoid)
    assert not torch.allclose(large.gradients()["image.0.weight"], cached.gradients()["image.0.weight"], atol=1e-3)
    assert int(large.image[1].num_batches_tracked) == 1
    assert int(cached.image[1].num_batches_tracked) == 6


def test_batch_norm_in_eval_mode_is_exact():
    large, cached = Towers(norm=torch.nn.BatchNorm1d).eval(), Towers(norm=torch.nn.BatchNorm1d).eval()
    assert warning(cached) is None
    plain_backward(parts(PAIRS), large, large.sigmoid)
    cached_backward(parts(), cached, cached.sigmoid)
    assert_equal(cached.gradients(), large.gradients())
