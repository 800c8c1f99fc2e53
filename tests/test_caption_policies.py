import contextlib
import random
import subprocess
import sys

import pytest

from pipeline.errors import ModelError
from training.augment import caption_policies

CAPTION = "A brown dog runs through the water because the children throw a ball"


def test_deletion_leaves_out_a_word_in_ten():
    made, taken = caption_policies.augment(CAPTION, "deletion", 3)
    assert taken == ("deletion",)
    left = iter(CAPTION.lower().split())
    assert all(word in left for word in made.lower().split())  # in order
    assert len(CAPTION.split()) - len(made.split()) == 2


def test_swap_changes_the_order_alone():
    made, taken = caption_policies.augment(CAPTION, "swap", 3)
    assert taken == ("swap",)
    assert made != CAPTION
    assert sorted(made.lower().split()) == sorted(CAPTION.lower().split())


def test_spelling_makes_a_mistake_that_people_made():
    made, taken = caption_policies.augment(CAPTION, "spelling", 3)
    assert taken == ("spelling",)
    changed = [(a, b) for a, b in zip(CAPTION.split(), made.split(), strict=True) if a != b]
    assert 1 <= len(changed) <= 2
    mistakes = caption_policies.STEPS["spelling"]().model.dict
    assert all(wrong in mistakes[right] for right, wrong in changed)


def test_the_policies_take_each_of_their_steps():
    found = {step for seed in range(30) for step in caption_policies.augment(CAPTION, "words", seed)[1]}
    assert found == {"deletion", "swap", "spelling"}


@pytest.mark.parametrize("caption", ["", " ", "."])
def test_nothing_to_change_is_left_alone(caption):
    for seed in range(3):
        assert caption_policies.augment(caption, "words", seed) == (caption, ())


def test_a_caption_of_one_word_has_no_order():
    assert caption_policies.augment("dog", "swap", 1) == ("dog", ())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_caption_in_every_process():
    versions = f"[caption_policies.augment({CAPTION!r}, 'words', n) for n in range(20)]"
    code = f"from training.augment import caption_policies; print({versions})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str([caption_policies.augment(CAPTION, "words", seed) for seed in range(20)])


def test_the_dice_of_others_are_left_alone():
    random.seed(4)
    expected = random.random()
    random.seed(4)
    caption_policies.augment(CAPTION, "words", 1)
    assert random.random() == expected


def test_synonyms_come_from_wordnet_or_say_how_to_get_it():
    if "synonym" in reachable():
        assert len({caption_policies.augment("the dog runs", "synonym", seed)[0] for seed in range(20)}) > 3
    else:
        with pytest.raises(ModelError, match="python -m nltk.downloader wordnet"):
            caption_policies.check("all")


def reachable():
    with contextlib.suppress(ModelError):
        caption_policies.check("synonym")
        return {"synonym"}
    return set()
