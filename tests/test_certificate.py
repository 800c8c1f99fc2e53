"""Nothing is scored by a model that does not score as open_clip does; what was checked lies in the manifest's card."""

import json

import downloaded_sources
import numpy as np
import pytest
import random_clip
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import ModelError
from pipeline.manifest import publish
from pipeline.manifest.manifest import Manifest
from pipeline.models import certificate
from pipeline.models.clip import Clip
from pipeline.models.clip_weights import find_model
from pipeline.scorers.clip import ClipSpec
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_clip.save(random_clip.reference("quick_gelu"), tmp_path_factory.mktemp("clip") / "small", True)


def spec(folder, precision="float32"):
    return ClipSpec.model_validate({"kind": "clip", "model": f"local-dir:{folder}", "precision": precision})


def pairs(count):
    return [(f"http://host/{n}.jpg", f"picture {n}", downloaded_sources.picture(n)) for n in range(count)]


def test_golden_pictures_are_the_same_each_time_and_unlike_each_other():
    first, second = ([np.asarray(picture) for picture in certificate.golden_pictures()] for _ in range(2))
    assert all((one == other).all() for one, other in zip(first, second, strict=True))
    assert all(picture.std() > 20 for picture in first)
    assert len(first) == len(certificate.GOLDEN_CAPTIONS)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_the_certificate_says(folder, precision):
    said = spec(folder, precision).load().certificate
    assert json.dumps(said)
    assert said["activation"] == "quick_gelu"
    assert said["mean"] == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert said["captions_cut_to_multiples_of"] == 8
    assert said["precision"] == precision
    assert len(said["weights"]) == 64
    assert said["deviation"]["float32"] < 1e-5
    assert said["deviation"][precision] < said["tolerance"][precision]
    assert np.ptp(said["golden"]) > 0.1  # it tells the pairs apart
    assert said["golden"] == pytest.approx(said["golden_float32"], abs=said["tolerance"][precision])
    assert all(0 < low <= high for low, high in said["norms"].values())


def wrong_mean(clip):
    clip._standard.mean += 0.05


def one_weight(clip):
    with torch.no_grad():
        clip.model.visual.proj[3, 3] += 0.5


def broken_cut(clip):
    clip._lengths = lambda tokens: [4] * len(tokens)


def no_number(clip):
    with torch.no_grad():
        clip.model.ln_final.bias[0] = float("nan")


@pytest.mark.parametrize("harm", [wrong_mean, one_weight, broken_cut, no_number])
def test_what_goes_wrong_after_loading_is_caught(folder, harm):
    clip = Clip(find_model(f"local-dir:{folder}", None, None))
    expected = certificate.reference(clip)
    assert certificate.deviation(clip, expected) < 1e-5
    harm(clip)
    with pytest.raises(ModelError, match=r"small in float32 on cpu gives cosines up to .* Nothing was scored"):
        certificate.deviation(clip, expected)


def copy(folder, target):
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_weights_that_change_after_the_key_was_made_are_refused(tmp_path, folder):
    mine = copy(folder, tmp_path / "mine")
    described, storage, (shard,) = downloaded_sources.downloaded(tmp_path / "store", pairs(3), {"clip": spec(mine)})
    ready = Scoring(Plan.of(described), storage)
    weights = load_file(mine / "open_clip_model.safetensors")
    weights["visual.proj"] = weights["visual.proj"] + 0.1
    save_file(weights, mine / "open_clip_model.safetensors")
    with pytest.raises(ModelError, match=r"scorers.clip: weights changed while it was loaded"):
        ready(shard)
    assert not storage.done(Plan.of(described).scores["clip"].item(0, ".parquet"))


def test_a_machine_that_scores_otherwise_does_not_add_to_what_is_there(tmp_path, folder):
    described, storage, (first, second) = downloaded_sources.downloaded(
        tmp_path, pairs(4), {"clip": spec(folder)}, shard_size=2
    )
    Scoring(Plan.of(described), storage)(first)
    Scoring(Plan.of(described), storage)(second)
    key = Plan.of(described).certificate("clip")
    said = json.loads(storage.fetch(key).read_bytes())
    said["golden"][1] += 0.01
    storage.fetch(key).write_text(json.dumps(said))
    storage.fetch(Plan.of(described).scores["clip"].item(1, ".parquet")).unlink()
    with pytest.raises(ModelError, match=r"scorers.clip: golden pairs score up to 0.01 from what .*certificate.json"):
        Scoring(Plan.of(described), storage)(second)


def test_the_card_of_a_manifest_has_it(tmp_path, folder):
    from pipeline.ledger import ingest

    described, storage, shards = downloaded_sources.downloaded(tmp_path, pairs(3), {"clip": spec(folder)})
    Scoring(Plan.of(described), storage)(shards[0])
    published = publish.publish(Plan.of(described), storage, ingest.update(described, storage), {})
    said = Manifest.open(storage, published.id).card["certificates"]
    assert said.keys() == {"clip"}
    assert said["clip"]["decoder"]["name"] == "pillow"
    assert said["clip"]["golden"] == spec(folder).load().certificate["golden"]
