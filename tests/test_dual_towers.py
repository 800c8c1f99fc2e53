"""Dual encoders: towers by name, pooling and padding, heads, and towers or weights that do not fit."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_towers import tiny, write_clip, write_text

from pipeline.errors import ModelError
from training.dual.build import build, identity
from training.dual.size import measure

CAPTIONS = ["a dog runs on the beach", "two men", "", "a cat sits on the red sand with the blue horse and it rides it"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("bert"))


def pictures(count=3):
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (40, 60, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("head", ["linear", "residual"])
@pytest.mark.parametrize("image", ["test_resnet", "test_efficientnet", "test_vit"])
def test_both_towers_give_embeddings_of_one_size(bert, image, head):
    model = build(tiny(bert, image=f"timm:{image}@random", head=head), 0)
    pixels = model.pictures.stack([model.pictures.prepare(each) for each in pictures()])
    tokens = model.tokenizer(CAPTIONS)
    assert (tokens.ids.shape, tokens.ids.dtype, tokens.cut) == ((4, 8), torch.int64, 1)
    seen, read = model.encode_image(pixels, normalize=True), model.encode_text(tokens.ids)
    assert (seen.shape, read.shape) == ((3, 16), (4, 16))
    assert torch.allclose(seen.norm(dim=1), torch.ones(3))


def test_the_seed_decides_the_heads_and_nothing_else(bert):
    one, same, other = (build(tiny(bert), seed).state_dict() for seed in (1, 1, 2))
    changed = {name for name in one if not torch.equal(one[name], other[name])}
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert changed == {"visual.head.proj.weight", "text.head.proj.weight"}


@pytest.mark.parametrize("pooling", ["first", "mean", "end"])
@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_padding_does_not_change_a_caption_and_pooling_is_what_its_name_says(tmp_path, kind, pooling):
    from transformers import AutoModel

    folder = write_text(tmp_path / kind, kind)
    model = build(tiny(folder, pooling=pooling, context=24), 0)
    ids = model.tokenizer(CAPTIONS).ids
    together = model.text.trunk(ids)
    plain = AutoModel.from_pretrained(folder).eval()
    for row, caption in enumerate(ids):
        own = caption[caption != 0][None]
        hidden = plain(input_ids=own).last_hidden_state[0]
        wanted = {"first": hidden[0], "mean": hidden.mean(dim=0), "end": hidden[-1]}[pooling]
        assert torch.allclose(together[row], wanted, atol=1e-5)


def test_captions_that_are_cut_are_counted_exactly(bert):
    tokenizer = build(tiny(bert, context=8), 0).tokenizer
    assert tokenizer(["a dog runs on the beach"]).cut == 0  # six words and two marks fit exactly
    assert tokenizer(["a dog runs on the red beach"]).cut == 1
    assert tokenizer([]).ids.shape == (0, 8)


def test_the_small_text_tower_needs_no_download_and_reads_its_end(bert):
    model = build(tiny({"kind": "small", "width": 32, "layers": 2, "heads": 2}), 0)
    tokens = model.tokenizer(["a dog", "a dog that runs on the beach with a horse"])
    assert tokens.cut == 1
    short = model.text.trunk(torch.cat([tokens.ids[:1], tokens.ids[:1]]))
    assert torch.allclose(model.text.trunk(tokens.ids)[0], short[0], atol=1e-6)


def test_a_residual_head_is_the_tutorials():
    from training.dual.heads import Residual

    head = Residual(5, 3, dropout=0.5).eval()
    features = torch.randn(4, 5)
    projected = features @ head.projection.weight.T + head.projection.bias
    gelu = projected * 0.5 * (1 + torch.erf(projected / 2**0.5))
    summed = projected + gelu @ head.hidden.weight.T + head.hidden.bias
    mean, deviation = summed.mean(dim=1, keepdim=True), summed.var(dim=1, unbiased=False, keepdim=True)
    assert torch.allclose(head(features), (summed - mean) / (deviation + 1e-5).sqrt(), atol=1e-5)


@pytest.mark.parametrize(
    ("keys", "scale", "bias"),
    [
        ({}, 1 / 0.07, None),
        ({"objective": "sigmoid", "bias": "paper"}, 10, -10),
        ({"objective": "sigmoid", "batch": 9}, 10, -np.log(8)),
        ({"objective": "soft-targets"}, 1, None),
    ],
)
def test_temperature_and_bias_start_where_the_objective_says(bert, keys, scale, bias):
    model = build(tiny(bert, **keys), 0)
    assert model.logit_scale.exp().item() == pytest.approx(scale)
    assert model.logit_scale.requires_grad is (keys.get("objective") != "soft-targets")
    assert (model.logit_bias is None) if bias is None else model.logit_bias.item() == pytest.approx(bias)


def test_weights_of_files_are_loaded_and_identified(tmp_path, bert):
    import timm

    other = write_text(tmp_path / "other", seed=1)
    trunk = timm.create_model("test_resnet", pretrained=False)
    save_file(trunk.state_dict(), tmp_path / "image.safetensors")
    settings = tiny(
        {"kind": "transformers", "model": str(bert), "weights": str(other / "model.safetensors")},
        image=f"timm:test_resnet@{tmp_path / 'image.safetensors'}",
    )
    model = build(settings, 0)
    assert torch.equal(model.visual.trunk.conv1[0].weight, trunk.conv1[0].weight)
    words = load_file(other / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert torch.equal(model.text.trunk.transformer.embeddings.word_embeddings.weight, words)
    made = identity(settings)
    assert len(made["image"]["weights"]) == len(made["text"]["weights"]) == 64
    assert str(tmp_path) not in str(made)
    assert made["text"]["weights"] != identity(tiny(bert))["text"]["weights"]


def test_half_precision_files_train_in_float32(tmp_path, bert):
    half = {name: each.half() for name, each in load_file(bert / "model.safetensors").items()}
    save_file(half, tmp_path / "half.safetensors")
    text = {"kind": "transformers", "model": str(bert), "weights": str(tmp_path / "half.safetensors")}
    model = build(tiny(text), 0)
    assert {each.dtype for each in model.parameters()} == {torch.float32}


def without(source, target, name):
    save_file({key: each for key, each in load_file(source).items() if key != name}, target)
    return target


def test_weights_that_do_not_fit_name_keys(tmp_path, bert):
    import timm

    name = "encoder.layer.0.output.dense.weight"
    lacking = without(bert / "model.safetensors", tmp_path / "lacking.safetensors", name)
    with pytest.raises(ModelError, match=f"does not fit its config.json: missing: {name}"):
        build(tiny({"kind": "transformers", "model": str(bert), "weights": str(lacking)}), 0)
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    del state["conv1.0.weight"]
    save_file(state | {"odd": torch.zeros(1)}, tmp_path / "image.safetensors")
    with pytest.raises(ModelError, match=r"does not fit test_resnet: missing: conv1\.0\.weight; unknown: odd") as fault:
        build(tiny(bert, image=f"timm:test_resnet@{tmp_path / 'image.safetensors'}"), 0)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"context": 65}, "reads at most 64 tokens: set context = 64"),
        ({"image": "timm:test_resnt@random"}, "timm has no model 'test_resnt'; did you mean 'test_resnet'?"),
        ({"image": "timm:vit_tiny_patch16_224@random"}, "does not see pictures of 32 x 32"),
        ({"image": "open_clip:ViT-B32@random", "image_size": None}, "did you mean 'ViT-B-32'?"),
        ({"image_blocks": 6}, 'the image tower has 5 blocks; set fewer, or "all"'),
        ({"text_blocks": 3}, "the text tower has 2 blocks"),
    ],
)
def test_a_tower_that_is_not_there_or_does_not_fit_is_one_line(bert, keys, told):
    with pytest.raises(ModelError) as fault:
        build(tiny(**{"text": bert} | keys), 0)
    assert told in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_text_tower_of_open_clip_is_cut_where_that_is_exact(tmp_path):
    clip = write_clip(tmp_path / "clip")
    captions = ["a dog", "two men on a red horse"]
    whole, cut = (build(tiny(clip, context=context), 0) for context in (20, 8))
    assert torch.allclose(whole.text(whole.tokenizer(captions).ids), cut.text(cut.tokenizer(captions).ids), atol=1e-6)
    with pytest.raises(ModelError, match="reads at most 20 tokens: set context = 20"):
        build(tiny(clip, context=21), 0)


def test_a_folder_without_weights_or_tokenizer_says_what_is_missing(tmp_path):
    folder = write_text(tmp_path / "bert")
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(ModelError, match=r"has no model\.safetensors: put it there"):
        build(tiny(folder), 0)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        build(tiny(folder), 0)


def test_a_hub_that_cannot_be_reached_says_which_files_to_put_where(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError) as fault:
        build(tiny("transformers:distilbert/distilbert-base-uncased"), 0)
    assert "put config.json, the tokenizer (tokenizer.json) and model.safetensors of huggingface.co/distilbert" in str(
        fault.value
    )


def test_the_size_counts_towers_heads_and_operations(bert):
    model = build(tiny(bert, image_blocks=1, batch_norm="train"), 0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    size = measure(model)
    assert size.parameters == sum(each.numel() for name, each in model.named_parameters() if name != "logit_scale")
    assert size.heads == 96 * 16 + 32 * 16
    assert size.trained == sum(each.numel() for each in model.parameters() if each.requires_grad) < size.parameters
    # Two layers of 8 tokens: four projections and a feed-forward of twice the width, then attention and the head.
    layers = 2 * (8 * (4 * 32 * 32 + 2 * 32 * 64) * 2)
    assert layers < size.text_flops < 1.2 * layers
    assert size.image_flops > 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
