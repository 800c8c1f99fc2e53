"""CLIP: equal to transformers, exact where it cuts, deaf to neighbours, and picky about activations."""

import io
import json
import os
import pickle
import subprocess
import sys
from functools import partial

import downloaded_sources
import numpy as np
import pytest
import random_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from pipeline.errors import ModelError
from pipeline.models import certificate
from pipeline.models.batches import in_batches
from pipeline.models.clip_weights import find_model
from pipeline.models.preprocessing import Standard
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.spec import Batch
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring

CAPTIONS = [
    "a dog",
    "Two men ride horses on the beach, at dusk!",
    "",
    "ein Hund läuft über die Straße 🐕",
    "red " * 40,
    "a very long caption that goes on and on, " * 20,
    "a photo of a dog",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_clip.save(random_clip.reference("quick_gelu"), tmp_path_factory.mktemp("clip") / "small", True)


def spec(folder, **changed):
    settings = {"kind": "clip", "model": f"local-dir:{folder}", "precision": "float32", **changed}
    return ClipSpec.model_validate(settings)


def batch(pictures, captions, scorer):
    prepared = [scorer.prepare(picture) for picture in pictures]
    return Batch([str(n) for n in range(len(captions))], prepared, captions, None)


def pairs(count):
    return [
        (f"http://host/{n}.jpg", CAPTIONS[n % len(CAPTIONS)] + " " * n, downloaded_sources.picture(n, (80, 60)))
        for n in range(count)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "quick"), [("quick_gelu", True), ("gelu", False)])
def test_embeddings_and_similarity_equal_those_of_transformers(tmp_path, activation, quick):
    import open_clip
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = random_clip.reference(activation)
    clip = spec(random_clip.save(model, tmp_path / "small", quick), batch=4)
    rows = pairs(7)
    described, storage, (shard,) = downloaded_sources.downloaded(tmp_path / "store", rows, {"clip": clip})
    Scoring(Plan.of(described), storage)(shard)
    similarity = downloaded_sources.scores(described, storage, shard, "clip")["similarity"]
    stored = downloaded_sources.embeddings(described, storage, shard, "clip")

    processor = CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})
    decoded = [Image.open(io.BytesIO(downloaded_sources.jpeg(picture))) for _, _, picture in rows]
    with torch.inference_mode():
        said = model(
            pixel_values=processor(decoded, return_tensors="pt")["pixel_values"],
            input_ids=open_clip.get_tokenizer("ViT-B-32")([caption for _, caption, _ in rows]),
        )
        cosine = said.logits_per_image.diagonal() / model.logit_scale.exp()
    assert np.abs(np.array(similarity) - cosine.numpy()).max() < 1e-4
    images, texts = said.image_embeds.numpy(), said.text_embeds.numpy()
    assert np.abs(stored - np.stack([images, texts], axis=1)).max() < 5e-4  # float16
    scorer = clip.load()
    fresh = scorer.score(batch(decoded, [caption for _, caption, _ in rows], scorer))["embeddings"]
    assert np.abs(fresh - np.stack([images, texts], axis=1)).max() < 1e-4
    wrong = spec(random_clip.save(model, tmp_path / "wrong", not quick)).load()
    other = wrong.score(batch(decoded, [caption for _, caption, _ in rows], wrong))["embeddings"]
    assert np.abs(other - fresh).max() > 1e-3  # so that the activation matters here
    assert np.ptp(similarity) > 0.1


def test_preparing_goes_to_other_processes_without_the_model(folder):
    scorer = spec(folder).load()
    sent, picture = pickle.dumps(scorer.preparation), downloaded_sources.picture(3, (300, 200))
    assert len(sent) < 10_000
    assert np.array_equal(pickle.loads(sent)(picture), scorer.prepare(picture))


def test_the_prepared_picture_is_what_open_clip_makes_of_it(folder):
    import open_clip

    scorer = spec(folder).load()
    model, _, whole = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    picture = downloaded_sources.picture(3, (90, 50))
    with torch.inference_mode():
        expected = model.eval().encode_image(whole(picture)[None], normalize=True).numpy()
    assert np.abs(scorer.encode_pictures([scorer.prepare(picture)]) - expected).max() < 1e-6


def test_a_cut_text_tower_equals_the_whole_one(folder):
    scorer = spec(folder).load()
    assert scorer.cuts
    tokens = scorer.tokenizer(CAPTIONS)
    with torch.inference_mode():
        whole = scorer.model.encode_text(tokens, normalize=True).numpy()
    assert np.abs(scorer.encode_captions(CAPTIONS) - whole).max() < 2e-6
    assert sorted(set(scorer._lengths(tokens))) == [8, 16, 24, 48, 77]


@pytest.mark.parametrize(
    "tower",
    [
        {"no_causal_mask": True},
        {"pool_type": "last"},
        {"context_length": 64, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},  # as SigLIP's
    ],
)
def test_a_tower_that_cannot_be_cut_is_not(tmp_path, tower):
    import open_clip

    config = {**random_clip.CONFIG, "text_cfg": {**random_clip.CONFIG["text_cfg"], **tower}, "custom_text": True}
    torch.manual_seed(0)
    folder = tmp_path / "whole"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    random_clip.save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    scorer = spec(folder).load()
    assert not scorer.cuts
    with torch.inference_mode():
        whole = model.encode_text(scorer.tokenizer(CAPTIONS), normalize=True).numpy()
    assert np.abs(scorer.encode_captions(CAPTIONS) - whole).max() < 2e-6
    if len(tower) == 4:  # of a text that is padded to another length the last position is another
        scorer.tokenizer = partial(scorer.tokenizer, context_length=16)
        with pytest.raises(ModelError, match=r"padded to 64 tokens, and its tokenizer pads to 16, which changes"):
            certificate.check_padding(scorer)


def test_a_score_does_not_depend_on_its_neighbours(folder):
    scorer = spec(folder, batch=3).load()
    pictures = [downloaded_sources.picture(n) for n in range(len(CAPTIONS))]
    together = scorer.score(batch(pictures, CAPTIONS, scorer))
    for n, caption in enumerate(CAPTIONS):
        alone = scorer.score(batch([pictures[n]], [caption], scorer))
        assert alone["similarity"][0] == pytest.approx(together["similarity"][n], abs=1e-5)


def test_pictures_and_captions_are_encoded_once(folder):
    scorer = spec(folder, batch=2).load()
    assert scorer.embed_captions  # it tries the text tower first
    seen = []
    scorer.model.visual.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    scorer.model.token_embedding.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    one, two = (scorer.prepare(downloaded_sources.picture(n)) for n in range(2))
    found = scorer.score(Batch(list("abcd"), [one, one, two, one], ["a dog", "a cat", "a dog", "a dog"], None))
    assert seen == [2, 2]
    assert found["similarity"][0] == found["similarity"][3] != found["similarity"][2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pictures_one_at_a_time_have_the_bits_of_all_at_once(dtype):
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    pictures = list(np.random.default_rng(0).integers(0, 256, (5, 32, 24, 3), dtype=np.uint8))
    values = torch.tensor(np.stack(pictures)).permute(0, 3, 1, 2).float().div(255)
    expected = values.sub(torch.tensor(mean)[:, None, None]).div(torch.tensor(std)[:, None, None]).to(dtype)
    found = Standard(mean, std)(pictures, "cpu", dtype)
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_is_near_float32(folder):
    exact, rough = (spec(folder, precision=precision).load() for precision in ("float32", "bfloat16"))
    pictures = [downloaded_sources.picture(n) for n in range(len(CAPTIONS))]
    similarities = [scorer.score(batch(pictures, CAPTIONS, scorer))["similarity"] for scorer in (exact, rough)]
    assert np.abs(similarities[0] - similarities[1]).max() < 0.03
    assert similarities[1].dtype == np.float32


def test_a_second_run_does_no_forward_pass(tmp_path, folder):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    described, storage, (shard,) = downloaded_sources.downloaded(tmp_path / "store", pairs(5), {"clip": spec(copy)})
    Scoring(Plan.of(described), storage)(shard)
    ready = Scoring(Plan.of(described), storage)
    (copy / "open_clip_model.safetensors").write_bytes(b"no weights any more")  # would not load
    ready(shard)


def test_identity_changes_with_all_that_changes_a_score(tmp_path, folder):
    before = spec(folder).identity()
    assert json.loads(json.dumps(before)) == before
    assert str(folder) not in json.dumps(before)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in folder.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    assert spec(moved).identity() == before
    assert spec(folder, batch=32).identity() != before
    assert spec(folder, precision="bfloat16").identity() != before
    config = json.loads((moved / "open_clip_config.json").read_text())
    config["preprocess_cfg"] = {"mean": [0.5, 0.5, 0.5]}
    (moved / "open_clip_config.json").write_text(json.dumps(config))
    assert spec(moved).identity() != before


@pytest.mark.parametrize("largest", [1, 3, 100])
def test_memory_that_ends_halves_the_batch_and_goes_on(largest):
    sizes = []

    def encode(items):
        if len(items) > largest:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(items))
        return torch.tensor(items) * 2

    items = [[float(n)] for n in range(37)]
    assert (in_batches(encode, items, 16) == np.array(items) * 2).all()
    assert set(sizes) == {1: {1}, 3: {2}, 100: {16, 8}}[largest]  # 37 are 16, 16 and 5, which are filled up to 8
    sizes.clear()
    assert (in_batches(encode, items, 16, fill=True) == np.array(items) * 2).all()
    assert len(set(sizes)) == 1
    sizes.clear()
    assert (in_batches(encode, items, 16, split=True) == np.array(items) * 2).all()
    assert set(sizes) == {1: {1}, 3: {2}, 100: {16, 4}}[largest]  # 37 are 16, 16, 4 and 1, which is filled up to 4


def test_one_item_that_is_too_large_is_an_error():
    def encode(items):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        in_batches(encode, [0.0] * 4, 4)


@pytest.mark.parametrize(
    ("model", "weights", "quick_gelu", "said"),
    [
        ("ViT-B-32", "openai", None, "set model = 'ViT-B-32-quickgelu'"),
        ("ViT-L-14", "metaclip_400m", None, "set model = 'ViT-L-14-quickgelu'"),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", None, "set model = 'ViT-B-32'"),
        ("ViT-B-32", "openia", None, "has no weights 'openia'"),
        ("ViT-B-32", None, None, "needs weights"),
        ("ViT-B-23", "openai", None, "did you mean 'ViT-B-32'"),
        ("local-dir:.", "openai", None, "includes its weights"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_anything_is_fetched(model, weights, quick_gelu, said):
    with pytest.raises(ModelError) as error:
        find_model(model, weights, quick_gelu)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_file_of_weights_must_say_its_activation(tmp_path, folder):
    alone = tmp_path / "weights.safetensors"
    alone.write_bytes((folder / "open_clip_model.safetensors").read_bytes())
    with pytest.raises(ModelError, match="set quick_gelu = true"):
        find_model("ViT-B-32", str(alone), None)
    with pytest.raises(ModelError, match="set model = 'ViT-B-32-quickgelu'"):
        find_model("ViT-B-32", str(alone), True)
    assert find_model("ViT-B-32-quickgelu", str(alone), True).weights == alone
    beside = str(folder / "open_clip_model.safetensors")
    with pytest.raises(ModelError, match="set model = 'ViT-B-32-quickgelu'"):
        find_model("ViT-B-32", beside, None)
    with pytest.raises(ModelError, match="does not load as ViT-B-32-quickgelu"):
        find_model("ViT-B-32-quickgelu", beside, None).load()


def test_a_folder_whose_activation_is_not_its_weights_is_refused(tmp_path):
    model = random_clip.reference("quick_gelu")
    folder = random_clip.save(model, tmp_path / "small", False)
    model.config.save_pretrained(folder)
    with pytest.raises(ModelError, match="trained with QuickGELU.*set quick_gelu = true"):
        spec(folder).identity()
    random_clip.save(model, folder, True)
    spec(folder).load()


def test_folders_with_nothing_or_too_much_in_them_are_refused(tmp_path, folder):
    with pytest.raises(ModelError, match=r"exactly one file of weights"):
        spec(tmp_path).identity()
    (tmp_path / "model.safetensors").write_bytes((folder / "open_clip_model.safetensors").read_bytes())
    with pytest.raises(ModelError, match=r"open_clip_config.json is missing"):
        spec(tmp_path).identity()
    (tmp_path / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    spec(tmp_path).load()
    (tmp_path / "pickled.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"exactly one file of weights"):
        spec(tmp_path).identity()


def test_paths_are_relative_to_the_source_file(tmp_path, folder):
    settings = {"kind": "clip", "model": f"local-dir:{folder.name}"}
    found = ClipSpec.model_validate(settings, context={"folder": folder.parent})
    assert found.model == f"local-dir:{folder}"
    assert found.encoder == "small/"
    with pytest.raises(ValueError, match="there is no file"):
        ClipSpec.model_validate(settings, context={"folder": tmp_path})


@pytest.mark.slow
def test_without_the_hub_the_error_is_one_line_with_the_way_out(tmp_path):
    program = (
        "from pipeline.models.clip_weights import find_model\nfrom pipeline.errors import ModelError\n"
        "try:\n    find_model('ViT-B-32-quickgelu', 'openai', None)\nexcept ModelError as error:\n    print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    (said,) = done.stdout.splitlines()
    assert "ViT-B-32-quickgelu/openai cannot be fetched" in said
    assert "name a local .safetensors file" in said


def test_validating_a_spec_imports_no_torch():
    imports = "import sys, pipeline.sources.source, pipeline.scorers.spec"
    program = f"{imports}; print('torch' in sys.modules, 'open_clip' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.fixture(scope="module")
def sigmoid_folder(tmp_path_factory):
    """A model with a logit bias, as SigLIP has; its text tower sees the whole caption and takes the last position."""
    from open_clip.model import CustomTextCLIP

    torch.manual_seed(1)
    text = {**random_clip.CONFIG["text_cfg"], "no_causal_mask": True, "pool_type": "last"}
    config = {**random_clip.CONFIG, "text_cfg": text, "init_logit_bias": -10, "custom_text": True}
    model = CustomTextCLIP(24, config["vision_cfg"], text, init_logit_bias=-10)
    with torch.no_grad():
        model.logit_scale.fill_(np.log(50))
        model.logit_bias.fill_(-7.5)
    folder = tmp_path_factory.mktemp("sigmoid") / "small"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.mark.slow
def test_of_a_sigmoid_model_cosine_logit_and_sigmoid_are_three_columns(sigmoid_folder, tmp_path):
    import open_clip

    plain, more = spec(sigmoid_folder), spec(sigmoid_folder, sigmoid=True)
    assert set(more.columns()) == {"similarity", "logit", "sigmoid"}
    assert set(plain.columns()) == {"similarity"}
    rows = [(url, caption[:60], picture) for url, caption, picture in pairs(6)]
    found = downloaded_sources.scored(tmp_path, rows, {"clip": plain, "siglip": more})
    assert found["siglip"]["similarity"] == found["clip"]["similarity"]
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{sigmoid_folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{sigmoid_folder}")([caption for _, caption, _ in rows])
    pictures = [Image.open(io.BytesIO(downloaded_sources.jpeg(picture))) for _, _, picture in rows]
    with torch.inference_mode():
        logits, _ = model.eval().get_logits(torch.stack([preprocess(each) for each in pictures]), tokens)
    expected = logits.diag()
    assert found["siglip"]["logit"] == pytest.approx(expected.tolist(), abs=1e-3)
    assert found["siglip"]["sigmoid"] == pytest.approx(expected.sigmoid().tolist(), rel=1e-3)
    assert found["siglip"]["similarity"] == pytest.approx(((expected + 7.5) / 50).tolist(), abs=1e-4)


def test_a_sigmoid_is_refused_where_the_model_has_no_bias(folder):
    with pytest.raises(ModelError, match="has no logit bias, .*: remove sigmoid = true"):
        spec(folder, sigmoid=True).load()
