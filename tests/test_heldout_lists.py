"""The list of a held-out set: what is wrong with it is said in one line, with the nearest right thing."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import training_sources

from pipeline.errors import CompareError, ModelError, SourceError
from pipeline.models.clip_weights import create_untrained, find_model
from pipeline.scorers import class_labels
from pipeline.settings.task import Task
from pipeline.settings.task import TestSet as Held
from training.data.heldout import HeldOut
from training.studies import gain

LEARNERS = {"linear": {"head": "linear", "encoder": {"kind": "hog"}}}
TASK = Task(classes={"dog": ["dog"], "cafe": ["café"]}, learners=LEARNERS)


def read(folder, content, *names, encoding="utf-8"):
    for name in names:
        (folder / name).write_bytes(training_sources.picture("disc", 1))
    (folder / "test.csv").write_bytes(content.encode(encoding))
    return HeldOut.read(Held(location=folder / "test.csv", folder=folder, agree=1), TASK)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_a_list_that_is_no_utf_8_names_the_line_and_the_remedy(tmp_path, encoding):
    with pytest.raises(SourceError) as error:
        read(tmp_path, "image,caption\na.jpg,a dog\nb.jpg,un café\n", "a.jpg", "b.jpg", encoding=encoding)
    said = str(error.value)
    assert "test.csv, line 3: the text is not UTF-8" in said
    assert "un caf" in said
    assert "save the file as UTF-8" in said
    assert "\n" not in said


def test_utf_16_is_named(tmp_path):
    with pytest.raises(SourceError, match="UTF-16: save the file as UTF-8"):
        read(tmp_path, "image,caption\na.jpg,a dog\n", "a.jpg", encoding="utf-16")


def test_names_of_digits_stay_text(tmp_path):
    content = "image,caption\n0040,a dog\n0041,a café\n7.10,a dog\n"
    assert [path.name for path in read(tmp_path, content, "0040", "0041", "7.10").paths] == ["0040", "0041", "7.10"]


def test_a_missing_picture_is_named_with_the_nearest_one(tmp_path):
    with pytest.raises(SourceError, match=r"no picture '0040' in .*; did you mean '0040.jpg'\?") as error:
        read(tmp_path, "image,caption\n0040,a dog\n", "0040.jpg", "0055.jpg")
    assert "\n" not in str(error.value)


def test_a_parquet_of_numbers_names_the_nearest_picture(tmp_path):
    (tmp_path / "0040.jpg").write_bytes(training_sources.picture("disc", 1))
    pq.write_table(pa.table({"image": [40], "caption": ["a dog"]}), tmp_path / "test.parquet")
    with pytest.raises(SourceError, match="did you mean '0040.jpg'"):
        HeldOut.read(Held(location=tmp_path / "test.parquet", folder=tmp_path, agree=1), TASK)


def test_a_test_set_that_is_the_pool_says_so(tmp_path):
    pictures = {
        number: training_sources.picture(training_sources.truth(number), 10_000 + number) for number in range(30)
    }
    described, storage = training_sources.task(tmp_path / "s", count=30, test=30, pictures=pictures)
    with pytest.raises(CompareError, match=r"all 30 pairs .* show a picture of the test set.*task.split"):
        gain.measure(described, storage)


def test_openai_s_own_name_leads_to_the_model_of_its_weights():
    with pytest.raises(ModelError, match="set model = 'ViT-B-32-quickgelu'"):
        find_model("ViT-B/32", "openai", None)
    with pytest.raises(ModelError, match="tag .*laion2b_s34b_b79k"):
        find_model("ViT-B/32", None, None)


def test_a_whole_float_is_a_label(tmp_path):
    by_number = Task(kind="label", column="label", classes={"one": ["1"], "two": ["2"]}, learners=LEARNERS)
    values = pa.array([1.0, 2.0, None, 1.5])
    assert class_labels.classes_of_values(values, by_number.classes).tolist() == [0, 1, -1, -1]


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("vit-b-32", "ViT-B-32"),
        ("VIT_B_32", "ViT-B-32"),
        ("ViT-L/14@336px", "ViT-L-14-336"),
        ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("google/siglip-base-patch16-224", "hf-hub:google/siglip-base-patch16-224"),
    ],
)
def test_a_model_s_other_names_lead_to_its_name_here(name, right):
    with pytest.raises(ModelError) as error:
        find_model(name, "openai", None)
    assert f"did you mean {right!r}?" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match="open_clip has no model"):
        create_untrained(name)


def test_a_parquet_without_columns_is_one_line(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline.errors import SourceError
    from pipeline.images import picture_lists
    from pipeline.settings.task import TestSet

    pq.write_table(pa.table({}), tmp_path / "test.parquet")
    test = TestSet.model_construct(location=tmp_path / "test.parquet", folder=tmp_path, image="image")
    with pytest.raises(SourceError, match="no column 'image'; it has no columns at all"):
        picture_lists.read(test, ["image"])
