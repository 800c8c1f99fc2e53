"""Models that answer questions: towers, what is frozen, training that resumes, weights of answers, collapse."""

import numpy as np
import pytest
import tiny_vqa
import torch
from tiny_vqa import ANSWERS, QUESTIONS

from pipeline.errors import ModelError, TrainingError
from pipeline.settings.vqa import VqaModel
from pipeline.store.storage import Storage
from training.learners import vqa
from training.learners.checkpoint import Checkpoint
from training.learners.training import Training
from training.learners.vqa import AnswerLoss
from training.measures.collapse import collapse
from training.studies import vqa_training
from training.studies.vqa_training import Course, class_weights


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return tiny_vqa.write_text(tmp_path_factory.mktemp("text") / "bert")


def course(model, storage, every=1e9, seed=0, stored=True, weights=None):
    saved = {name: Checkpoint(storage, f"checkpoints/{name}", every) for name in ("head", "whole")}
    return Course(model, lambda stage: tiny_vqa.data(model, seed=seed, stored=stored), weights, saved, seed)


def predict(model):
    data = tiny_vqa.data(model)
    place = data.place[:, 0]
    pictures = data.images.chunks if data.images else None
    rows = data.images.rows if data.images else np.zeros(40, np.int64)
    return vqa.predict(model, pictures, rows, data.texts, place)


@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("image", ["timm:test_resnet@random", "timm:test_vit@random"])
def test_the_first_token_sums_up_a_side(text, image, pooling):
    options = {} if "resnet" in image else {"img_size": 64}
    table = {"kind": "timm", "model": image.removeprefix("timm:").removesuffix("@random"), "weights": "random"}
    model = tiny_vqa.model(text, image=table | {"options": options}, image_size=64, pooling=pooling)
    pixels = torch.rand(2, 3, 64, 64)
    seen, trunk = model.see(pixels), model.image.trunk
    features = trunk.forward_features(pixels)
    if features.ndim == 4:
        torch.testing.assert_close(seen[:, 0], features.mean(dim=(2, 3)))
        torch.testing.assert_close(seen[:, 2], features[:, :, 0, 1])
    else:
        assert torch.equal(seen, features)
    ids = model.tokenizer(QUESTIONS).ids
    words, mask = model.text(ids), model.text.mask(ids)
    hidden = model.text.transformer(input_ids=ids, attention_mask=ids.ne(0).long()).last_hidden_state
    if pooling == "mean":
        assert mask[:, 0].all()
        torch.testing.assert_close(words[2, 0], hidden[2][ids[2].ne(0)].mean(dim=0))
    else:
        torch.testing.assert_close(words[:, 0], hidden[:, 0])
    assert mask.sum(dim=1).tolist() == (ids.ne(0).sum(dim=1) + (pooling == "mean")).tolist()


@pytest.mark.parametrize("layers", [2, [1, 1, 1, 1]])
def test_image_towers_of_open_clip_give_tokens(text, tmp_path, layers):
    import tiny_towers

    image = tiny_towers.write_clip(tmp_path / "clip", layers)
    model = tiny_vqa.model(text, image=image, image_size=None)
    tokens = model.see(torch.rand(2, 3, 32, 32))
    assert tokens.shape == (2, *model.image_shape)
    assert model.image_shape[0] == (1 + 4 if layers == 2 else 1 + 1)


@pytest.mark.parametrize("head", ["co-attention", "concatenation", "advanced"])
def test_a_model_learns_and_frozen_towers_do_not_move_by_a_bit(text, tmp_path, head):
    model = tiny_vqa.model(text, head=head, steps=120, head_rate=1e-2, decay=1.0, dropout=0.0)
    before = {name: each.clone() for name, each in model.state_dict().items() if not name.startswith("head.")}
    assert before
    data = tiny_vqa.data(model)
    found, (history,) = course(model, Storage(tmp_path)).run([60, 120], lambda: predict(model))
    assert all(torch.equal(each, model.state_dict()[name]) for name, each in before.items())
    assert sorted(found) == [60, 120]
    assert (found[120] == data.targets[:, 0]).mean() > 0.9
    assert history.epochs[-1].train_loss < 0.5 * history.epochs[0].train_loss


def test_stored_features_and_towers_give_the_same_answers(text):
    model = tiny_vqa.model(text)
    stored, pixels = (next(tiny_vqa.data(model, stored=each).batches(range(1))) for each in (True, False))
    assert stored.asked.texts is not None
    assert pixels.asked.texts is None
    assert pixels.asked.images.dtype == torch.uint8
    torch.testing.assert_close(vqa.answer(model, stored.asked), vqa.answer(model, pixels.asked), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("keys", [{}, {"text_blocks": 1, "image_blocks": 1, "dropout": 0.5}])
def test_a_killed_training_ends_with_the_same_bits(text, tmp_path, monkeypatch, keys):
    whole = tiny_vqa.model(text, **keys)
    found, _ = course(whole, Storage(tmp_path / "one"), 0).run([12], lambda: predict(whole))
    killed, storage = tiny_vqa.model(text, **keys), Storage(tmp_path / "other")
    steps, backward = [], AnswerLoss.backward

    def dying(self, batch):
        steps.append(batch.drawn.step)
        if len(steps) == 8:
            raise KeyboardInterrupt
        return backward(self, batch)

    monkeypatch.setattr(AnswerLoss, "backward", dying)
    with pytest.raises(KeyboardInterrupt):
        course(killed, storage, 0).run([12], lambda: predict(killed))
    resumed = tiny_vqa.model(text, **keys)
    again, (history,) = course(resumed, storage, 0).run([12], lambda: predict(resumed))
    assert steps[8:] == [7, 8, 9, 10, 11]
    assert history.step == 12
    assert all(torch.equal(each, whole.state_dict()[name]) for name, each in resumed.state_dict().items())
    assert np.array_equal(again[12], found[12])


def test_rates_are_multiplied_after_epochs(text, tmp_path):
    model = tiny_vqa.model(text, decay=0.1, decay_epochs=2, steps=15, head_rate=1e-2)
    made = course(model, Storage(tmp_path))._training("whole", 15)
    assert isinstance(made, Training)
    shares = [made.share(None, done) for done in (0, 9, 10, 14)]
    assert shares == pytest.approx([1, 1, 0.1, 0.1])
    (kind,) = {type(made.trainee.optimizer)}
    assert kind is torch.optim.Adam


def test_the_question_only_baseline_has_the_same_head_and_sees_no_picture(text):
    whole, blind = tiny_vqa.model(text), tiny_vqa.model(text, picture=False)
    assert blind.image is None
    assert all(torch.equal(each, blind.state_dict()[f"head.{name}"]) for name, each in whole.head.state_dict().items())
    pixels, ids = torch.rand(4, 3, 32, 32), blind.tokenizer(QUESTIONS).ids
    assert torch.equal(blind(pixels, ids), blind(1 - pixels, ids))
    assert predict(blind).shape == (40,)


def test_an_empty_question_is_answered(text):
    model = tiny_vqa.model(text)
    ids = model.tokenizer(["", "two red dog"]).ids
    assert model(torch.rand(2, 3, 32, 32), ids).isfinite().all()


def test_balanced_weights_are_scikit_learns(text):
    from collections import Counter

    targets = np.array([0, 0, 0, 0, 1, 1, 3])
    weights = class_weights(tiny_vqa.settings(text, class_weights="balanced"), targets, ANSWERS)
    counts = Counter(targets.tolist())
    assert weights.tolist() == pytest.approx([7 / (3 * counts[each]) if each in counts else 0 for each in range(4)])
    assert class_weights(tiny_vqa.settings(text), targets, ANSWERS) is None
    named = class_weights(tiny_vqa.settings(text, class_weights={"blue": 3}), targets, ANSWERS)
    assert named.tolist() == [1, 3, 1, 1]


def test_weights_of_0_and_one_answer_only_are_one_line(text, tmp_path):
    targets = np.array([0, 0, 1])
    with pytest.raises(TrainingError, match="all answers that train have the class weight 0"):
        class_weights(tiny_vqa.settings(text, class_weights={"red": 0, "blue": 0}), targets, ANSWERS)
    with pytest.raises(TrainingError, match="names 'green', which is no answer"):
        class_weights(tiny_vqa.settings(text, class_weights={"green": 2}), targets, ANSWERS)
    with pytest.raises(TrainingError, match="all 3 questions have the answer 'blue': there is nothing to tell apart"):
        class_weights(tiny_vqa.settings(text), np.ones(3, np.int64), ANSWERS)
    with pytest.raises(TrainingError, match="no question that trains has an answer of the vocabulary"):
        class_weights(tiny_vqa.settings(text), np.zeros(0, np.int64), ANSWERS)
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        tiny_vqa.settings(text, class_weights={"red": -1})
    # A batch whose answers all weigh 0 changes nothing, and is no division by 0.
    model = tiny_vqa.model(text, steps=3, batch=8)
    weights = np.array([0, 0, 0, 1], np.float32)
    batch = next(tiny_vqa.data(model).batches(range(1)))
    loss = AnswerLoss(model, torch.from_numpy(weights)).backward(batch._replace(targets=torch.zeros(8).long()))
    assert loss == 0


def test_weights_of_answers_weigh_the_loss(text):
    model = tiny_vqa.model(text)
    batch = next(tiny_vqa.data(model).batches(range(1)))
    weights = torch.tensor([0.5, 2, 1, 3])
    logits = vqa.answer(model, batch.asked)
    expected = torch.nn.functional.cross_entropy(logits, batch.targets, weights)
    assert AnswerLoss(model, weights).value(batch) == pytest.approx(expected.item(), rel=1e-6)


def test_a_collapse_is_noticed_while_training(text, tmp_path, caplog):
    truth = np.arange(40) % 4
    said = collapse(np.array([1] * 30 + [2] * 8 + [0, 3]), truth, ANSWERS)
    assert said == "95% of all predictions are 'blue' or 'two'; the two most frequent answers are 50%"
    assert collapse(truth, truth) is None
    assert collapse(np.array([0, 1] * 20), np.array([0, 1] * 20)) is None  # yes and no are all there is
    assert collapse(np.array([]), np.array([])) is None
    evaluate = vqa_training.alarmed(lambda: np.zeros(40, np.int64), truth, ANSWERS, "learner 'small'")
    model = tiny_vqa.model(text)
    course(model, Storage(tmp_path)).run([6, 12], evaluate)
    assert [record.message.startswith("learner 'small' has collapsed: 100%") for record in caplog.records] == [True]
    late = vqa_training.alarmed(lambda: np.zeros(40, np.int64), truth, ANSWERS, "it", early=2)
    late()
    late()
    assert len(caplog.records) == 1
    late()
    assert len(caplog.records) == 2


def test_a_loss_that_is_not_finite_names_step_and_questions(text, tmp_path):
    model = tiny_vqa.model(text, head_rate=1e30)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) for the pairs uid\d+.* at step \d+ of 12"):
        course(model, Storage(tmp_path)).run([12], lambda: predict(model))


def test_tiny_makes_a_model_small():
    table = {"image": "timm:tf_efficientnet_lite0", "text": "transformers:x", "tiny": True, "image_size": 224}
    small = VqaModel.model_validate(table)
    assert (small.image_size, small.context, small.batch, small.steps) == (64, 16, 32, 20)
    assert VqaModel.model_validate({**table, "image": "transformers:facebook/dinov2-small", "image_size": None})


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"lora": {}, "text_blocks": 1}, "lora leaves the towers' own weights as they are"),
        ({"picture": False, "image_blocks": 1}, "picture = false has no image tower"),
        ({"class_weights": {}}, "class_weights names no answer"),
        ({"image": "open_clip:ViT-B-32"}, "image_size is for timm"),
        ({"head": "attention"}, "Input should be 'co-attention'"),
    ],
)
def test_settings_that_cannot_be_are_one_line(text, keys, says):
    with pytest.raises(ValueError, match=says):
        tiny_vqa.settings(text, **keys)


def test_an_image_tower_of_transformers(text, tmp_path):
    import json

    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=7, mlp_ratio=2
    )
    with torch.random.fork_rng(devices=[]):
        Dinov2Model(config).save_pretrained(tmp_path)
    table = {"image": f"transformers:{tmp_path}", "image_size": None}
    with pytest.raises(ModelError, match="preprocessor_config.json cannot be read"):
        tiny_vqa.model(text, **table)
    own = {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}, "resample": 3}
    own |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_center_crop": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(own))
    model = tiny_vqa.model(text, **table)
    assert model.image_shape == (1 + 4 * 4, 32)
    assert model.preparation.size == 28
    assert model.preparation.crop_pct == 28 / 32
