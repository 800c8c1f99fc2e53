"""Zero-shot classification: the measure by hand, templates and names, and `winnow zero-shot` on drawn pictures."""

import json

import numpy as np
import open_clip
import pytest
import tiny_towers
import torch
import training_sources
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from flows.cli import app
from pipeline.errors import ModelError, SourceError
from training.data import templates
from training.dual import build
from training.dual import folder as folders
from training.measures.zero_shot import ZeroShot
from training.studies import pair_encoders, zero_shot
from training.studies.zero_shot import Asked

NAMES = ("disc", "cross", "bars")
DUAL = {"dual": ("dual", '{ kind = "open_clip", model = "ViT-B-32", weights = "random" }')}


def measured(cosines, truth):
    return ZeroShot(np.array(cosines, np.float32), np.array(truth), NAMES)


def test_scores_by_hand():
    found = measured([[0.9, 0.1, 0.2], [0.3, 0.2, 0.1], [0.5, 0.5, 0.1], [0.1, 0.2, 0.9]], [0, 1, 1, 2])
    assert found.ranks.tolist() == [1, 2, 2, 1]  # of two that are equally near the wrong one is nearer
    assert found.given.tolist() == [0, 0, 0, 2]
    scores = found.scores()
    assert scores["top1"].value == 0.5
    assert scores["top5"].value == 1
    assert scores["per_class"].value == pytest.approx((1 + 0 + 1) / 3)
    assert scores["f1_macro"].value == pytest.approx((2 / 4 + 0 + 1) / 3)
    assert all(each.low <= each.value <= each.high for each in scores.values())
    assert found.majority()["top1"] == 0.5
    assert [(each.true, each.given, each.count) for each in found.confusions()] == [("cross", "disc", 2)]
    assert [name for name, _ in found.nearest(1, 2)] == [0, 1]


def test_the_interval_is_that_of_a_proportion():
    truth = np.zeros(400, np.int64)
    cosines = np.zeros((400, 3), np.float32)
    cosines[:300, 0] = 1
    cosines[300:, 1] = 1
    top1 = measured(cosines, truth).scores()["top1"]
    spread = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert (top1.low, top1.high) == pytest.approx((0.75 - spread, 0.75 + spread), abs=0.006)


def test_names_are_embedded_in_every_sentence_of_a_set(tmp_path):
    assert [len(templates.named(name)) for name in templates.SETS] == [1, 7, 80]
    (tmp_path / "own.txt").write_text("a {}.\n\nmany {}s\n")
    own = templates.named(str(tmp_path / "own.txt"))
    assert templates.prompts({"disc": ("disc", "plate")}, own) == [["a disc.", "many discs", "a plate.", "many plates"]]
    (tmp_path / "bad.txt").write_text("a disc\n")
    with pytest.raises(SourceError, match="the line 'a disc' needs {} once"):
        templates.named(str(tmp_path / "bad.txt"))
    with pytest.raises(SourceError, match="there is no set 'ten': use one, seven, eighty, or a file"):
        templates.named("ten")


def test_candidates_hold_every_class(tmp_path):
    classes = {"disc": ("disc", "circle"), "cross": ("cross",)}
    assert templates.candidates("task", classes) == {"disc": ["disc", "circle"], "cross": ["cross"]}
    (tmp_path / "names.txt").write_text("Disc\tround thing\nCross\nhouse\n")
    found = templates.candidates(str(tmp_path / "names.txt"), classes)
    assert found == {"Disc": ["Disc", "round thing"], "Cross": ["Cross"], "house": ["house"]}
    with pytest.raises(SourceError, match=r"the classes disc, cross are not among its 99\d names"):
        templates.candidates("imagenet", classes)
    assert len(templates.candidates("imagenet", {"goldfish": ("goldfish",)})) > 990


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    home = tmp_path_factory.mktemp("taught")
    described, storage = training_sources.task(home / "source", count=40, test=24)
    return described, storage, tiny_towers.write_clip(home / "clip")


def by_open_clip(folder, described):
    """Cosines of the test pictures and the prompts, by open_clip itself."""
    model, _, preprocess = open_clip.create_model_and_transforms(folder.removeprefix("open_clip:"))
    tokenizer = open_clip.get_tokenizer(folder.removeprefix("open_clip:"))
    paths = sorted(described.task.test.folder.glob("*.jpg"), key=str)
    with torch.inference_mode():
        pictures = model.eval().encode_image(
            torch.stack([preprocess(Image.open(path)) for path in paths]), normalize=True
        )
        names = [
            model.encode_text(tokenizer([f"a photo of a {word}" for word in words]), normalize=True).mean(dim=0)
            for words in described.task.classes.values()
        ]
        return (pictures @ torch.nn.functional.normalize(torch.stack(names), dim=-1).T).numpy()


def test_a_model_classifies_as_open_clip_computes(taught):
    described, storage, model = taught
    encoder = pair_encoders.find(described, storage, model)
    found = zero_shot.evaluate(described, storage, encoder, Asked(templates=("one", "seven")))
    assert [each["templates"] for each in found.figures["sets"]] == ["one", "seven"]
    expected = by_open_clip(model, described)
    assert np.abs(found.sets["one"].cosines - expected).max() < 1e-4
    assert found.figures["test"]["pictures"] == len(expected) == 24
    right = expected[np.arange(24), found.sets["one"].truth]
    top1 = ((expected >= right[:, None]).sum(axis=1) == 1).mean()
    assert found.figures["sets"][0]["scores"]["top1"]["value"] == pytest.approx(top1)


def test_embeddings_are_those_of_the_weights_that_the_model_has_now(taught, tmp_path):
    described, storage, _ = taught
    name = tiny_towers.write_clip(tmp_path / "clip")

    def cosines(encoder):
        return zero_shot.evaluate(described, storage, encoder, Asked(templates=("one",))).sets["one"].cosines

    before = cosines(pair_encoders.find(described, storage, name))
    again = pair_encoders.find(described, storage, name)
    assert (cosines(again) == before).all()
    assert "_clip" not in vars(again)  # nothing was loaded

    weights = load_file(tmp_path / "clip" / "open_clip_model.safetensors")
    save_file(
        {key: each + (key == "text_projection") * 0.1 * torch.randn_like(each) for key, each in weights.items()},
        tmp_path / "clip" / "open_clip_model.safetensors",
    )
    after = cosines(pair_encoders.find(described, storage, name))
    assert np.abs(after - before).max() > 1e-3


def test_a_model_that_was_fitted_is_found_by_its_name(taught, tmp_path):
    described, storage, _ = taught
    model = tiny_towers.tiny(tiny_towers.write_text(tmp_path / "text"))
    named = described.model_copy(update={"models": {"small": model}})
    with pytest.raises(ModelError, match="the model 'small' is not trained yet: run `winnow fit"):
        pair_encoders.find(named, storage, "small")
    for folder in ("small-0a1b2c3d", "small-1a2b3c4d/fold-0", "other-0a1b2c3d"):
        storage.put_if_absent(f"models/{folder}/training.json", b"{}")
    encoder = pair_encoders.find(named, storage, "small")
    assert str(encoder.folder).endswith("models/small-0a1b2c3d")


def test_a_model_that_open_clip_cannot_hold_ranks_captions(tmp_path):
    retrieval = '[task]\nkind = "retrieval"\n[task.test]\nlocation = "test.parquet"\nfolder = "test"\n'
    described, storage = training_sources.task(tmp_path / "source", 40, test=12, measured=retrieval, learners=DUAL)
    text = tiny_towers.write_text(tmp_path / "text")
    model = build.build(tiny_towers.tiny(text, head="residual"), 0)
    assert folders.save(model, tmp_path / "own", {})
    encoder = pair_encoders.find(described, storage, f"local-dir:{tmp_path / 'own'}")
    found = zero_shot.evaluate(described, storage, encoder, Asked())
    to_text, to_image = found.figures["captions"]["directions"]
    assert {to_text["queries"], to_image["queries"]} == {12, 24}
    assert not found.sets
    image = Image.open(next(described.task.test.folder.glob("*.jpg"))).convert("RGB")
    with torch.inference_mode():
        expected = model.encode_image(model.pictures.stack([model.pictures.prepare(image)]), normalize=True)
        words = model.encode_text(model.tokenizer(["a dog runs"]).ids.long(), normalize=True)
    assert encoder.encode_pictures([encoder.prepare(image)]) == pytest.approx(expected.numpy(), abs=1e-6)
    assert encoder.encode_captions(["a dog runs"]) == pytest.approx(words.numpy(), abs=1e-6)


def test_names_that_mean_no_model_are_one_line(taught):
    described, storage, _ = taught
    with pytest.raises(SourceError, match="has no scorer of kind clip: name a model with --model"):
        pair_encoders.find(described, storage, None)
    with pytest.raises(SourceError, match="no model is called 'smal': use open_clip:MODEL@WEIGHTS, or local-dir"):
        pair_encoders.find(described, storage, "smal")
    with pytest.raises(ModelError, match="is missing or has no model_cfg|must hold exactly one"):
        dict(pair_encoders.find(described, storage, f"local-dir:{described.path.parent}").identity)


def test_the_command_prints_a_table_and_writes_a_page(taught, tmp_path):
    described, storage, model = taught
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "taught").symlink_to(storage.root)
    asked = ["zero-shot", str(described.path), "--root", str(tmp_path / "root"), "--model", model, "--templates", "one"]
    done = CliRunner().invoke(app, [*asked, "--page", str(tmp_path / "page.html")])
    assert done.exit_code == 0, done.output
    assert "24 held-out pictures" in " ".join(done.output.split())
    assert "Pictures by name" in done.output
    page = (tmp_path / "page.html").read_text()
    assert 10 < page.count("data:image/jpeg") <= 24
    done = CliRunner().invoke(app, [*asked, "--json"])
    assert json.loads(done.stdout)["sets"][0]["templates"] == "one"
