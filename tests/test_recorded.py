"""Recorded embeddings, small ones of our own and real ones; and the aesthetic heads that read them."""

import hashlib
import json
import os
from pathlib import Path

import downloaded_sources
import numpy as np
import published_sources
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file

from pipeline.download import download
from pipeline.errors import ModelError, SourceError
from pipeline.manifest import publish
from pipeline.scorers.aesthetic import AestheticSpec
from pipeline.scorers.recorded import RecordedSpec
from pipeline.scorers.spec import Batch
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.sources import loading
from pipeline.store.storage import Storage

DATA = Path(os.environ.get("WINNOW_DATA", "/nowhere"))
real = pytest.mark.skipif(not DATA.is_dir(), reason="WINNOW_DATA names no folder of real data")


def file_of(path, key, vectors, kind=None, **more):
    width = len(next(iter(vectors.values())))
    columns = {
        key: list(vectors),
        "embedding": pa.array(list(vectors.values()), kind or pa.list_(pa.float16(), width)),
    }
    pq.write_table(pa.table({**columns, **more}), path)
    return path


def spec(image, text, **changed):
    return RecordedSpec.model_validate(
        {
            "kind": "recorded",
            "model": "ViT-B-32-quickgelu/openai",
            "image": {"file": str(image), "key": "image", "by": "photo"},
            "text": {"file": str(text), "key": "name", "by": "label", **changed},
        }
    )


@pytest.fixture
def files(tmp_path):
    return (
        file_of(tmp_path / "image.parquet", "image", {"a.jpg": [3, 4], "b.jpg": [1, 0], "zero.jpg": [0, 0]}),
        file_of(tmp_path / "text.parquet", "name", {"dog": [1, 0], "cat": [0, 2]}),
    )


def rows(*pairs):
    return [
        (f"http://host/{n}.jpg", f"caption {n}", downloaded_sources.picture(n), {"photo": photo, "label": label})
        for n, (photo, label) in enumerate(pairs)
    ]


PAIRS = [("a.jpg", "dog"), ("a.jpg", "cat"), ("b.jpg", "cat"), ("?.jpg", "dog"), ("b.jpg", "cow"), ("zero.jpg", "dog")]


def test_similarity_is_looked_up_and_needs_no_picture(tmp_path, files):
    described, storage, (shard,) = downloaded_sources.downloaded(tmp_path / "s", rows(*PAIRS), {"clip": spec(*files)})
    storage.fetch(download.stage(described).item(0, ".tar")).unlink()
    Scoring(Plan.of(described), storage)(shard)
    found = downloaded_sources.scores(described, storage, shard, "clip")["similarity"]
    assert found[:2] == pytest.approx([0.6, 0.8])
    assert found[2:] == [0, None, None, None]
    stored = downloaded_sources.embeddings(described, storage, shard, "clip")
    assert stored.dtype == np.float16
    assert stored.shape == (6, 2, 2)
    assert stored[1] == pytest.approx(np.array([[0.6, 0.8], [0, 1]]), abs=1e-3)
    assert np.isnan(stored[:, 0]).all(axis=1).tolist() == [False, False, False, True, False, True]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.float16()), pa.list_(pa.float64(), 2), pa.list_(pa.float16())]
)
def test_lists_of_any_float_and_missing_vectors(tmp_path, files, kind):
    image = tmp_path / "other.parquet"
    table = pa.table({"image": ["none.jpg", "a.jpg"], "embedding": pa.array([None, [3.0, 4.0]], kind)})
    pq.write_table(table, image)
    found = downloaded_sources.scored(
        tmp_path / "s", rows(("a.jpg", "dog"), ("none.jpg", "dog")), {"clip": spec(image, files[1])}
    )
    assert found["clip"]["similarity"] == [pytest.approx(0.6), None]


def test_keys_are_compared_as_text_and_may_be_captions(tmp_path, files):
    image = file_of(tmp_path / "numbers.parquet", "image", {7: [3, 4], 8: [1, 0]})
    text = file_of(tmp_path / "captions.parquet", "name", {"caption 0": [1, 0], "caption 1": [0, 1]})
    found = downloaded_sources.scored(
        tmp_path / "s", rows(("7", ""), ("8", "")), {"clip": spec(image, text, by="caption")}
    )
    assert found["clip"]["similarity"] == pytest.approx([0.6, 0])


def test_where_chooses_among_rows_of_one_key(tmp_path, files):
    text = tmp_path / "several.parquet"
    kind = pa.list_(pa.float16(), 2)
    columns = {"name": ["dog", "dog"], "set": ["x", "y"], "no": [1, 2], "embedding": pa.array([[1, 0], [0, 1]], kind)}
    pq.write_table(pa.table(columns), text)
    for where, expected in [({"set": "x"}, 0.6), ({"set": "y", "no": 2}, 0.8)]:
        found = spec(files[0], text, where=where).load().score(_batch(rows(("a.jpg", "dog"))))
        assert found["similarity"].to_pylist() == pytest.approx([expected])
    with pytest.raises(ModelError, match="name = 'dog' has several vectors"):
        spec(files[0], text).load()
    with pytest.raises(ModelError, match="has no embeddings where"):
        spec(files[0], text, where={"set": "z"}).load()


def _batch(given):
    extra = pa.table({name: [row[3][name] for row in given] for name in given[0][3]})
    return Batch([row[0] for row in given], (), [row[1] for row in given], extra)


def test_what_cannot_work_is_said_before_anything_runs(tmp_path, files):
    with pytest.raises(ValueError, match="has no column 'nome'; it has name, embedding"):
        spec(*files, key="nome")
    with pytest.raises(ValueError, match="is no Parquet"):
        spec(files[0], Path(__file__))
    described, _, _ = downloaded_sources.downloaded(tmp_path / "s", rows(*PAIRS), {"clip": spec(*files, by="class")})
    with pytest.raises(SourceError, match=r"no column 'class'; add it to pairs.extra"):
        Plan.of(described)
    wide = file_of(tmp_path / "wide.parquet", "name", {"dog": [1, 0, 0]})
    with pytest.raises(ModelError, match="vectors of 2 numbers and wide.parquet of 3"):
        spec(files[0], wide).load()


def test_a_source_file_names_recordings_and_heads_beside_it(tmp_path, files):
    (tmp_path / "list.tsv").write_text("caption\turl\tphoto\tlabel\na\thttp://host/1.jpg\ta.jpg\tdog\n")
    head(tmp_path / "head.safetensors", [1, 2])
    text = """
        [pairs]
        location = "list.tsv"
        extra = ["photo", "label"]
        [scorers.clip]
        kind = "recorded"
        model = "ViT-B-32-quickgelu/openai"
        image = { file = "image.parquet", key = "image", by = "photo" }
        text = { file = "text.parquet", key = "name", by = "label" }
        [scorers.aesthetic]
        kind = "aesthetic"
        of = "clip"
        weights = "head.safetensors"
    """
    (tmp_path / "own.toml").write_text(text)
    described = loading.load(tmp_path / "own.toml")
    assert list(Plan.of(described).scores) == ["clip", "aesthetic"]
    for wrong, said in [
        (text.replace("key = ", "kee = "), "unknown key scorers.clip.image.kee; did you mean 'key'?"),
        (text.replace("head.", "heat."), "scorers.aesthetic.weights: there is no file"),
        (text.replace('key = "name"', 'key = "nam"'), "scorers.clip.text: text.parquet has no column 'nam'"),
    ]:
        (tmp_path / "own.toml").write_text(wrong)
        with pytest.raises(SourceError) as error:
            loading.load(tmp_path / "own.toml")
        assert said in str(error.value)


def test_identity_is_the_content_not_the_place(tmp_path, files):
    before = spec(*files).identity()
    (tmp_path / "moved").mkdir()
    moved = [path.rename(tmp_path / "moved" / f"other-{path.name}") for path in files]
    assert spec(*moved).identity() == before
    assert json.loads(json.dumps(before)) == before
    file_of(moved[1], "name", {"dog": [1, 0], "cat": [1, 2]})
    assert spec(*moved).identity() != before


# Aesthetic heads on embeddings of our own.


def head(path, weight, bias=0.5):
    save_file({"weight": np.array([weight], np.float32), "bias": np.array([bias], np.float32)}, path)
    return path


def aesthetic(weights, **changed):
    return AestheticSpec.model_validate({"kind": "aesthetic", "of": "clip", "weights": str(weights), **changed})


def test_a_head_scores_what_has_an_image_embedding(tmp_path, files):
    scorers = {"aesthetic": aesthetic(head(tmp_path / "head.safetensors", [10, 100])), "clip": spec(*files)}
    found = downloaded_sources.scored(tmp_path / "s", rows(*PAIRS), scorers)
    expected = [86.5, 86.5, 10.5, None, 10.5, None]
    assert [pytest.approx(value, abs=0.1) if value else None for value in expected] == found["aesthetic"]["score"]


def test_a_head_of_another_width_stops_the_run(tmp_path, files):
    scorers = {"clip": spec(*files), "aesthetic": aesthetic(head(tmp_path / "head.safetensors", [1, 2, 3]))}
    described, storage, (shard,) = downloaded_sources.downloaded(tmp_path / "s", rows(*PAIRS), scorers)
    with pytest.raises(ModelError, match="take 3 numbers and an embedding has 2"):
        Scoring(Plan.of(described), storage)(shard)


def test_weights_are_pinned_and_read_without_pickle(tmp_path):
    path = head(tmp_path / "head.safetensors", [1, 2])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert aesthetic(path, sha256=digest).identity()["weights"] == digest
    with pytest.raises(ModelError, match="has sha256"):
        aesthetic(path, sha256="0" * 64).identity()
    with pytest.raises(ValueError, match="need sha256"):
        aesthetic("https://host/head.safetensors")
    torch.save({"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, tmp_path / "head.pth")
    assert aesthetic(tmp_path / "head.pth").load().score(np.array([[0.6, 0.8]], np.float32))["score"] == [
        pytest.approx(1.4)
    ]
    torch.save({"weight": Path("/"), "bias": torch.zeros(1)}, tmp_path / "pickle.pth")
    with pytest.raises(ModelError, match=r"pickle.pth cannot be read as weights"):
        aesthetic(tmp_path / "pickle.pth").load()


def test_weights_that_are_no_head_are_refused(tmp_path):
    for tensors, said in [
        ({"weight": np.ones((1, 2), np.float32)}, "is no aesthetic head"),
        ({"weight": np.ones((3, 2), np.float32), "bias": np.ones(3, np.float32)}, "gives 3 numbers a picture"),
        (
            {
                "layers.0.weight": np.ones((4, 2), np.float32),
                "layers.0.bias": np.ones(4, np.float32),
                "layers.10.weight": np.ones((1, 5), np.float32),
                "layers.10.bias": np.ones(1, np.float32),
            },
            "layers.10.weight does not fit",
        ),
    ]:
        save_file(tensors, tmp_path / "strange.safetensors")
        with pytest.raises(ModelError, match=said):
            aesthetic(tmp_path / "strange.safetensors").load()


# Real ones.


@real
def test_the_real_pairs_and_their_swaps(tmp_path):
    table = pq.read_table(DATA / "clip_b32" / "pair_embeddings.parquet")
    photos, captions = (
        table["image"].to_pylist(),
        [f"{n}: {text}" for n, text in enumerate(table["caption"].to_pylist())],
    )
    table = table.append_column("name", pa.array(captions))
    pq.write_table(_named(table, "name", "text_embedding"), tmp_path / "text.parquet")
    first = [photos.index(photo) for photo in dict.fromkeys(photos)]
    pq.write_table(_named(table.take(first), "image", "image_embedding"), tmp_path / "image.parquet")
    swapped = [next(j % 500 for j in range(i + 137, i + 637) if photos[j % 500] != photos[i]) for i in range(500)]
    described = spec(tmp_path / "image.parquet", tmp_path / "text.parquet")
    scorer = described.load()
    matched, mismatched = (
        scorer.score(_batch([("", "", None, {"photo": photos[i], "label": captions[j]}) for i, j in pairs]))[
            "similarity"
        ].to_numpy()
        for pairs in (enumerate(range(500)), enumerate(swapped))
    )
    assert matched.mean() == pytest.approx(0.325, abs=0.002)
    assert matched.std() == pytest.approx(0.03, abs=0.005)
    assert mismatched.mean() == pytest.approx(0.175, abs=0.01)
    assert mismatched.std() == pytest.approx(0.05, abs=0.01)
    assert (matched[:, None] > mismatched[None]).mean() >= 0.98  # AUC


def _named(table, key, column):
    return table.select([key, column]).rename_columns([key, "embedding"])


def golden():
    described = json.loads((DATA / "aesthetic" / "golden.json").read_text())
    inputs = pq.read_table(DATA / "aesthetic" / "golden.parquet")
    vectors = dict(zip(inputs["input_id"].to_pylist(), inputs["embedding"].to_pylist(), strict=True))
    return described, {name: np.array([vector], np.float32) for name, vector in vectors.items()}


@real
def test_the_real_aesthetic_heads_equal_their_golden_scores():
    described, vectors = golden()
    for name, about in described["heads"].items():
        cases = [case for case in described["cases"] if case["head"] == name]
        for file in filter(None, (about["safetensors"], about["original"])):
            loaded = aesthetic(DATA / "aesthetic" / file).load()
            for case in cases:
                found = loaded.score(vectors[case["input_id"]])["score"]
                assert found.dtype == np.float32
                assert found[0] == pytest.approx(case["expected"], abs=1e-3)
    assert len(described["cases"]) == 60


@real
def test_wrong_usage_of_the_real_heads_is_refused():
    described, vectors = golden()
    folder = DATA / "aesthetic"
    loaded = {name: aesthetic(folder / about["safetensors"]).load() for name, about in described["heads"].items()}
    told = {"unnormalised_input": 0, "zero_vector": 0, "wrong_width": 0, "relu_between_layers": 0, "nan_input": 0}
    for wrong in described["wrong_usage"]:
        told[wrong["name"]] = told.get(wrong["name"], 0) + 1
        use = loaded[wrong["head"]]
        width = described["heads"][wrong["head"]]["input_dim"]
        if wrong["name"] == "unnormalised_input":
            with pytest.raises(ValueError, match="only L2-normalised"):
                use.score(vectors[wrong["input_id"]] * np.float32(10))
        elif wrong["name"] == "zero_vector":
            with pytest.raises(ValueError, match="has norm 0"):
                use.score(np.zeros((1, width), np.float32))
        elif wrong["name"] == "wrong_width":
            with pytest.raises(ModelError, match="take 768 numbers"):
                use.score(vectors[wrong["input_id"]])
        elif wrong["name"] == "relu_between_layers":
            assert use.score(vectors[wrong["input_id"]])["score"][0] == pytest.approx(wrong["correct"], abs=1e-3)
    assert min(told.values()) > 0


@real
@pytest.mark.parametrize(
    ("file", "encoder", "fits"),
    [
        ("sa_0_4_vit_b_32_linear.safetensors", "ViT-B-32-quickgelu/openai", True),
        ("original/sa_0_4_vit_b_32_linear.pth", "ViT-B-32-quickgelu/openai.safetensors", True),
        ("sa_0_4_vit_b_16_linear.safetensors", "ViT-B-32-quickgelu/openai", False),
        ("sa_0_4_vit_b_32_linear.safetensors", "ViT-B-32/laion2b_s34b_b79k", False),
        ("sa_0_4_vit_b_32_linear.safetensors", "ViT-B-32/openai", False),
        ("sac+logos+ava1-l14-linearMSE.safetensors", "ViT-L-14-quickgelu/openai", True),
        ("sac+logos+ava1-l14-linearMSE.safetensors", "ViT-L-14-336-quickgelu/openai", False),
    ],
)
def test_a_real_head_is_only_taken_for_the_model_it_was_made_for(file, encoder, fits):
    spec, of = aesthetic(DATA / "aesthetic" / file), RecordedSpec.model_construct(model=encoder)
    if fits:
        spec.check(of)
        return
    with pytest.raises(ModelError, match="scores would be wrong"):
        spec.check(of)


@real
def test_real_photos_against_their_class_names_and_the_real_head(tmp_path):
    clip = RecordedSpec.model_validate(
        {
            "kind": "recorded",
            "model": "ViT-B-32-quickgelu/openai",
            "image": {"file": str(DATA / "clip_b32" / "image_embeddings.parquet"), "key": "image", "by": "photo"},
            "text": {
                "file": str(DATA / "clip_b32" / "classname_text.parquet"),
                "key": "class_name",
                "by": "label",
                "where": {"vocabulary": "openimages_500"},
            },
        }
    )
    scorers = {"clip": clip, "aesthetic": aesthetic(DATA / "aesthetic" / "sa_0_4_vit_b_32_linear.safetensors")}
    photos = pq.read_table(clip.image.file)["image"].to_pylist()[:50]
    pairs = [(photo, label) for photo in photos for label in ("Person", "no such label")]
    found = downloaded_sources.scored(tmp_path / "s", rows(*pairs), scorers)
    assert all(0.1 < value < 0.35 for value in found["clip"]["similarity"][::2])
    assert found["clip"]["similarity"][1::2] == [None] * 50
    assert all(3 < value < 9 for value in found["aesthetic"]["score"])


@pytest.mark.parametrize(
    ("file", "source"), [([1.0, 2.0], ["1", "2"]), ([1, 2], ["1.0", "2.0"]), (["1.0", "2.00"], ["1", "2"])]
)
def test_whole_numbers_are_equal_however_they_are_written(tmp_path, files, file, source):
    image = file_of(tmp_path / "numbers.parquet", "image", dict(zip(file, [[3, 4], [1, 0]], strict=True)))
    found = spec(image, files[1]).load().score(_batch(rows(*[(each, "dog") for each in source])))
    assert found["similarity"].to_pylist() == pytest.approx([0.6, 1])


def test_keys_that_are_written_in_two_ways_are_two_keys(tmp_path, files):
    image = file_of(tmp_path / "texts.parquet", "image", {"1": [3, 4], "1.0": [1, 0], "02": [1, 0], "3.5": [1, 0]})
    asked = ["1", "1.0", "1.00", "2", "3", "None"]
    found = spec(image, files[1]).load().score(_batch(rows(*[(each, "dog") for each in asked])))
    assert found["similarity"].to_pylist() == [pytest.approx(0.6), 1, None, None, None, None]


def test_a_missing_key_is_no_key(tmp_path, files):
    table = pa.table(
        {"image": ["a.jpg", None], "embedding": pa.array([[3.0, 4.0], [1.0, 0.0]], pa.list_(pa.float32(), 2))}
    )
    pq.write_table(table, tmp_path / "image.parquet")
    found = spec(tmp_path / "image.parquet", files[1]).load().score(_batch(rows(("a.jpg", "dog"), (None, "dog"))))
    assert found["similarity"].to_pylist() == [pytest.approx(0.6), None]


def test_recordings_of_which_no_key_is_found_are_not_published(tmp_path):
    more = published_sources.recorded(tmp_path)
    described = published_sources.listed(tmp_path, range(20), more=more)
    storage = Storage(tmp_path / "root")
    ledger = published_sources.finish(described, storage)
    stage = Plan.of(described).scores["recorded"]
    scoring = Scoring(Plan.of(described), storage)
    for shard in ledger.shards:
        storage.fetch(stage.item(shard.number, ".parquet")).unlink()
        scoring(shard)
    with pytest.raises(ModelError) as error:
        publish.publish(Plan.of(described), storage, ledger, {})
    assert "scorers.recorded: no key was found, so none of 20 pairs" in str(error.value)
    assert "caption is 'picture number 0', key in recorded.parquet is 'nobody'" in str(error.value)
    assert "\n" not in str(error.value)
