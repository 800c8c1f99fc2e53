"""A small random SigLIP of open_clip's shape: to transformers and back, and through a model of one's own."""

import json

import pytest
import torch
from safetensors.torch import save_file
from tiny_towers import tiny

from pipeline.errors import ModelError
from training.dual import folder as folders
from training.dual.build import build
from training.dual.siglip_format import from_transformers, to_transformers

WIDTH, PATCH, SIZE, CONTEXT, WORDS = 64, 16, 32, 16, 49408
TIMM = "vit_tiny_patch16_siglip_like"
TEXT = {
    "context_length": CONTEXT,
    "vocab_size": WORDS,
    "width": WIDTH,
    "heads": 4,
    "layers": 2,
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
}


@pytest.fixture(scope="module", autouse=True)
def small_tower():
    """timm's SigLIP image tower, with two layers of 64 numbers, under a name of its own."""
    from timm.models import register_model
    from timm.models.vision_transformer import VisionTransformer

    def vit_tiny_patch16_siglip_like(pretrained=False, **keys):
        keys.pop("pretrained_cfg", None), keys.pop("pretrained_cfg_overlay", None), keys.pop("cache_dir", None)
        shape = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": 2, "num_heads": 4}
        return VisionTransformer(**{**shape, "class_token": False, "global_pool": "map", **keys})

    vit_tiny_patch16_siglip_like.__module__ = __name__
    register_model(vit_tiny_patch16_siglip_like)


def vision():
    return {
        "image_size": SIZE,
        "timm_model_name": TIMM,
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    }


def siglip():
    import open_clip

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CustomTextCLIP(WIDTH, vision(), TEXT, init_logit_bias=-10.0)
        for each in model.parameters():
            if each.ndim > 0:
                torch.nn.init.normal_(each, std=0.1)
    return model.eval()


def theirs():
    from transformers import SiglipConfig, SiglipModel

    shape = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape["hidden_act"] = "gelu"
    text = {**shape, "vocab_size": WORDS, "max_position_embeddings": CONTEXT, "projection_size": WIDTH}
    return SiglipModel(
        SiglipConfig(text_config=text, vision_config={**shape, "image_size": SIZE, "patch_size": PATCH})
    ).eval()


def inputs():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 3, SIZE, SIZE, generator=generator), torch.randint(WORDS, (3, CONTEXT), generator=generator)


def test_embeddings_and_logits_are_those_of_transformers_and_the_way_back_is_exact():
    own, other, (pixels, tokens) = siglip(), theirs(), inputs()
    other.load_state_dict(to_transformers(own.state_dict()))
    with torch.inference_mode():
        found = other(input_ids=tokens, pixel_values=pixels)
        images, texts = own.encode_image(pixels, normalize=True), own.encode_text(tokens, normalize=True)
        logits = own.logit_scale.exp() * images @ texts.T + own.logit_bias
    assert (found.image_embeds - images).abs().max() < 1e-5
    assert (found.text_embeds - texts).abs().max() < 1e-5
    assert torch.allclose(found.logits_per_image, logits, atol=1e-4)
    back = from_transformers(other.state_dict(), list(own.state_dict()))
    assert all(torch.equal(back[name], value) for name, value in own.state_dict().items())


def test_another_model_is_refused():
    with pytest.raises(ModelError, match="a weight visual.proj"):
        to_transformers({"visual.proj": torch.zeros(2, 2)})
    with pytest.raises(ModelError, match=r"text_model.head.weight is missing"):
        from_transformers({}, ["text.text_projection.weight"])


@pytest.mark.parametrize("blocks", ["all", 0])
def test_a_model_starts_at_its_scale_and_bias_and_is_saved(tmp_path, blocks):
    own, (pixels, tokens) = siglip(), inputs()
    folder = tmp_path / "siglip"
    folder.mkdir()
    config = {"embed_dim": WIDTH, "init_logit_bias": -10, "custom_text": True, "vision_cfg": vision(), "text_cfg": TEXT}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    save_file(own.state_dict(), folder / "open_clip_model.safetensors")
    name = f"open_clip:local-dir:{folder}"
    keys = {"image": name, "image_size": None, "context": CONTEXT, "head": "own", "objective": "sigmoid"}
    model = build(tiny(name, **keys, image_blocks=blocks, text_blocks="all"), 0)
    with torch.inference_mode():
        assert torch.equal(model.encode_image(pixels), own.encode_image(pixels))
        assert torch.equal(model.encode_text(tokens), own.encode_text(tokens))
    assert (model.logit_scale.item(), model.logit_bias.item()) == (own.logit_scale.item(), own.logit_bias.item())
    assert any(each.requires_grad for each in model.visual.parameters()) is (blocks == "all")
    assert folders.save(model, tmp_path / "saved", {}) is None
    with torch.inference_mode():
        assert torch.equal(folders.load(tmp_path / "saved").encode_text(tokens), own.encode_text(tokens))
