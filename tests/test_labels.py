"""Labels of Label Studio, of CVAT and of lists, taken in and written out; and how far two labellers agree.

The exports are written by hand, in the tools' documented formats. docs/labels.md says which tools were run.
"""

import io
import json
import zipfile
from datetime import UTC, datetime

import published_sources
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from filters.core import Filter, Recipe
from flows import cli
from pipeline.errors import RecipeError, SourceError, StorageError
from pipeline.manifest.manifest import Manifest
from pipeline.review import agreement, calibrate, cvat, label_studio, tasks
from pipeline.review.label_files import take_in
from pipeline.review.labels import KEY, Added, Labels
from pipeline.review.sample import Labelled
from pipeline.settings.choice import Calibration
from pipeline.store.storage import Storage
from pipeline.uids import uid

SHARP = published_sources.SHARP | {"catches": ["blurred"]}


def pair(number):
    url, caption = f"http://host/{number}.jpg", f"picture number {number}"
    return {"uid": uid(url, caption), "url": url, "caption": caption}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A source of 60 pairs whose filter catches "blurred", and its root."""
    folder = tmp_path_factory.mktemp("labels")
    described = published_sources.listed(folder / "lists", range(20, 80), filters=(SHARP,))
    published_sources.published(described, Storage(folder / "root" / "tiny"))
    return described, folder / "root"


@pytest.fixture
def source(published):
    """The source, and its newest manifest. No labels are stored yet."""
    described, root = published
    storage = Storage(root / "tiny")
    (root / "tiny" / KEY).unlink(missing_ok=True)
    return described, Manifest.open(storage)


def task(number, *annotations, **data):
    """A task of Label Studio with annotations of (labeller, label)."""
    done = [
        {
            "id": place,
            "completed_by": who,
            "created_at": "2026-11-01T10:00:00.5Z",
            "updated_at": f"2026-11-01T1{place}:00:00.5Z",
            "was_cancelled": False,
            "ground_truth": False,
            "lead_time": 3.1,
            "result": [{"id": "x", "type": "choices", "from_name": "label", "to_name": "image", "value": value(word)}],
        }
        for place, (who, word) in enumerate(annotations)
    ]
    return {"id": number, "project": 1, "data": data or pair(number), "annotations": done, "predictions": []}


def value(word):
    return {"choices": [word] if isinstance(word, str) else list(word)}


def written(folder, tree, name="export.json"):
    path = folder / name
    path.write_text(json.dumps(tree))
    return path


def table(manifest):
    return {(row["uid"], row["labeller"]): row["label"] for row in Labels(manifest.storage).table.to_pylist()}


def test_label_studio_labels_of_two_people_are_one_table(source, tmp_path):
    path = written(tmp_path, [task(30, (1, "blurred"), (2, "clean")), task(31, ({"id": 7, "email": "a@b.c"}, "clean"))])
    found = take_in(*source, [path])
    assert (found.annotations, found.added) == (3, Added(3, 0, 0, 0))
    assert Labels(source[1].storage).table.to_pylist() == [
        pair(30) | {"label": "blurred", "labeller": "1", "time": datetime(2026, 11, 1, 10, 0, 0, 500000, UTC)},
        pair(30) | {"label": "clean", "labeller": "2", "time": datetime(2026, 11, 1, 11, 0, 0, 500000, UTC)},
        pair(31) | {"label": "clean", "labeller": "a@b.c", "time": datetime(2026, 11, 1, 10, 0, 0, 500000, UTC)},
    ]
    assert take_in(*source, [path]).added == Added(0, 0, 3, 0)


def test_json_min_and_a_picture_whose_name_is_the_uid(source, tmp_path):
    row = {"id": 5, "annotator": 3, "annotation_id": 9, "created_at": "2026-11-01T10:00:00Z", "lead_time": 1.0}
    upload = {"image": f"/data/upload/1/0a1b2c3d-{pair(32)['uid']}.jpg"}
    take_in(*source, [written(tmp_path, [pair(30) | row | {"label": "clean"}, upload | row | {"label": "blurred"}])])
    assert table(source[1]) == {(pair(30)["uid"], "3"): "clean", (pair(32)["uid"], "3"): "blurred"}


def datumaro(*items, labels=("clean", "blurred", "caption")):
    names = [{"name": name, "parent": "", "attributes": []} for name in labels]
    return {
        "info": {},
        "categories": {"label": {"labels": names, "attributes": []}},
        "items": [
            {
                "id": f"some folder/{pair(number)['uid']}",
                "annotations": [
                    {"id": 0, "type": kind, "attributes": {}, "group": 0, "label_id": labels.index(word)}
                    for kind, word in given
                ],
                "image": {"path": "x.jpg", "size": [1, 1]},
            }
            for number, *given in items
        ],
    }


def test_the_labels_of_a_zip_of_cvat_are_those_of_its_file_name(source, tmp_path):
    tree = datumaro(
        (30, ("label", "caption"), ("label", "clean")), (31, ("bbox", "blurred")), (32, ("label", "blurred"))
    )
    with zipfile.ZipFile(tmp_path / "anna.zip", "w") as archive:
        archive.writestr("annotations/default.json", json.dumps(tree))
        archive.writestr("images/default/x.jpg", b"")
    found = take_in(*source, [tmp_path / "anna.zip"])
    assert dict(found.unused) == {"without a label": 1}
    assert table(source[1]) == {(pair(30)["uid"], "anna"): "clean", (pair(32)["uid"], "anna"): "blurred"}
    take_in(*source, [written(tmp_path, tree, "default.json")], "ben")
    assert table(source[1])[pair(32)["uid"], "ben"] == "blurred"


def test_cvat_for_images(source, tmp_path):
    tags = {30: ["clean", "caption"], 31: [], 32: ["blurred"]}
    images = "".join(
        f'<image id="0" name="{pair(n)["uid"]}.jpg" width="1" height="1">'
        + "".join(f'<tag label="{word}" source="manual"></tag>' for word in words)
        + '<box label="clean" xtl="0" ytl="0" xbr="1" ybr="1"></box></image>'
        for n, words in tags.items()
    )
    text = f"<?xml version='1.0' encoding='utf-8'?><annotations><version>1.1</version>{images}</annotations>"
    (tmp_path / "anna.xml").write_text(text)
    with zipfile.ZipFile(tmp_path / "ben.zip", "w") as archive:
        archive.writestr("annotations.xml", text)
    found = take_in(*source, [tmp_path / "anna.xml", tmp_path / "ben.zip"])
    assert dict(found.unused) == {"without a label": 2}
    labels = {pair(30)["uid"]: "clean", pair(32)["uid"]: "blurred"}
    assert table(source[1]) == {(key, who): word for key, word in labels.items() for who in ("anna", "ben")}
    for content, says in [
        ("<annotations", "anna.xml: this is no XML"),
        ("<a/>", "it has no annotations"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotations>&b;</annotations>", "it has a document type"),
    ]:
        (tmp_path / "anna.xml").write_text(content)
        with pytest.raises(SourceError, match=says):
            take_in(*source, [tmp_path / "anna.xml"])


def test_a_list_may_name_labellers(source, tmp_path):
    path = tmp_path / "labels.csv"
    rows = [
        f"{pair(n)['url']},{pair(n)['caption']},{word},{who}\n"
        for n, word, who in [(30, "clean", "anna"), (31, "blurred", "")]
    ]
    path.write_text("url,caption,label,labeller\n" + "".join(rows))
    take_in(*source, [path])
    assert table(source[1]) == {(pair(30)["uid"], "anna"): "clean", (pair(31)["uid"], "labels"): "blurred"}


def test_what_cannot_be_used_is_counted(source, tmp_path):
    skipped = task(33, (1, "clean"))
    skipped["annotations"][0]["was_cancelled"] = True
    path = written(
        tmp_path,
        [
            task(30, (1, "clean")),
            task(31, (1, ())),
            task(32, (1, ("clean", "blurred"))),
            skipped,
            task(1000, (1, "clean")),
            task(34, (1, "clean"), image="http://host/cat.jpg"),
            task(35, (1, "clear")),
            task(36, (1, "clean"), (1, "blurred")),
        ],
    )
    found = take_in(*source, [path])
    assert dict(found.unused) == {
        "without a label": 1,
        "with several labels": 1,
        "skipped by their labeller": 1,
        "that name no pair": 1,
    }
    assert (found.annotations, found.absent, dict(found.unknown)) == (9, 1, {"clear": 1})
    assert found.added == Added(new=3, changed=1, same=0, older=0)
    assert table(source[1])[pair(36)["uid"], "1"] == "blurred"  # the later of two by one labeller


def test_an_older_label_does_not_replace_a_newer_one(source, tmp_path):
    new, old = task(30, (1, "clean")), task(30, (1, "blurred"))
    old["annotations"][0]["updated_at"] = "2026-10-01T10:00:00Z"
    take_in(*source, [written(tmp_path, [new])])
    assert take_in(*source, [written(tmp_path, [old])]).added == Added(0, 0, 0, 1)
    assert table(source[1]) == {(pair(30)["uid"], "1"): "clean"}


FAULTS = {
    "no JSON": ("[{", "this is no JSON"),
    "no labels": ("[]", "it has no labels"),
    "nothing labelled": (json.dumps([task(30)]), "it has no labels"),
    "another list": ('[{"a": 1}]', "it is no export of Label Studio"),
    "another tree": ('{"a": 1}', "it is neither an export of Label Studio"),
    "other pairs": (json.dumps([task(1000, (1, "clean"))]), "none of its pairs is in tiny: is it of another project?"),
    "other labels": (json.dumps([task(30, (1, "cat"))]), "tiny knows none of its labels ('cat')"),
    "no categories": ('{"items": [], "categories": {}}', "it names no labels: export from CVAT as Datumaro"),
}


@pytest.mark.parametrize(("text", "says"), FAULTS.values(), ids=FAULTS)
def test_a_file_without_use_is_one_line_and_changes_nothing(source, tmp_path, text, says):
    (tmp_path / "bad.json").write_text(text)
    good = written(tmp_path, [task(30, (1, "clean"))])
    with pytest.raises(SourceError) as told:
        take_in(*source, [good, tmp_path / "bad.json"])
    assert says in str(told.value)
    assert "bad.json" in str(told.value)
    assert "\n" not in str(told.value)
    assert not table(source[1])


@pytest.mark.parametrize("content", [b"PK", b""])
def test_a_broken_zip_is_one_line(source, tmp_path, content):
    (tmp_path / "bad.zip").write_bytes(content)
    with pytest.raises(SourceError, match=r"bad.zip: it cannot be read"):
        take_in(*source, [tmp_path / "bad.zip"])
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("labels.txt", "")
    with pytest.raises(SourceError, match="export from CVAT as Datumaro"):
        take_in(*source, [tmp_path / "bad.zip"])


def test_labels_of_before_there_were_labellers_are_those_of_explore(tmp_path):
    store = Storage(tmp_path)
    with store.making(KEY) as path:
        old = {"url": ["http://a"], "caption": ["b"], "label": ["match"]}
        pq.write_table(pa.table(old), path)
    (row,) = Labels(store).table.to_pylist()
    assert row == {"uid": uid("http://a", "b"), "labeller": "explore", "time": None} | {k: v[0] for k, v in old.items()}
    Labels(store).put("http://a", "b", "no match", "anna")
    assert dict(Labels(store).counts("anna"))["no match"] == dict(Labels(store).counts())["match"] == 1
    Labels(store).remove({("http://a", "b")})
    assert not len(Labels(store).table)


# Out again.


def test_tasks_of_label_studio_come_back_as_labels(source, tmp_path):
    described, manifest = source
    pairs = tasks.draw(manifest, tasks.Sample(5))
    words = ["clean", "blurred", 'a "quote" & more']
    folder = tasks.write(manifest, pairs, tasks.Project("label-studio", words), tmp_path / "to-label")
    made = json.loads((folder / label_studio.TASKS).read_text())
    assert [each["data"]["uid"] for each in made] == [each["uid"] for each in pairs]
    for each in made:
        name = each["data"]["image"].removeprefix("/data/local-files/?d=to-label/")
        Image.open(io.BytesIO((folder / name).read_bytes()), formats=("JPEG",)).load()
    from xml.etree import ElementTree

    tree = ElementTree.fromstring((folder / label_studio.INTERFACE).read_text())
    assert [each.get("value") for each in tree.iter("Choice")] == words
    assert {each.get("value") for each in tree if each.tag in ("Image", "Text")} == {"$image", "$caption"}
    for each in made:
        each["annotations"] = task(0, (1, "clean"))["annotations"]
    take_in(described, manifest, [written(tmp_path, made)])
    assert table(manifest) == {(each["uid"], "1"): "clean" for each in pairs}
    with pytest.raises(StorageError, match="already exists and is not overwritten"):
        tasks.write(manifest, pairs, tasks.Project("label-studio", words), tmp_path / "to-label")


def test_pictures_and_captions_of_cvat_come_back_as_labels(source, tmp_path):
    described, manifest = source
    Labels(manifest.storage).put(pair(40)["url"], pair(40)["caption"], "blurred", "anna")
    pairs = tasks.draw(manifest, tasks.Sample(60))
    project = tasks.Project("cvat", ["clean", "blurred"], with_labels=True)
    folder = tasks.write(manifest, pairs, project, tmp_path / "cvat")
    assert [each["name"] for each in json.loads((folder / cvat.LABELS).read_text())] == ["clean", "blurred", "caption"]
    tree = json.loads((folder / cvat.ANNOTATIONS).read_text())
    assert len(tree["items"]) == len([*(folder / tasks.PICTURES).iterdir()]) == 60
    captions = {each["id"]: each["annotations"][0]["attributes"]["text"] for each in tree["items"]}
    assert captions == {each["uid"]: each["caption"] for each in pairs}
    for each in tree["items"]:
        with Image.open(folder / tasks.PICTURES / each["image"]["path"]) as picture:
            assert each["image"]["size"] == [picture.height, picture.width]
    found = take_in(described, manifest, [folder / cvat.ANNOTATIONS], "ben")
    assert (found.added.new, found.unused["without a label"]) == (1, 59)
    assert table(manifest)[pair(40)["uid"], "ben"] == "blurred"


def numbers(pairs):
    return [int(each["url"].removeprefix("http://host/").removesuffix(".jpg")) for each in pairs]


def test_a_sample_is_drawn_by_seed_side_border_and_labels(source):
    _, manifest = source
    drawn = numbers(tasks.draw(manifest, tasks.Sample(20)))
    assert drawn == numbers(tasks.draw(manifest, tasks.Sample(20)))
    assert set(drawn) != set(numbers(tasks.draw(manifest, tasks.Sample(20, seed=1)))) != set(range(20, 40))
    assert min(numbers(tasks.draw(manifest, tasks.Sample(60, show="kept")))) == 50
    assert max(numbers(tasks.draw(manifest, tasks.Sample(60, show="dropped")))) == 49
    assert set(numbers(tasks.draw(manifest, tasks.Sample(6, near="sharp")))) == {47, 48, 49, 50, 51, 52}
    Labels(manifest.storage).put(pair(48)["url"], pair(48)["caption"], "blurred")
    assert numbers(tasks.draw(manifest, tasks.Sample(60, labelled=True))) == [48]
    assert set(numbers(tasks.draw(manifest, tasks.Sample(4, near="sharp", labelled=False)))) == {47, 49, 50, 51}
    half = "pixels_sharpness >= (SELECT quantile_cont(pixels_sharpness, 0.5) FROM rows WHERE {rest})"
    recipe = Recipe("half", (Filter("wide", "width >= 400"), Filter("half", half), Filter("words", "caption IS NULL")))
    assert set(numbers(tasks.draw(manifest, tasks.Sample(4, recipe=recipe, near="half")))) == {58, 59, 60, 61}
    with pytest.raises(RecipeError, match="'words' does not compare one column with one number"):
        tasks.draw(manifest, tasks.Sample(4, recipe=recipe, near="words"))
    with pytest.raises(RecipeError, match="has no filter 'sharpness'; did you mean 'sharp'"):
        tasks.draw(manifest, tasks.Sample(4, near="sharpness"))


# Agreement.


def sample(folder, rows):
    """A labelled sample of (number, labeller, label)."""
    path = folder / "labels.csv"
    lines = [f"{pair(n)['url']},{pair(n)['caption']},{word},{who}" for n, who, word in rows]
    path.write_text("\n".join(["url,caption,label,labeller", *lines]) + "\n")
    return Labelled.read(path, ["clean"])


def test_kappa_worked_out_by_hand(tmp_path):
    """Both say yes to 20 of 50, both no to 15, anna alone yes to 5, ben alone yes to 10.

    Observed .7, expected .5 x .6 + .5 x .4 = .5, so kappa = .2 / .5 = .4. With the variance of Fleiss, Cohen and
    Everitt: A = .4 (1 - 1.1 x .6)^2 + .3 (1 - .9 x .6)^2 = .04624 + .06348; B = .36 (.1 (.6 + .5)^2 + .2 (.4 + .5)^2)
    = .36 (.121 + .162) = .10188; C = (.4 - .5 x .6)^2 = .01; (A + B - C) / (50 x .25) = .016128, its root .126996.
    """
    labels = [("yes", "yes")] * 20 + [("no", "no")] * 15 + [("yes", "no")] * 5 + [("no", "yes")] * 10
    found = agreement.Kappa.of(labels)
    assert found.value == pytest.approx(0.4)
    assert found.high - found.value == pytest.approx(1.959964 * 0.016128**0.5)
    assert found.value - found.low == pytest.approx(1.959964 * 0.016128**0.5)


def test_the_interval_of_kappa_holds_the_truth_in_95_of_100_samples():
    import numpy as np

    rng = np.random.default_rng(5)
    held = 0
    for _ in range(300):
        true = rng.random(200) < 0.4
        one, two = (np.where(rng.random(200) < 0.1, ~true, true) for _ in range(2))
        found = agreement.Kappa.of([*zip(one.astype(str).tolist(), two.astype(str).tolist(), strict=True)])
        share = 0.4 * 0.9 + 0.6 * 0.1
        held += found.low <= (0.82 - share**2 - (1 - share) ** 2) / (2 * share * (1 - share)) <= found.high
    assert 0.91 <= held / 300 <= 0.985


def test_a_third_decides_and_two_who_disagree_are_left_out(tmp_path):
    known = sample(
        tmp_path,
        [
            *((n, who, "clean") for n in (20, 21) for who in ("anna", "ben")),
            (22, "anna", "clean"),
            (22, "ben", "blurred"),
            (23, "anna", "clean"),
            (23, "ben", "blurred"),
            (23, "carl", "blurred"),
            (24, "anna", "clean"),
        ],
    )
    assert {row["uid"]: row["label"] for row in known.table.to_pylist()} == {
        pair(n)["uid"]: word for n, word in [(20, "clean"), (21, "clean"), (23, "blurred"), (24, "clean")]
    }
    assert (known.disputed, known.repeated) == (1, 0)
    first, *others = agreement.of(known)
    assert (first.labellers, first.pairs, first.agreed.hits) == (("anna", "ben"), 4, 2)
    assert [(each.url, each.labels) for each in first.disagreements] == [
        (pair(n)["url"], ("clean", "blurred")) for n in (22, 23)
    ]
    assert [each.labellers for each in others] == [("anna", "carl"), ("ben", "carl")]


def test_agreement_without_a_kappa_says_why(tmp_path):
    same = agreement.of(sample(tmp_path, [(n, who, "clean") for n in (20, 21) for who in ("anna", "ben")]))[0]
    assert (same.kappa.value, same.remark) == (None, "kappa is undefined: both gave every pair the label 'clean'")
    apart = agreement.of(sample(tmp_path, [(20, "anna", "clean"), (21, "ben", "clean")]))[0]
    assert (apart.pairs, apart.kappa.value, apart.remark) == (0, None, "they labelled no pair in common")
    words = {20: "clean", 21: "blurred"}
    whole = agreement.of(sample(tmp_path, [(n, who, word) for n, word in words.items() for who in ("anna", "ben")]))[0]
    assert (whole.kappa.value, whole.kappa.low, whole.remark) == (
        1,
        None,
        "they never disagree, so kappa has no interval",
    )
    assert agreement.of(sample(tmp_path, [(20, "anna", "clean")])) == []
    with pytest.raises(SourceError, match="its labellers disagree on every pair: 1 are disputed"):
        sample(tmp_path, [(20, "anna", "clean"), (20, "ben", "blurred")])


def test_a_calibration_says_how_far_two_labellers_agree(source, tmp_path):
    described, manifest = source
    rows = [(n, who, "blurred" if n < 50 else "clean") for n in range(20, 80) for who in ("anna", "ben")]
    rows[0] = (20, "anna", "clean")
    sample(tmp_path, rows)
    described = described.model_copy(update={"calibration": Calibration(labels=tmp_path / "labels.csv")})
    found = calibrate.measure(described, manifest.storage, tmp_path / "labels.csv")
    assert found["labels"] | {"file": ""} == {"file": "", "pairs": 59, "repeated": 0, "disputed": 1}
    (both,) = found["agreement"]
    assert both["kappa"]["value"] == pytest.approx(1 - (1 / 60) / (1 - (29 * 30 + 31 * 30) / 3600))
    assert [each["url"] for each in both["disagreements"]] == [pair(20)["url"]]
    stored = [path.read_text() for path in (manifest.storage.root / "calibration").glob("*.json")]
    assert len(stored) == 1
    assert "kappa" in stored[0]
    assert "http://" not in stored[0]


# As a user.


def run(*words):
    done = CliRunner().invoke(cli.app, [str(word) for word in words], prog_name="winnow")
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_out_and_in_again_and_calibrated(source, published, tmp_path):
    _, root = published
    toml = root.parent / "lists" / "tiny.toml"
    run("annotate", toml, "--to", tmp_path / "out", "--pairs", "60", "--root", root)
    made = json.loads((tmp_path / "out" / label_studio.TASKS).read_text())
    for number, each in zip(numbers([each["data"] for each in made]), made, strict=True):
        word = "blurred" if number < 45 else "clean"
        each["annotations"] = task(number, (1, word), (2, "clean" if number == 30 else word))["annotations"]
    says = run("labels", toml, written(tmp_path, made), "--root", root)
    assert "new labels: 120, changed: 0, as before: 0" in says
    assert "60 labelled pairs in" in says
    says = run("calibrate", toml, "--root", root)
    assert "1 and 2: 60 pairs, equal labels 98.3%" in says
    assert "blurred / clean: http://host/30.jpg picture number 30" in says
    assert 'sql = "pixels_sharpness >= 44.5"' in says
    assert "\N{REPLACEMENT CHARACTER}" not in says
    told = json.loads(run("calibrate", toml, "--root", root, "--json").splitlines()[-1])
    assert (told["labels"]["disputed"], told["agreement"][0]["kappa"]["value"] > 0.9) == (1, True)
    assert "Disputed by their labellers, and left out: 1 pairs." in run("caught", toml, "--root", root)
