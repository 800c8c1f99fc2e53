"""`winnow search`: the nearest stored pictures to a text or a picture, by the demo's own CLIP."""

import html
import json
import re
import shutil
from functools import cache
from pathlib import Path

import downloaded_sources
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from flows import cli
from pipeline.demo import pool as demo_pool
from pipeline.download import download
from pipeline.errors import ModelError, RecipeError, SourceError, StorageError
from pipeline.ledger import blocklist, ingest
from pipeline.manifest import publish, recipes
from pipeline.manifest.manifest import Manifest
from pipeline.neighbours import nearest
from pipeline.query import encoding
from pipeline.query.search import search
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.sources import loading
from pipeline.store.storage import Storage
from pipeline.takedown.request import Request
from pipeline.uids import uid
from pipeline.upkeep import forget

CLIP = Path(__file__).parent.parent / "pipeline" / "demo" / "clip"
TOYS = 24
OWNED = "<script>document.title = 'owned'</script>\u202e\x07"
COPY = f"http://host/copy.jpg?{OWNED}"
SPAM, FAILED = "http://host/23.jpg", "http://host/failed.jpg"


def url(number):
    return f"http://host/{number}.jpg"


@cache
def toy(number):
    return Image.fromarray(demo_pool.photograph(7, 0, number))


def rows():
    """(url, caption, picture): toys; more captions of number 3, and a copy of it; a failed pair."""
    toys = [(url(n), demo_pool.captions(7, 0, n, 1)[0], toy(n)) for n in range(TOYS)]
    more = [(url(3), f"another caption {n}", toy(3)) for n in range(6)]
    return [*toys[:10], *more, *toys[10:], (COPY, OWNED, toy(3)), (FAILED, "a ball", None)]


def curated(folder):
    """A source file and its published results. The recipe keeps every second shard."""
    folder.mkdir(exist_ok=True)
    shutil.copytree(CLIP, folder / "clip")
    made = rows()
    pq.write_table(pa.table({"url": [r[0] for r in made], "caption": [r[1] for r in made]}), folder / "list.parquet")
    (folder / "toys.toml").write_text(
        '[pairs]\nlocation = "list.parquet"\n[download]\nshard_size = 8\n'
        '[scorers.captions]\nkind = "captions"\n[scorers.small]\nkind = "clip"\nmodel = "local-dir:clip"\n'
        '[[filters]]\nname = "even"\nsql = "shard % 2 = 0"\n'
    )
    described, storage = loading.load(folder / "toys.toml"), Storage(folder / "data" / "toys")
    ledger, stage, plan = ingest.update(described, storage), download.stage(described), Plan.of(described)
    scoring = Scoring(plan, storage)
    for shard in ledger.shards:
        downloaded_sources.store_pictures(storage, stage, shard, {address: picture for address, _, picture in made})
        scoring(shard)
    publish.publish(plan, storage, ledger, {})
    return described, storage


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def source(folder):
    return curated(folder)


@pytest.fixture(scope="module")
def model(source):
    described, storage = source
    return encoding.find(described, storage, Manifest.open(storage), None)


def copied(source, folder):
    """The same source and results, for a test that changes them."""
    shutil.copytree(source[1].root.parent.parent, folder)
    return loading.load(folder / "toys.toml"), Storage(folder / "data" / "toys")


def winnow(folder, *words):
    command = ["search", str(folder / "toys.toml"), *map(str, words), "--root", str(folder / "data")]
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, command)


def found(folder, *words):
    done = winnow(folder, *words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def brute_force(described, storage, query):
    """Every pair with an embedding, nearest first, then in ledger order: (similarity, url, caption)."""
    stage = Plan.of(described).embeddings["small"]
    pairs, vectors = [], []
    for key in storage.keys("pairs"):
        pairs += pq.read_table(storage.fetch(key), partitioning=None).to_pylist()
        vectors.append(np.load(storage.fetch(stage.item(int(Path(key).name[:5]), ".npy")))[:, 0].astype(np.float64))
    similarity = np.concatenate(vectors) @ query.astype(np.float64)
    order = sorted(np.flatnonzero(np.isfinite(similarity)), key=lambda n: (-round(similarity[n], 9), n))
    return [(similarity[n], pairs[n]["url"], pairs[n]["caption"]) for n in order]


def distinct(ranked):
    """The first of the rows that show one picture. Number 3 has a copy under another address."""
    seen = {}
    for similarity, address, caption in ranked:
        seen.setdefault(url(3) if address == COPY else address, (similarity, address, caption))
    return list(seen.values())


def test_a_toy_is_found_by_its_caption(folder, source):
    _, caption, _ = rows()[5]
    results = found(folder, caption)["results"]
    assert len(results) == 10
    assert url(5) in [each["url"] for each in results[:3]]
    similarities = [each["similarity"] for each in results]
    assert similarities == sorted(similarities, reverse=True)
    assert [each["rank"] for each in results] == list(range(1, 11))


@pytest.mark.parametrize("count", [1, 5, 1000])
def test_what_is_found_is_what_brute_force_finds_each_picture_once(source, model, count):
    described, storage = source
    query = model.embed_text("a red ball on the grass").vector
    expected = distinct(brute_force(described, storage, query))[:count]
    hits = search(Manifest.open(storage), model.stage, query, count)
    assert [(hit.url, hit.caption) for hit in hits] == [(each[1], each[2]) for each in expected]
    assert [hit.similarity for hit in hits] == pytest.approx([each[0] for each in expected], abs=1e-9)
    assert len(hits) == min(count, TOYS)
    assert FAILED not in [hit.url for hit in hits]


def test_a_picture_is_found_by_itself(folder, source, tmp_path):
    toy(11).save(tmp_path / "toy.png")
    answer = found(folder, "--image", tmp_path / "toy.png", "-k", "2")
    assert answer["results"][0]["url"] == url(11)
    assert answer["results"][0]["similarity"] > 0.97
    assert answer["query"] == {"text": None, "image": str(tmp_path / "toy.png"), "tokens_cut": 0}


def test_only_what_is_kept_is_searched(folder, source, model):
    manifest = Manifest.open(source[1])
    kept = set(manifest.select()["uid"].to_pylist())
    whole = found(folder, "a ball", "-k", "100")["results"]
    chosen = found(folder, "a ball", "-k", "100", "--kept")["results"]
    assert 0 < len(chosen) < len(whole)
    assert [each["url"] for each in chosen] == [each["url"] for each in whole if each["uid"] in kept]
    with pytest.raises(RecipeError, match="no recipe is called 'evn'"):
        recipes.find(*source, "evn")
    query = model.embed_text("a ball").vector
    only = [hit.uid for hit in search(manifest, model.stage, query, 9, pa.table({"uid": [whole[20]["uid"]]}))]
    assert only == [whole[20]["uid"]]


def test_the_table_has_a_row_for_each_picture(folder, source):
    done = winnow(folder, "a ball", "-k", "3")
    assert done.exit_code == 0, done.output
    heading, _, *lines = done.stdout.splitlines()
    assert heading.split() == ["rank", "similarity", "uid", "caption", "url"]
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert all(re.search(r" [0-9a-f]{12}  ", line) for line in lines)


def test_the_page_has_the_pictures_and_what_strangers_wrote_as_text(folder, source, tmp_path):
    done = winnow(folder, f"a ball {OWNED}", "-k", "100", "--page", tmp_path / "new" / "page.html")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert "default-src 'none'; img-src data:" in page
    assert len(re.findall(r'<img src="data:image/jpeg;base64,[A-Za-z0-9+/=]+"', page)) == TOYS
    assert not re.search(r"<(script|a|iframe|form|object)\b", page)
    assert html.escape("<script>document.title = 'owned'</script>", quote=False).replace("'", "&#39;") in page
    assert "\u202e" not in page
    assert winnow(folder, "a ball", "--page", tmp_path).exit_code == 2  # a folder
    done = winnow(folder, "a ball", "--page", tmp_path / "new" / "page.html" / "under.html")
    assert done.exit_code == 1
    assert "cannot write" in done.stderr
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["page.html"]


def test_a_text_that_is_too_long_is_cut_and_the_tokens_are_counted(folder, source, model):
    words = "a red ball " * 30
    context = json.loads((CLIP / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]["context_length"]
    cut = 90 + 2 - context  # each word is a token, and a start and an end are added
    done = winnow(folder, words, "-k", "1")
    assert done.exit_code == 0, done.output
    assert done.stderr == f"the text is too long for small: its last {cut} tokens were not read\n"
    assert model.embed_text(words).cut == cut
    assert model.embed_text("a ball " * ((context - 2) // 2)).cut == 0
    assert model.embed_text("a ball \udcff").cut == 0  # a byte that is no UTF-8, as Python reads it from a command line


@pytest.mark.parametrize(
    "words", [[], [""], [" \t"], ["a ball", "--image", "x.jpg"], ["a ball", "--kept", "--recipe", "x"]]
)
def test_a_query_is_either_words_or_a_picture(folder, source, words):
    done = winnow(folder, *words)
    assert done.exit_code == 2
    assert "give " in done.stderr


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"this is no picture", "is no picture that can be decoded: undecodable"),
        (b"", "is no picture that can be decoded"),
        (demo_pool.bomb(), "is no picture that can be decoded: too_many_pixels"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_is_no_picture_is_one_line(folder, source, tmp_path, content, line):
    path = tmp_path / "picture.jpg"
    if content is not None:
        path.write_bytes(content)
    done = winnow(folder, "--image", path)
    assert done.exit_code == 1
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_scorer_that_cannot_embed_a_query_is_refused(source):
    described, storage = source
    manifest = Manifest.open(storage)
    with pytest.raises(SourceError, match=r"scorers.captions is of kind captions, which cannot embed a query"):
        encoding.find(described, storage, manifest, "captions")
    with pytest.raises(SourceError, match=r"has no scorer 'smal'; did you mean 'small'\?"):
        encoding.find(described, storage, manifest, "smal")
    without = described.model_copy(update={"scorers": {"captions": described.scorers["captions"]}})
    with pytest.raises(SourceError, match="toys has no scorer of kind clip"):
        encoding.find(without, storage, manifest, None)
    added = described.model_copy(update={"scorers": {**described.scorers, "other": described.scorers["small"]}})
    with pytest.raises(StorageError, match="no embeddings of 'other': run `winnow score toys --scorer other`"):
        encoding.find(added, storage, manifest, "other")


def test_another_model_file_is_refused(source, tmp_path):
    described, storage = copied(source, tmp_path / "changed")
    weights = next((tmp_path / "changed" / "clip").glob("*.safetensors"))
    tensors = load_file(weights)
    tensors["logit_scale"] += 1
    save_file(tensors, weights)
    with pytest.raises(ModelError, match=r"not the model that made the stored embeddings \(weights differ from"):
        encoding.find(described, storage, Manifest.open(storage), None)


def test_pairs_that_are_taken_down_are_not_found_even_before_they_are_removed(source, model, tmp_path):
    described, storage = copied(source, tmp_path / "taken")
    query = model.embed_text("a ball").vector

    def left():
        hits = search(Manifest.open(storage), model.stage, query, 100, None, blocklist.in_force(described, storage))
        return [hit.url for hit in hits]

    first, second, *_ = search(Manifest.open(storage), model.stage, query, 2)
    blocklist.Blocked(frozenset({first.uid})).commit(storage)  # a takedown that died after its first step
    assert left()[0] == second.url
    assert len(left()) == TOYS - 1
    forget.forget(storage, Request(frozenset({second.uid}), frozenset(), frozenset()), described)
    assert not {first.url, second.url} & set(left())
    assert len(left()) == TOYS - 2


def test_damaged_and_missing_embeddings_are_one_line(source, model, tmp_path):
    _, storage = copied(source, tmp_path / "damaged")
    query = model.embed_text("a ball").vector
    stored = storage.fetch(f"embeddings/{model.stage}/00001.npy")
    whole = stored.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"\x93NUMPY nonsense"):
        stored.write_bytes(broken)
        with pytest.raises(StorageError, match=r"00001\.npy is damaged: delete it"):
            search(Manifest.open(storage), model.stage, query, 3)
    np.save(stored, np.load(storage.fetch(f"embeddings/{model.stage}/00000.npy"))[:-1])
    with pytest.raises(StorageError, match=r"00001\.npy is damaged: delete it"):
        search(Manifest.open(storage), model.stage, query, 100)
    stored.unlink()
    with pytest.raises(StorageError, match=r"00001\.npy is missing from .*: run `winnow curate`"):
        search(Manifest.open(storage), model.stage, query, 3)


def vectors(count, dim, seed=0):
    found = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize("block", [1, 7, nearest.ROWS + 3])
def test_the_nearest_are_those_of_a_sort_in_float64(block):
    stored, dim = vectors(2 * nearest.ROWS + 100, 24), 24
    stored[[5, 900, 4000]] = stored[8000]  # equal vectors at very different places
    stored[17] = np.nan
    query = stored[8000].astype(np.float32)
    blocks = [stored[start : start + block] for start in range(0, len(stored), block)]
    products = np.concatenate(nearest.inner_products(blocks.__getitem__, len(blocks), query, workers=2))
    exact = nearest.exact_products(stored, query)
    order = sorted(set(range(len(stored))) - {17}, key=lambda n: (-exact[n], n))
    for count in (0, 1, 3, 50, len(stored) + 5):
        places, values = nearest.nearest(products, count, dim, lambda at: exact[at])
        assert places.tolist() == order[:count]
        assert values.tolist() == exact[places].tolist()
    assert order[:4] == [5, 900, 4000, 8000]


def test_nothing_is_near_where_nothing_is_stored():
    assert nearest.inner_products([].__getitem__, 0, np.ones(4, np.float32)) == []
    none = np.full(3, -np.inf, np.float32)
    assert len(nearest.nearest(none, 2, 4, lambda at: np.zeros(len(at)))[0]) == 0


def test_uids_are_those_of_the_pairs(folder, source):
    for each in found(folder, "a ball", "-k", "5")["results"]:
        assert each["uid"] == uid(each["url"], each["caption"])
