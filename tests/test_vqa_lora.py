"""Low-rank adapters: where they are put, which of them train, merging, two stages, and the counts of the study."""

import numpy as np
import pytest
import tiny_vqa
import torch
import vqa_study
from tiny_vqa import QUESTIONS

from pipeline.errors import ModelError
from pipeline.settings.vqa import Lora
from pipeline.store.storage import Storage
from training.learners.checkpoint import Checkpoint
from training.learners.vqa import AnswerLoss
from training.studies.vqa_training import Course
from training.vqa import lora

VIT = {"kind": "timm", "model": "test_vit", "weights": "random", "options": {"img_size": 32}}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return tiny_vqa.write_text(tmp_path_factory.mktemp("text") / "bert")


def course(model, storage, seed=0):
    saved = {name: Checkpoint(storage, f"checkpoints/{name}", 0) for name in ("head", "whole")}
    return Course(model, lambda stage: tiny_vqa.data(model, seed=seed), None, saved, seed)


def nothing():
    return np.zeros(1, np.int64)


def answers(model):
    pixels = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return model.eval()(pixels, model.tokenizer(QUESTIONS).ids).detach()


def test_adapters_change_no_answer_before_they_train(text):
    model = tiny_vqa.model(text, image=VIT, lora={})
    before, parameters = answers(model), sum(each.numel() for each in model.parameters())
    chosen = lora.add(model, model.settings.lora, 0)
    assert torch.equal(answers(model), before)
    counts = lora.counts(model)
    assert counts["parameters"] - counts["adapters"] == parameters
    head = sum(each.numel() for each in model.head.parameters())
    assert counts["trained"] == counts["adapters"] + head
    assert {name.rpartition(".")[2] for name in chosen} == {"key", "value", "qkv"}


def test_linear_adapts_all_linear_layers_of_the_towers_and_1_x_1_convolutions(text):
    model = tiny_vqa.model(text, image=VIT, lora={"targets": "linear"})
    chosen = lora.add(model, model.settings.lora, 0)
    ends = {name.rpartition(".")[2] for name in chosen}
    assert ends == {"query", "key", "value", "dense", "qkv", "proj", "fc1", "fc2"}
    assert not any(name.startswith("head.") for name in chosen)
    assert lora.dead(model) == []
    convolutional = tiny_vqa.model(text, lora={"targets": "linear"})
    chosen = lora.add(convolutional, convolutional.settings.lora, 0)
    assert {name.rpartition(".")[2] for name in chosen if name.startswith("image.")} == {"conv1", "conv3", "1"}


@pytest.mark.parametrize("head", ["co-attention", "advanced"])
def test_out_proj_gets_no_gradient_and_is_counted(text, head):
    model = tiny_vqa.model(text, head=head, lora={"targets": ["key", "out_proj"]})
    chosen = lora.add(model, model.settings.lora, 0)
    dead = lora.dead(model)
    assert dead == [name for name in chosen if name.endswith("out_proj")]
    assert len(dead) == 2
    assert all(each.grad is None for each in model.parameters())


def test_the_studys_adapters_without_gradient(text):
    model = tiny_vqa.model(text, image=VIT, head="advanced", lora={"targets": "study", "head": False})
    chosen = lora.add(model, model.settings.lora, 0)
    assert {name.rpartition(".")[2] for name in chosen} == set(lora.STUDY)
    assert [name.rpartition(".")[2] for name in lora.dead(model)] == ["out_proj", "out_proj"]
    assert lora.counts(model)["trained"] == lora.counts(model)["adapters"]


@pytest.mark.parametrize("targets", ["key-value", "linear", "study"])
def test_merged_adapters_give_the_same_answers(text, tmp_path, targets):
    keys = {"lora": {"targets": targets, "rate": 1e-2}, "steps": 10}
    model = tiny_vqa.model(text, image=VIT, **keys)
    before = answers(model)
    course(model, Storage(tmp_path)).run([10], nothing)
    trained = answers(model)
    assert (trained - before).abs().max() > 1e-2
    names = set(tiny_vqa.model(text, image=VIT, **keys).state_dict())
    lora.merge(model)
    assert set(model.state_dict()) == names
    assert (answers(model) - trained).abs().max() < 1e-5


def test_two_stages_train_the_head_and_then_the_adapters(text, tmp_path):
    model = tiny_vqa.model(text, image=VIT, lora={"after": 0.5}, steps=16)
    towers = {name: each.clone() for name, each in model.state_dict().items() if not name.startswith("head.")}
    seen = []

    def evaluate():
        state = model.state_dict()
        seen.append(sum("lora_" in name for name in state))
        kept = [each for name, each in state.items() if "lora_" not in name and not name.startswith("head.")]
        assert all(torch.equal(one, other) for one, other in zip(kept, towers.values(), strict=True))
        return nothing()

    found, histories = course(model, Storage(tmp_path)).run([8, 16], evaluate)
    assert sorted(found) == [8, 16]
    assert [each.step for each in histories] == [8, 8]
    assert seen[0] == 0
    assert seen[1] > 0
    assert not any(Storage(tmp_path).done(f"checkpoints/{name}") for name in ("head", "whole"))


@pytest.mark.slow
@pytest.mark.parametrize("dies", [5, 12])
def test_a_killed_training_of_two_stages_ends_with_the_same_bits(text, tmp_path, monkeypatch, dies):
    keys = {"image": VIT, "lora": {"after": 0.5, "dropout": 0.1}, "steps": 16, "dropout": 0.5}
    whole = tiny_vqa.model(text, **keys)
    course(whole, Storage(tmp_path / "one")).run([16], nothing)
    storage, backward, steps = Storage(tmp_path / "other"), AnswerLoss.backward, []

    def dying(self, batch):
        steps.append(batch.drawn.step)
        if len(steps) == dies:
            raise KeyboardInterrupt
        return backward(self, batch)

    monkeypatch.setattr(AnswerLoss, "backward", dying)
    with pytest.raises(KeyboardInterrupt):
        course(tiny_vqa.model(text, **keys), storage).run([16], nothing)
    resumed = tiny_vqa.model(text, **keys)
    course(resumed, storage).run([16], nothing)
    assert len(steps) == 17  # the step in which it died is taken again
    assert all(torch.equal(each, whole.state_dict()[name]) for name, each in resumed.state_dict().items())


def test_a_target_that_no_module_has_is_one_line(text):
    with pytest.raises(ModelError, match="no module for adapters is called quory or valeu: set lora.targets"):
        lora.add(tiny_vqa.model(text), Lora(targets=("quory", "valeu")), 0)


@pytest.mark.slow
def test_the_counts_of_the_study():
    counts, chosen, dead, losses = vqa_study.adapted("base", "advanced", vqa_study.ANSWERS, vqa_study.STUDY)
    # 16 numbers a row and a column of each module: 12 layers of 9 x 1,536 in RoBERTa (feed-forward layers are 3,072
    # wide) and of 4 x 1,536 in DINOv2, the pooler, both embeddings, two out_proj. The study prints 4.74 M.
    modules = 12 * (4 * 1536 + 2 * 3840) + 12 * 4 * 1536 + 1536 + (50265 + 768) + (514 + 768) + 2 * 1536
    assert counts["trained"] == 16 * modules == 4_744_624
    assert [name.rpartition("transformer.")[2] for name in dead] == [
        "pooler.dense",
        "head.attention.from_text.out_proj",
        "head.attention.from_image.out_proj",
    ]
    assert len(chosen) == 12 * 6 + 12 * 4 + 1 + 2 + 2
    # 1.48 % with two layers of 9,214 units; the study's 1.46 % needs a classifier of 103.2 to 105.4 M parameters.
    assert counts["trained"] / counts["parameters"] == pytest.approx(0.01484, abs=1e-5)
    assert losses[1] < losses[0]
    counts, chosen, dead, losses = vqa_study.adapted("small", "concatenation", 0, vqa_study.KEY_VALUE)
    assert counts["trained"] == 641 * 9214 + 16 * (12 * 2 * 768 + 12 * 2 * 512) == 6_397_694
    assert counts["trained"] / counts["parameters"] == pytest.approx(0.1255, abs=1e-4)  # the study prints 12.57 %
    assert dead == []
    assert losses[1] < losses[0]
    whole = lora.counts(vqa_study.model("small", "concatenation", vqa_study.ANSWERS))
    assert whole["parameters"] == 135_412_864  # the study: 135 million
