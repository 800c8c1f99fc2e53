"""The training loop of all learners: steps, batches, learning rates and looks."""

from itertools import islice, repeat

import numpy as np
import pytest
import torch

from pipeline.errors import ModelError
from training.learners import descent
from training.learners.descent import fit, samples
from training.learners.microbatches import Microbatches
from training.learners.standardizer import Standardizer


def line():
    """A model of y = w x that begins at 0, and an optimizer whose step is the gradient times the learning rate."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    return model, torch.optim.SGD(model.parameters(), lr=0.5)


def test_a_step_follows_the_gradient_of_its_batch_at_the_scheduled_rate():
    model, optimizer = line()
    batches = [1.0, -2.0, 4.0, 3.0]  # the gradient of w * batch

    def loss(batch):
        return (model.weight * batch).sum()

    found = fit(optimizer, descent.at_once(loss), batches, [1, 2, 4], lambda: model.weight.item())
    steps = [-0.5 * descent.schedule(step / 4) * batch for step, batch in enumerate(batches)]
    assert list(found) == [1, 2, 4]
    assert list(found.values()) == pytest.approx([steps[0], sum(steps[:2]), sum(steps)])


def test_every_group_has_its_own_peak():
    slow, fast = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [slow], "lr": 0.1}, {"params": [fast], "lr": 1.0}])

    def backward(batch):
        (slow + fast).sum().backward()

    fit(optimizer, backward, repeat(None), [20], lambda: None)
    area = sum(descent.schedule(step / 20) for step in range(20))
    assert (slow.item(), fast.item()) == (pytest.approx(-0.1 * area), pytest.approx(-area))


def test_the_last_look_ends_the_training():
    _, optimizer = line()
    drawn = iter(range(100))
    seen = []
    assert fit(optimizer, seen.append, drawn, {3, 7}, lambda: len(seen)) == {3: 3, 7: 7}
    assert seen == list(range(7))
    assert next(drawn) == 7  # no batch is made in vain


def test_too_few_batches_are_an_error():
    _, optimizer = line()
    with pytest.raises(ValueError, match="the batches end after 3 of 5 steps"):
        fit(optimizer, lambda batch: None, range(3), [2, 5], lambda: None)
    with pytest.raises(ValueError, match="after 0 of 5 steps"):
        fit(optimizer, lambda batch: None, [], [5], lambda: None)


def test_an_evaluation_teaches_nothing():
    found = []
    for looks in ([8], [1, 2, 3, 5, 8]):
        model, optimizer = line()

        def loss(batch, model=model):
            return (model(torch.full((1, 1), batch)) - 3).square().sum()

        def evaluate(model=model):
            with torch.inference_mode():
                return model(torch.ones(1, 1)).item()

        batches = [float(each) for each in range(1, 9)]
        found.append(fit(optimizer, descent.at_once(loss), [each / 8 for each in batches], looks, evaluate)[8])
    assert found[0] == found[1] != 0


def test_batches_repeat_by_seed_and_know_every_pair_and_version():
    def drawn(seed, versions=3):
        return list(islice(samples(10, versions, 16, np.random.default_rng(seed)), 20))

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    rows, versions = np.concatenate(first, axis=1)
    assert sorted(set(zip(rows.tolist(), versions.tolist(), strict=True))) == [
        (a, b) for a in range(10) for b in range(3)
    ]
    whole = np.random.default_rng(1).integers(10, size=(20, 16))  # one version is no choice: no number is spent on it
    assert np.array_equal([sample.rows for sample in drawn(1, versions=1)], whole)


def test_a_seed_leaves_the_randomness_of_others_alone():
    torch.manual_seed(5)
    expected = torch.rand(2).tolist()
    torch.manual_seed(5)
    first = torch.rand(1).item()
    with descent.seeded(3):
        inner = torch.rand(1).item()
        assert torch.get_num_threads() == 1
    assert [first, torch.rand(1).item()] == expected
    with descent.seeded(3):
        assert torch.rand(1).item() == inner


@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
def test_standardizing_leaves_the_features_as_they_were(kind):
    views = np.random.default_rng(0).normal(3, 2, (50, 1, 4)).astype(np.float16)
    features = torch.from_numpy(views[:, 0]).to(kind)
    before, found = features.clone(), Standardizer.of(views)(features)
    assert torch.equal(features, before)
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(dim=0, correction=0), torch.ones(4))


def test_the_learning_rate_rises_and_falls():
    rates = [descent.schedule(step / 100) for step in range(100)]
    assert rates[0] < 0.05
    assert max(rates) == rates[5] == 1
    assert rates[-1] < 0.01


def test_looks_are_in_order_and_end_with_the_last_step():
    assert descent.evaluation_steps(320) == [10, 20, 40, 80, 160, 240, 320]
    assert descent.evaluation_steps(5) == [1, 2, 4, 5]
    assert descent.evaluation_steps(1) == [1]


def stepped(room):
    """The weights after three steps on 8 pictures with memory for `room`, the passes that were tried, and the cut."""
    model, tried = torch.nn.Linear(48, 3), []
    for each in model.parameters():
        torch.nn.init.zeros_(each)

    def loss(window, targets):
        tried.append(len(window))
        if len(window) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        scores = model(torch.from_numpy(np.stack(window)).float().flatten(1))
        return torch.nn.functional.cross_entropy(scores, targets, reduction="sum")

    pictures = list(np.random.default_rng(0).random((8, 4, 4, 3)))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    backward = Microbatches(loss, optimizer, 8)
    fit(optimizer, backward, repeat((pictures, torch.arange(8) % 3)), [3], lambda: None)
    return model.weight.detach(), tried, backward.size


def test_steps_are_the_same_however_memory_cuts_them():
    whole, tried, size = stepped(room=8)
    assert (tried, size) == ([8, 8, 8], 8)
    cut, tried, size = stepped(room=3)
    assert (tried, size) == ([8, 4, *[2] * 12], 2)
    torch.testing.assert_close(cut, whole)
    assert whole.abs().max() > 0.01
    with pytest.raises(ModelError, match="for training, even with one picture"):
        stepped(room=0)


def test_an_error_that_is_not_memory_is_raised():
    _, optimizer = line()

    def loss(window, targets):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        fit(optimizer, Microbatches(loss, optimizer, 2), [([1], torch.zeros(1))], [1], lambda: None)
