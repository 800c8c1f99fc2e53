"""Pictures that share a text: what the loss takes for a match, the collapse at one class, and the number before it."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny_towers import tiny

from training.data.order import Drawn
from training.data.streams import Stored
from training.dual.build import build
from training.learners.clip import Batch
from training.learners.pair_loss import DualLoss, project
from training.objectives.sigmoid import sigmoid
from training.objectives.softmax import softmax
from training.studies import false_negatives
from training.studies.corpus import Corpus

TEXT = {"kind": "small", "width": 32, "layers": 1, "heads": 2}
CLASSES, BATCH = 4, 64


def model(**keys):
    return build(tiny(TEXT, dim=16, batch=BATCH, **keys), 0)


def features(own, count, seed, classes=CLASSES):
    """Features of pictures of the classes, and of one text a class, for the heads of the model's frozen towers."""
    heads = [next(each.head.parameters()).shape[1] for each in (own.visual, own.text)]
    fixed = torch.Generator().manual_seed(0)
    centres, texts = (torch.randn(CLASSES, width, generator=fixed) for width in heads)
    labels = torch.arange(count) % classes
    noise = torch.randn(count, heads[0], generator=torch.Generator().manual_seed(seed))
    return centres[labels] + 0.3 * noise, texts, labels


def train(own, classes, steps, rate):
    optimizer = torch.optim.Adam([each for each in own.parameters() if each.requires_grad], rate)
    loss = DualLoss(own)
    for step in range(steps):
        images, texts, labels = features(own, BATCH, step, classes)
        rows = np.arange(BATCH)
        optimizer.zero_grad()
        loss.backward(Batch(Drawn(step, rows, rows * 0), images, texts[labels], torch.arange(BATCH), labels))
        optimizer.step()
        loss.clamp()


def accuracy(own, label):
    """Zero-shot, of new pictures of a class. The text embeddings are computed after the training."""
    own.eval()
    with torch.inference_mode():
        images, texts, labels = features(own, 200, 10_000)
        image, text = (
            torch.nn.functional.normalize(project(own, side, each), dim=-1)
            for side, each in zip((own.visual, own.text), (images, texts), strict=True)
        )
        right = (image @ text.T).argmax(dim=1) == labels
    return right[labels == label].float().mean().item()


@pytest.mark.slow
def test_one_class_collapses_and_matches_of_texts_remove_it():
    scores = {}
    for rule in ("negative", "match"):
        start = model(objective="sigmoid", same_text="match")
        train(start, CLASSES, 100, 3e-3)
        assert accuracy(start, 0) > 0.95
        own = model(objective="sigmoid", same_text=rule)
        own.load_state_dict(start.state_dict())
        train(own, 1, 300, 1e-2)
        scores[rule] = accuracy(own, 0)
    assert scores["negative"] < 0.05
    assert scores["match"] > 0.95


@pytest.mark.parametrize("objective", ["softmax", "sigmoid"])
def test_pairs_match_by_picture_or_by_text(objective):
    own = model(objective=objective, same_text="match")
    images, texts, labels = features(own, 4, 1)
    pictures, written = torch.tensor([0, 0, 1, 2]), torch.tensor([5, 6, 6, 7])
    given = Batch(Drawn(1, np.arange(4), np.zeros(4, np.int64)), images, texts[labels], pictures, written)
    with torch.inference_mode():
        image, text = DualLoss(own.eval())._embed((given.images, given.texts))
        logits = own.logit_scale.exp() * image @ text.T
        matches = torch.eye(4, dtype=torch.bool)
        for one, other in ((0, 1), (1, 2)):  # a picture, a text; 0 and 2 share neither
            matches[one, other] = matches[other, one] = True
        if objective == "sigmoid":
            expected = torch.nn.functional.softplus(torch.where(matches, -1, 1) * (logits + own.logit_bias)).sum() / 4
        else:
            targets = matches / matches.sum(dim=1, keepdim=True)
            expected = sum(torch.nn.functional.cross_entropy(each, targets) for each in (logits, logits.T)) / 2
    assert DualLoss(own).value(given) == pytest.approx(expected.item(), abs=1e-6)


def test_one_column_of_numbers_is_as_the_numbers_alone():
    images, texts = (torch.nn.functional.normalize(torch.randn(6, 8), dim=-1) for _ in range(2))
    group = torch.tensor([0, 0, 1, 2, 2, 2])
    assert torch.equal(softmax(images, texts, 5.0, group), softmax(images, texts, 5.0, group[:, None]))
    for chunk in (0, 4):
        alone, column = (sigmoid(images, texts, 5.0, -1.0, each, chunk) for each in (group, group[:, None]))
        assert torch.equal(alone, column)


def corpus(texts, pictures=None):
    place = np.asarray(texts, np.int64)[:, None]
    shown = np.arange(len(texts)) if pictures is None else np.asarray(pictures, np.int64)
    stored = Stored(np.zeros((int(place.max()) + 1, 2), np.float16), place)
    return Corpus(stored, stored, shown, str, 0)


def test_the_expected_number_is_the_mean_over_batches():
    texts, pictures = np.array([0, 0, 0, 1, 1, 2, 2, 2]), np.array([0, 0, 1, 2, 3, 4, 5, 6])
    rng, found = np.random.default_rng(0), []
    for _ in range(4000):
        rows = rng.permutation(8)[:4]
        same = texts[rows][:, None] == texts[rows]
        found.append((same & (pictures[rows][:, None] != pictures[rows])).sum() / 4)
    assert false_negatives.expected(corpus(texts, pictures), np.arange(8), 4) == pytest.approx(np.mean(found), abs=0.03)


def test_the_number_is_near_the_rest_of_the_batch_by_classes():
    pairs = corpus(np.arange(10_000) % 10)
    assert false_negatives.expected(pairs, np.arange(10_000), 64) == pytest.approx(63 / 10, abs=0.01)


def test_the_warning_says_what_to_set():
    one, ten, own = (corpus(each) for each in (np.zeros(640), np.arange(640) % 10, np.arange(640)))
    rows, settings = np.arange(640), model(objective="sigmoid").settings
    assert "the 63 negatives of a pair in a batch are false" in false_negatives.line(one, rows, settings)
    assert "of the 63 negatives of a pair in a batch, 6.21 have its own text" in false_negatives.line(
        ten, rows, settings
    )
    assert false_negatives.line(own, rows, settings) is None
    matched = settings.model_copy(update={"same_text": "match"})
    assert false_negatives.line(ten, rows, matched) is None
    assert "nothing to tell apart" in false_negatives.line(one, rows, matched)
    assert "nothing to tell apart" in false_negatives.line(one, rows, model(objective="softmax").settings)


def test_soft_targets_have_no_matches_of_texts():
    with pytest.raises(ValidationError, match="soft-targets knows no matches"):
        tiny(TEXT, objective="soft-targets", same_text="match")
