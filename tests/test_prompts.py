"""Prompt heads on the demo's CLIP, which knows toys: what they say, and that they say what a softmax says."""

from pathlib import Path

import downloaded_sources
import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from pipeline.demo import world
from pipeline.errors import ModelError, SourceError
from pipeline.scenes import rendering, scenes
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.prompts import SETS, PromptsSpec, mean_direction
from pipeline.scorers.recorded import RecordedSpec
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.sources import loading

FOLDER = Path(world.__file__).parent / "clip"
CLIP = ClipSpec.model_validate({"kind": "clip", "model": f"local-dir:{FOLDER}", "precision": "float32"})
BALL = {"positive": ["a red ball", "a red sphere"], "negative": ["a blue cube", "a blue block", "a blue box"]}


def prompts(**settings):
    return PromptsSpec.model_validate({"kind": "prompts", "of": "clip", **settings})


def photographs(shape, colour, count):
    """Of a lone toy of this shape and colour."""
    random = np.random.default_rng(3)
    while count:
        scene = scenes.draw(random)
        if [(thing.shape, thing.colour) for thing in scene.things] == [(shape, colour)]:
            yield Image.fromarray(rendering.render(scene, random))
            count -= 1


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A shard of red balls, then as many blue cubes, with the probability of a ball."""
    pictures = [*photographs("ball", "red", 12), *photographs("cube", "blue", 12)]
    rows = [(f"http://host/{number}.jpg", "a toy", picture) for number, picture in enumerate(pictures)]
    scorers = {"clip": CLIP, "ball": prompts(**BALL)}
    described, storage, (shard,) = downloaded_sources.downloaded(tmp_path_factory.mktemp("toys"), rows, scorers)
    Scoring(Plan.of(described), storage)(shard)
    return described, storage, shard


def test_prompts_tell_one_toy_from_another(scored):
    found = np.array(downloaded_sources.scores(*scored, "ball")["probability"])
    balls, cubes = found[:12], found[12:]
    assert (balls[:, None] > cubes).mean() > 0.98  # the area under the ROC curve
    assert balls.mean() > 0.9
    assert cubes.mean() < 0.1


def test_the_probability_is_the_softmax_of_the_scaled_cosines(scored):
    model = open_clip.create_model(f"local-dir:{FOLDER}").eval()
    tokenize = open_clip.get_tokenizer(f"local-dir:{FOLDER}", bpe_path=str(FOLDER / "vocabulary.txt.gz"))
    pictures = torch.from_numpy(downloaded_sources.embeddings(*scored, "clip")[:, 0].astype(np.float32))
    with torch.inference_mode():
        sets = [
            model.encode_text(tokenize(BALL[side]), normalize=True).mean(dim=0) for side in ("positive", "negative")
        ]
        classes = torch.nn.functional.normalize(torch.stack(sets), dim=1)
        expected = (model.logit_scale.exp() * pictures @ classes.T).softmax(dim=1)[:, 0]
    assert downloaded_sources.scores(*scored, "ball")["probability"] == pytest.approx(expected.tolist(), abs=1e-5)


def test_another_prompt_is_another_stage_and_needs_no_picture(scored):
    described, storage, shard = scored
    turned = prompts(positive=BALL["negative"], negative=BALL["positive"])
    wider = described.model_copy(update={"scorers": {**described.scorers, "cube": turned}})
    shards = Plan.of(described).scores
    assert Plan.of(wider).scores["ball"] == shards["ball"]
    assert turned.identity() != described.scorers["ball"].identity()
    Scoring(Plan.of(wider), storage)(shard)
    ball, cube = (downloaded_sources.scores(wider, storage, shard, name)["probability"] for name in ("ball", "cube"))
    assert np.add(ball, cube) == pytest.approx(1, abs=1e-6)


def test_the_mean_of_prompts_has_length_one():
    random = np.random.default_rng(0)
    encoded = random.normal(size=(5, 8)).astype(np.float32)
    encoded /= np.linalg.norm(encoded, axis=1, keepdims=True)
    assert np.linalg.norm(mean_direction(encoded)) == pytest.approx(1)


@pytest.mark.parametrize("name", SETS)
def test_shipped_sets_can_be_named(name):
    assert prompts(set=name).prompts == SETS[name]
    assert not set(SETS[name].positive) & set(SETS[name].negative)


def test_recorded_embeddings_have_no_text_tower():
    with pytest.raises(ModelError, match="need the text tower of a clip scorer, and 'clip' is of kind 'recorded'"):
        prompts(set="nsfw").check(RecordedSpec.model_construct(kind="recorded", model="ViT-B-32-quickgelu/openai"))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('set = "watermrk"', "set 'watermrk' is unknown; did you mean 'watermark'?"),
        ("", "give a set by its name, or positive and negative prompts"),
        ('set = "logo"\npositive = ["a"]', "give a set by its name, or positive and negative prompts"),
        ('positive = ["a dog"]', "positive and negative need a prompt each"),
        ('positive = ["a dog", " "]\nnegative = ["a cat"]', "a prompt is empty"),
    ],
)
def test_wrong_prompts_are_told_when_the_source_is_read(tmp_path, said, told):
    (tmp_path / "list.tsv").write_text("url\tcaption\n")
    (tmp_path / "mine.toml").write_text(
        f'[pairs]\nlocation = "list.tsv"\n[scorers.clip]\nkind = "clip"\nmodel = "local-dir:{FOLDER}"\n'
        f'[scorers.mine]\nkind = "prompts"\nof = "clip"\n{said}\n'
    )
    with pytest.raises(SourceError) as fault:
        loading.load(tmp_path / "mine.toml")
    assert str(fault.value).startswith("mine.toml: scorers.mine: ")
    assert told in str(fault.value)
