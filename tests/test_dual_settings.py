"""The table [models.NAME]: presets, names of towers, a learner that names a model, and faults in one line."""

import pytest

from pipeline.errors import SourceError
from pipeline.settings.model import Model
from pipeline.settings.model_presets import PRESETS
from pipeline.sources import loading

HEAD = '[pairs]\nlocation = "list.tsv"\n'
MODEL = '[models.small]\nimage = "timm:mobilenetv2_100"\ntext = "small"\n'
TASK = '[task]\nkind = "retrieval"\n[task.split]\n[task.learners.dual]\nmodel = "{}"\n'


@pytest.fixture
def file(tmp_path):
    (tmp_path / "list.tsv").write_text("url\tcaption\nhttp://a.example/1\tdog\n")

    def write(text):
        (tmp_path / "own.toml").write_text(HEAD + text)
        return str(tmp_path / "own.toml")

    return write


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_whole_model_and_other_keys_override_it(name):
    plain = Model(preset=name)
    other = Model(preset=name, dim=17, text="small", pooling=None, head="linear")
    assert plain.image.kind == ("open_clip" if plain.head == "own" else "timm")
    assert (other.dim, other.text.kind, other.objective) == (17, "small", plain.objective)


def test_the_preset_of_the_study_has_its_table():
    study = Model(preset="small-clip-study")
    assert (study.batch, study.context, study.dim, study.dropout, study.weight_decay) == (16, 200, 256, 0.1, 1e-3)
    assert (study.head_rate, study.image_rate, study.text_rate) == (1e-3, 1e-4, 1e-5)
    assert (study.patience, study.factor, study.pooling, study.image_size) == (1, 0.8, "first", 224)


def test_tiny_shrinks_what_is_given_and_what_is_not():
    tiny = Model(preset="small-clip-study", tiny=True, steps=3)
    assert (tiny.steps, tiny.batch, tiny.context, tiny.image_size) == (3, 16, 16, 64)
    assert Model(image="open_clip:RN50@openai", text="small", tiny=True).image_size is None


def test_towers_are_named_as_encoders_are(tmp_path, file):
    (tmp_path / "minilm").mkdir()
    (tmp_path / "own.safetensors").touch()
    text = '[models.a]\nimage = "timm:resnet50@own.safetensors"\ntext = "transformers:minilm@random"\n'
    model = loading.load(file(text)).models["a"]
    assert model.image.weights == str(tmp_path / "own.safetensors")
    assert (model.text.model, model.text.weights) == (str(tmp_path / "minilm"), "random")
    assert model.name == "timm:resnet50@own.safetensors with transformers:minilm@random"


def test_a_learner_may_be_a_model(file):
    source = loading.load(file(MODEL + TASK.format("small")))
    assert source.task.learners["dual"].model == "small"
    assert source.task.learners["dual"].reads_captions


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (MODEL + TASK.format("smal"), "task.learners.dual: there is no model 'smal'; did you mean 'small'?"),
        (MODEL + TASK.format("small") + 'head = "dual"\n', "give head and encoder, or model"),
        (MODEL + TASK.format("small").replace('model = "small"', ""), "give head and encoder, or model"),
        (
            MODEL + '[task]\nkind = "number"\ncolumn = "x"\n[task.split]\n[task.learners.a]\nmodel = "small"\n',
            "numbers",
        ),
        (MODEL + "immage_blocks = 0\n", "unknown key models.small.immage_blocks; did you mean 'image_blocks'?"),
        (MODEL + 'preset = "small-clp"\n', "models.small: there is no preset 'small-clp'; did you mean 'small-clip'?"),
        (MODEL + 'pooling = "mean"\n', "pooling is for transformers"),
        (MODEL + 'image_blocks = "some"\n', "models.small.image_blocks"),
        (MODEL + 'image_blocks = 1\nbatch_norm = "train"\ncheckpointing = true\n', "checkpointing computes each block"),
        (MODEL.replace('"small"\n', '"distilbert"\n'), "no text tower is called 'distilbert': use transformers:MODEL"),
        (MODEL.replace('"small"\n', '"transformers:./gone"\n'), "there is no folder"),
        (MODEL.replace("timm:mobilenetv2_100", "hog"), "models.small.image.kind"),
        (MODEL.replace("models.small", "models.Small"), "'Small' cannot be the name of a model"),
    ],
)
def test_a_fault_is_one_line(file, text, told):
    with pytest.raises(SourceError) as fault:
        loading.load(file(text))
    assert told in str(fault.value)
    assert "\n" not in str(fault.value)
