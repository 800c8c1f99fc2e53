"""Negative pruning: which pairs stay, what the losses are without the others, and how many steps see as many pairs."""

import pytest
import torch
from torch.nn.functional import normalize

from training.objectives.matches import is_match
from training.objectives.pruning import Pruning
from training.objectives.sigmoid import sigmoid
from training.objectives.softmax import softmax

PAIRS = 10
GROUP = torch.tensor([0, 1, 2, 0, 3, 4, 0, 5, 6, 7])  # 16 matches, 84 negatives
MATCHES = is_match(GROUP, GROUP)


def embeddings():
    made = normalize(torch.randn(2, PAIRS, 6, generator=torch.Generator().manual_seed(3)), dim=-1)
    return made[0].requires_grad_(), made[1].requires_grad_()


@pytest.mark.parametrize("how", ["random", "hard", "easy"])
@pytest.mark.parametrize("ratio", [0, 0.5, 0.9, 0.999])
def test_matches_are_never_masked_and_the_share_of_negatives_is_kept(how, ratio):
    images, texts = embeddings()
    kept = Pruning(how, ratio).kept(images @ texts.T, MATCHES)
    assert kept[MATCHES].all()
    assert int(kept[~MATCHES].sum()) == round(84 * (1 - ratio))


def test_hard_keeps_the_highest_losses_and_easy_the_lowest():
    images, texts = embeddings()
    logits = (images @ texts.T).detach()
    hard, easy = (Pruning(how, 0.5).kept(logits, MATCHES) & ~MATCHES for how in ("hard", "easy"))
    assert logits[hard].min() >= logits[easy].max()
    assert not (hard & easy).any()
    assert (hard | easy | MATCHES).all()


def test_random_depends_on_the_seed_alone():
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(Pruning("random", 0.5).kept(torch.zeros(PAIRS, PAIRS), MATCHES))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize("group", [None, GROUP])
def test_without_masking_the_losses_are_the_whole_ones(group):
    images, texts = embeddings()
    nothing = Pruning("hard", 0)
    torch.testing.assert_close(nothing.softmax(images, texts, 9.0, group), softmax(images, texts, 9.0, group))
    torch.testing.assert_close(
        nothing.sigmoid(images, texts, 9.0, -2.0, group), sigmoid(images, texts, 9.0, -2.0, group)
    )


@pytest.mark.parametrize("how", ["hard", "easy"])
@pytest.mark.parametrize("group", [None, GROUP])
def test_losses_are_those_of_kept_pairs_alone(how, group):
    """Against sums that are written out over the kept pairs, in float64."""
    images, texts = (each.detach().double().requires_grad_() for each in embeddings())
    pruning, numbers = Pruning(how, 0.7), torch.arange(PAIRS) if group is None else group
    matches = is_match(numbers, numbers)
    logits = 9 * images @ texts.T
    kept = pruning.kept(logits, matches)
    total = torch.zeros((), dtype=torch.float64)
    for sums, those, same in ((logits, kept, matches), (logits.T, kept.T, matches)):
        for row, stays, match in zip(sums, those, same, strict=True):
            total = total + row[stays].exp().sum().log() - row[match].mean()
    made = pruning.softmax(images, texts, 9.0, group)
    torch.testing.assert_close(made, total / 2 / PAIRS)
    torch.testing.assert_close(*(torch.autograd.grad(each, images)[0] for each in (made, total / 2 / PAIRS)))

    logits = 9 * images @ texts.T - 2
    total = -torch.where(matches, logits, -logits).sigmoid().log()[kept].sum() / PAIRS
    made = pruning.sigmoid(images, texts, 9.0, -2.0, group)
    torch.testing.assert_close(made, total)
    torch.testing.assert_close(*(torch.autograd.grad(each, images)[0] for each in (made, total)))


def test_a_picture_without_negatives_has_no_loss():
    images, texts = embeddings()
    loss = Pruning("hard", 0.999).softmax(images, texts, 9.0)
    assert loss.isfinite()
    assert loss == 0
    assert all(each.isfinite().all() for each in torch.autograd.grad(loss, (images, texts)))


def test_matched_pairs_take_more_steps():
    for steps, batch, ratio in ((100, 16_000, 0.9), (1500, 256, 0.5), (7, 8, 0.99), (10, 4, 0)):
        pruning = Pruning("hard", ratio)
        more = pruning.matched_steps(steps, batch)
        kept = int(batch + round(batch * (batch - 1) * (1 - ratio)))
        assert (more - 1) * kept < steps * batch**2 <= more * kept
    assert Pruning("hard", 0.9).matched_steps(100, 16_000) == 1000


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, float("nan")])
def test_a_ratio_that_leaves_nothing_is_refused(ratio):
    with pytest.raises(ValueError, match="masking ratio"):
        Pruning("easy", ratio)
