"""Questions: the vocabulary of answers, augmented pictures whose texts follow, and a learner that answers them."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_vqa
import torch

from pipeline.errors import TrainingError
from pipeline.store.storage import Storage
from pipeline.trials.trials import Setting
from training.augment import picture_policies
from training.augment.questions import asked, flipped, policy_of
from training.data.answers import Vocabulary, agreed
from training.data.questions import Questions
from training.learners.vqa import AnswerLoss
from training.learners.vqa_inputs import VqaInputs
from training.studies import vqa_learner
from training.studies.vqa_corpus import VqaCorpus
from training.studies.vqa_learner import VqaLearner, VqaTest
from training.vqa import build


def test_the_vocabulary_has_the_most_frequent_answers_first():
    answers = [("two",), ("red",), ("red", "blue", "blue"), ("blue",), (), ("two",), ("", " ")]
    vocabulary = Vocabulary.of(answers)
    assert vocabulary.answers == ("blue", "two", "red")
    assert vocabulary.encode(answers).tolist() == [1, 2, 0, 0, -1, 1, -1]
    small = Vocabulary.of(answers, 1)
    assert small.encode([("red", "red", "blue"), ("blue",)]).tolist() == [-1, 0]
    assert small.share_unanswerable([("red", "red", "blue"), ("blue",), ("two",), ()]) == 0.5
    assert agreed(("a", "b", "b")) == "b"
    assert Vocabulary.of([]).share_unanswerable([]) == 0


def test_a_flip_swaps_left_and_right_in_question_and_answers():
    question = "what is on the left side of the table on the Right side"
    made = asked(question, ("left", "on the left side"), 1, "classic", mirror=True)
    assert made == (1, "what is on the right side of the table on the Left side", ("right", "on the right side"))
    assert asked(question, ("left",), 1, "classic", mirror=False) == (1, question, ("left",))
    # "left" may be no side: the plain picture is seen.
    unclear = "what is left when he has eaten"
    assert asked(unclear, ("cake",), 1, "classic", mirror=True) == (0, unclear, ("cake",))
    assert asked(unclear, ("cake",), 1, "classic", mirror=False).version == 1


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("what colour is the car", ("4",)),
        ("What COLOR is it", ("4",)),
        ("what is it", ("white",)),
        ("is the red dog old", ("no",)),
    ],
)
def test_there_is_no_colour_jitter_for_questions_about_colour(question, answers):
    for policy, version in (("classic", 0), ("jitter", 0), ("shade", 0), ("flip", 1), ("rotate", 1)):
        assert asked(question, answers, 1, policy, mirror=False).version == version


def test_questions_about_places_are_not_cropped():
    assert policy_of("classic") == "question"
    assert "crop" not in picture_policies.POLICIES["question"]
    assert asked("what is behind the dog", ("cat",), 1, "crop", mirror=False).version == 0
    assert asked("what runs", ("cat",), 1, "crop", mirror=False).version == 1


@pytest.mark.parametrize("policy", ["classic", "flip"])
def test_whether_a_version_is_flipped_is_known_without_its_pixels(policy):
    pixels = np.zeros((24, 32, 3), np.uint8)
    pixels[:, :16] = 200
    both = set()
    for number in range(1, 13):
        made = picture_policies.augment(pixels, policy_of(policy), picture_policies.seed("abc", number))
        mirrored = flipped("abc", number, policy)
        assert (made[:, :10].mean() < made[:, -10:].mean()) == mirrored
        both.add(mirrored)
    assert both == {True, False}
    assert not any(flipped("abc", number, "jitter") for number in range(1, 13))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return tiny_vqa.write_text(tmp_path_factory.mktemp("text") / "bert")


ASKED = Questions(
    np.arange(24) % 6,
    tuple(["two red dog", "the man sits on the left side", "a"][number % 3] for number in range(24)),
    tuple((["two", "left", "dog", "right"][number % 4],) for number in range(24)),
)


def setting(arm="raw", augmented=False, seed=0):
    fixed = dict.fromkeys(["source", "manifest", "recipe", "choice", "learner", "head", "kind", "column", "test"], "x")
    more = {"budget": {}, "encoder": {}, "classes": {}, "code": 1}
    return Setting(arm=arm, augmented=augmented, seed=seed, **fixed, **more)


def learner(folder, storage, vocabulary=None, **keys):
    settings = tiny_vqa.settings(folder, **keys)
    model = build.build(settings, 1, 0)
    inputs = VqaInputs(model, vqa_learner.identity(settings), storage)
    versions, features = 3, None
    pictures = np.random.default_rng(0).integers(0, 256, (6 * versions, 32, 32, 3)).astype(np.uint8)
    if model.image is not None:
        with torch.inference_mode():
            seen = model.see(model.pictures.stack(list(pictures))).flatten(1).numpy()
        features = seen.reshape(6, versions, -1).astype(np.float16)

    class Pixels:
        def read(self, drawn):
            for each in drawn:
                yield torch.from_numpy(pictures[ASKED.picture[each.rows] * versions + each.versions])

    words = vocabulary or Vocabulary.of(ASKED.answers)
    sha256 = [f"sha{number}" for number in ASKED.picture]
    corpus = VqaCorpus(inputs, ASKED, words, str, sha256, "classic", versions, features, Pixels())
    plain = pictures[::versions]

    def stored():
        yield torch.from_numpy(features[:, 0]).float()

    return VqaLearner(settings, corpus, VqaTest(ASKED, stored, lambda: [torch.from_numpy(plain)]))


def test_versions_of_a_question_have_their_own_wording_and_answer(text, tmp_path):
    made = learner(text, Storage(tmp_path))
    corpus = made.corpus
    model = build.build(made.settings, 4, 0)
    data = corpus.data(model, np.arange(24), 0, True)
    distinct = corpus._views(True)[1]
    words = corpus.vocabulary.answers
    seen = set()
    for row in range(24):
        for version in range(3):
            question, answer = distinct[data.place[row, version]], words[data.targets[row, version]]
            sides = {ASKED.question[row], ASKED.answers[row][0]} & {"left", "right"}
            mirrored = flipped(corpus.sha256[row], version, "classic") if version else False
            if "red" in question:
                assert (data.seen[row, version], question) == (0, ASKED.question[row])
            elif mirrored:
                assert data.seen[row, version] == version
                assert question == ASKED.question[row].replace("left", "right")
                assert answer == {"left": "right", "right": "left"}.get(ASKED.answers[row][0], ASKED.answers[row][0])
                seen.add(bool(sides))
            else:
                assert answer == ASKED.answers[row][0]
    assert seen == {True, False}
    plain = corpus.data(model, np.arange(24), 0, False)
    assert plain.seen.shape == (24, 1)
    assert not plain.seen.any()


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("keys", [{}, {"picture": False}, {"text_blocks": 1, "image_blocks": "all"}])
def test_a_trial_gives_predictions_and_the_same_ones_again(text, tmp_path, keys, augmented):
    made = learner(text, Storage(tmp_path), **keys)
    drawn = {"raw": np.arange(24)}
    found, _ = made.train(None, None, setting(augmented=augmented), drawn)
    frozen = "text_blocks" not in keys
    assert sorted(found) == ([1, 2, 3, 6, 9, 12] if frozen else [12])
    assert found[12].shape == (24,)
    assert set(found[12]) <= set(range(4))
    again, _ = made.train(None, None, setting(augmented=augmented), drawn)
    assert all(np.array_equal(found[step], again[step]) for step in found)
    assert not list((tmp_path / "checkpoints").glob("*")) if (tmp_path / "checkpoints").exists() else True


@pytest.mark.parametrize("targets", ["key-value", "linear"])
def test_a_trial_with_adapters_reads_features_and_then_what_is_adapted(text, tmp_path, monkeypatch, targets):
    made = learner(text, Storage(tmp_path), lora={"after": 0.5, "targets": targets})
    seen, backward = [], AnswerLoss.backward

    def watched(self, batch):
        seen.append((batch.asked.images.dtype == torch.uint8, batch.asked.texts is None))
        return backward(self, batch)

    monkeypatch.setattr(AnswerLoss, "backward", watched)
    found, _ = made.train(None, None, setting(augmented=True), {"raw": np.arange(24)})
    assert sorted(found) == [6, 12]
    assert set(seen[:6]) == {(False, False)}
    assert set(seen[6:]) == {(targets == "linear", True)}
    size = vqa_learner.size(made.settings, 4)
    assert 0 < size["trained"] < size["parameters"]
    assert size["adapted"] > size["without_gradient"]


def test_a_trial_resumes_at_its_checkpoint(text, tmp_path, monkeypatch):
    from training.learners import checkpoint

    monkeypatch.setattr(checkpoint.Checkpoint, "due", lambda self: True)
    drawn, steps, backward = {"raw": np.arange(24)}, [], AnswerLoss.backward
    whole, _ = learner(text, Storage(tmp_path / "one")).train(None, None, setting(), drawn)

    def dying(self, batch):
        steps.append(batch.drawn.step)
        if len(steps) == 7:
            raise KeyboardInterrupt
        return backward(self, batch)

    monkeypatch.setattr(AnswerLoss, "backward", dying)
    made = learner(text, Storage(tmp_path / "two"))
    with pytest.raises(KeyboardInterrupt):
        made.train(None, None, setting(), drawn)
    again, _ = made.train(None, None, setting(), drawn)
    assert steps[7:] == [6, 7, 8, 9, 10, 11]
    assert all(np.array_equal(whole[step], again[step]) for step in whole)


def test_copies_of_a_question_lie_in_different_batches(text, tmp_path):
    made = learner(text, Storage(tmp_path))
    model = build.build(made.settings, 4, 0)
    rows = np.repeat(np.arange(24), 2)
    for apart in (True, False):
        order = replace(made.corpus, apart=apart).data(model, rows, 0, False).order
        assert all(len(set(each.rows)) == len(each.rows) for each in order.steps(range(2 * order.epoch))) == apart


def test_questions_that_the_vocabulary_lacks_do_not_train(text, tmp_path):
    made = learner(text, Storage(tmp_path), Vocabulary(("two", "left")))
    model = build.build(made.settings, 2, 0)
    order = made.corpus.data(model, np.arange(24), 0, False).order
    assert len(order.rows) == 12
    with pytest.raises(TrainingError, match=r"learner 'x', arm 'raw', seed 0: all 3 questions have the answer 'two'"):
        made.train(None, None, setting(), {"raw": np.array([0, 4, 8, 2])})
    with pytest.raises(TrainingError, match="a batch of 8 pairs is larger than the pool of 6"):
        made.train(None, None, setting(), {"raw": np.arange(12)})
