"""The loss of a dual encoder on a batch, as its settings say."""

import numpy as np
import pytest
import torch
from tiny_towers import tiny

from training.data.order import Drawn
from training.dual.build import build
from training.learners.clip import Batch
from training.learners.pair_loss import DualLoss
from training.objectives.softmax import softmax

TEXT = {"kind": "small", "width": 32, "layers": 1, "heads": 2}
CAPTIONS = ["a dog", "two dogs run", "a cat", "a red ball", "a man", "a horse on the beach", "sand", "blue"]


def model(**keys):
    return build(tiny(TEXT, image_blocks="all", text_blocks="all", **keys), 0)


def batch(own, pictures=range(8), texts=range(8)):
    images = torch.randint(0, 256, (8, 32, 32, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    rows = np.arange(8)
    drawn = Drawn(1, rows, np.zeros_like(rows))
    return Batch(drawn, images, own.tokenizer(CAPTIONS).ids, torch.tensor(list(pictures)), torch.tensor(list(texts)))


def gradients(own, pictures=range(8)):
    loss = DualLoss(own).backward(batch(own, pictures))
    return loss, {name: each.grad for name, each in own.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("objective", ["softmax", "sigmoid", "soft-targets"])
def test_a_cached_batch_has_the_gradient_of_the_whole(objective):
    whole, expected = gradients(model(objective=objective))
    parts, found = gradients(model(objective=objective, cached_batch=3))
    assert parts == pytest.approx(whole, abs=1e-6)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert torch.allclose(gradient, found[name], atol=1e-6 + 1e-5 * float(gradient.abs().max())), name


@pytest.mark.parametrize("objective", ["softmax", "sigmoid"])
def test_captions_of_a_picture_match_each_other_or_do_not_by_name(objective):
    pictures = [0, 0, 1, 1, 2, 3, 4, 5]
    match, negative = (model(objective=objective, same_picture=how) for how in ("match", "negative"))
    alone = gradients(negative)[0]
    assert gradients(negative, pictures)[0] == alone
    assert gradients(match)[0] == pytest.approx(alone, abs=1e-6)
    assert abs(gradients(match, pictures)[0] - alone) > 1e-3


def test_the_value_is_that_of_normalised_embeddings_at_the_model_s_temperature():
    own = model()
    given = batch(own, [0, 0, 1, 2, 3, 4, 5, 6])
    with torch.inference_mode():
        images = own.encode_image(own.pictures.stack(list(given.images.numpy())), normalize=True)
        texts = own.encode_text(given.texts, normalize=True)
        expected = softmax(images, texts, own.logit_scale.exp(), given.pictures).item()
    assert DualLoss(own).value(given) == pytest.approx(expected, abs=1e-6)


def test_bfloat16_is_near_and_not_equal():
    whole, half = model(), model(precision="bfloat16")
    one, other = (DualLoss(each).value(batch(each)) for each in (whole, half))
    assert one != other
    assert other == pytest.approx(one, rel=0.05)


def test_the_temperature_is_clamped_after_a_step():
    own = model()
    own.logit_scale.data.fill_(7.0)
    DualLoss(own).clamp()
    assert own.logit_scale.exp().item() == pytest.approx(100)


def test_pairs_whose_embeddings_are_not_finite_are_found():
    own = model()
    given = batch(own)
    with torch.no_grad():
        own.text.trunk.get_parameter(next(name for name, _ in own.text.trunk.named_parameters() if "token" in name))[
            given.texts[3, 1]
        ] = float("nan")
    broken = DualLoss(own).broken(given)
    assert broken[3]
    assert not broken.all()
