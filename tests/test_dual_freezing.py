"""What trains, and at which rates: a frozen tower does not move by a bit."""

import pytest
import torch
from tiny_towers import tiny, write_clip, write_text

from pipeline.errors import ModelError
from training.dual.build import build
from training.dual.freezing import blocks, parameter_groups

CAPTIONS = ["a dog runs", "two men", "a cat sits on the red sand", "the horse"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("bert"))


def stepped(settings, steps=2):
    """A model, its state before and after real steps."""
    model = build(settings, 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(parameter_groups(model))
    tokens, draw = model.tokenizer(CAPTIONS).ids, torch.Generator().manual_seed(0)
    for _ in range(steps):
        model.train()
        pixels = torch.rand((4, 3, 32, 32), generator=draw)
        cosines = model.encode_image(pixels, normalize=True) @ model.encode_text(tokens, normalize=True).T
        loss = torch.nn.functional.cross_entropy(model.logit_scale.exp() * cosines, torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = model.state_dict()
    return model, {name for name in before if not torch.equal(before[name], after[name])}


def of(changed, prefix):
    return {name for name in changed if name.startswith(prefix)}


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_frozen_towers_do_not_move_by_a_bit(bert, batch_norm):
    _, changed = stepped(tiny(bert, batch_norm=batch_norm, dropout=0.1))
    assert changed == {"logit_scale", "visual.head.proj.weight", "text.head.proj.weight"}


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_the_last_blocks_train_and_their_statistics_only_if_asked(bert, batch_norm):
    _, changed = stepped(tiny(bert, image_blocks=1, text_blocks=1, batch_norm=batch_norm))
    image, text = of(changed, "visual.trunk."), of(changed, "text.trunk.")
    statistics = {name for name in image if "running" in name}
    assert image
    assert all(name.startswith("visual.trunk.layer4.") for name in image)
    assert bool(statistics) is (batch_norm == "train")
    assert text
    assert all(name.startswith("text.trunk.transformer.encoder.layer.1.") for name in text)


def test_all_blocks_train_from_the_first(bert):
    model, changed = stepped(tiny(bert, image_blocks="all", text_blocks="all"))
    assert "visual.trunk.conv1.0.weight" in changed
    assert "text.trunk.transformer.embeddings.word_embeddings.weight" in changed
    assert all(each.requires_grad for each in model.parameters())


@pytest.mark.parametrize(
    ("name", "count", "last"),
    [
        ("mobilenetv2_035", 18, "bn2.bias"),
        ("test_resnet", 5, "layer4.0.downsample.2.bias"),
        ("test_vit", 7, "norm.bias"),
    ],
)
def test_blocks_of_timm_hold_each_parameter_once(name, count, last):
    import timm

    trunk = timm.create_model(name)
    trunk.reset_classifier(0)
    found = blocks(trunk)
    names = [each for block in found for each in block]
    assert len(found) == count
    assert last in found[-1]
    assert sorted(names) == sorted(each for each, _ in trunk.named_parameters())


def test_blocks_of_a_text_tower_are_its_layers(bert):
    model = build(tiny({"kind": "small", "width": 32, "layers": 3, "heads": 2}), 0)
    found = blocks(model.text.trunk)
    assert len(found) == 3
    assert {"token_embedding.weight", "positional_embedding"} <= set(found[0])
    assert "ln_final.weight" in found[-1]


def test_frozen_parts_have_no_dropout_and_trained_ones_do(bert):
    model = build(tiny(bert, text_blocks=1), 0).train()
    layers = model.text.trunk.transformer.encoder.layer
    assert not model.text.trunk.transformer.embeddings.dropout.training
    assert not layers[0].output.dropout.training
    assert layers[1].output.dropout.training
    assert not model.visual.trunk.training
    assert not any(module.training for module in model.eval().modules())


def test_each_part_has_its_rate_and_norms_have_no_decay(bert):
    model = build(tiny(bert, image_blocks="all", text_blocks=1, objective="sigmoid", weight_decay=0.3), 0)
    groups = {group["name"]: group for group in parameter_groups(model)}
    assert {name: group["lr"] for name, group in groups.items()} == {
        "image": 1e-4,
        "image, no decay": 1e-4,
        "text": 1e-5,
        "text, no decay": 1e-5,
        "heads": 1e-3,
        "heads, no decay": 1e-3,
    }
    assert {group["weight_decay"] for name, group in groups.items() if "no decay" in name} == {0.0}
    names = {id(value): name for name, value in model.named_parameters()}
    free = {names[id(each)] for name, group in groups.items() if "no decay" in name for each in group["params"]}
    decayed = {names[id(each)] for name, group in groups.items() if "no decay" not in name for each in group["params"]}
    assert {"logit_scale", "logit_bias"} <= free
    assert all(name.endswith("weight") for name in decayed)
    assert not any("norm" in name.lower() for name in decayed)
    assert free | decayed == {name for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("image", ["test_resnet", "test_vit"])
def test_checkpointing_gives_the_same_gradients(bert, image):
    gradients = []
    for checkpointing in (False, True):
        keys = {"image": f"timm:{image}@random", "image_blocks": "all", "text_blocks": "all"}
        model = build(tiny(bert, **keys, checkpointing=checkpointing), 0)
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        pixels = torch.rand((4, 3, 32, 32), generator=torch.Generator().manual_seed(0))
        loss = (model.encode_image(pixels) * model.encode_text(model.tokenizer(CAPTIONS).ids)).sum()
        loss.backward()
        gradients.append({name: each.grad for name, each in model.named_parameters() if each.grad is not None})
    plain, again = gradients
    assert plain.keys() == again.keys()
    assert all(torch.allclose(plain[name], again[name], rtol=1e-4, atol=1e-5) for name in plain)


def test_a_tower_with_its_own_projection_needs_its_size_or_another_head(tmp_path, bert):
    keys = {"image": write_clip(tmp_path / "clip", [1, 1, 1, 1]), "image_size": None, "image_blocks": 2}
    with pytest.raises(ModelError, match="gives embeddings of 16 numbers: set dim = 16"):
        build(tiny(bert, dim=8, **keys), 0)
    assert parameter_groups(build(tiny(bert, dim=8, head="residual", **keys), 0))
    _, changed = stepped(tiny(bert, dim=16, **keys))
    assert of(changed, "visual.trunk.layer4.")
    assert of(changed, "visual.trunk.attnpool.")
    assert not of(changed, "visual.trunk.layer3.")
