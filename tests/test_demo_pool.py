"""What is planted in the demo's pool, and how it looks."""

from collections import Counter
from io import BytesIO

import imagehash
import numpy as np
import pytest
from PIL import Image

from pipeline.demo import faults, pool
from pipeline.demo.spam import spam
from training.demo import clip

LABELS = {**pool.FAULTS, **pool.WEB_FAULTS}


@pytest.fixture(scope="module")
def planned():
    return pool.plan(7, 1000, pool.POOL, 400)


def of(planned, label):
    """Its lines, without those that stand there twice."""
    return [line for line in dict.fromkeys(planned.lines) if line.label == label]


def opened(content):
    return Image.open(BytesIO(content)).convert("RGB")


def grey(picture):
    return np.asarray(Image.fromarray(picture).convert("L"), float)


def detail(picture):
    return np.abs(np.diff(grey(picture), axis=0)).mean() + np.abs(np.diff(grey(picture), axis=1)).mean()


def blocks(picture):
    """How much more a picture jumps between two 8 x 8 blocks than within them."""
    jumps = np.abs(np.diff(grey(picture), axis=1)).mean(0)
    edge = np.arange(len(jumps)) % 8 == 7
    return jumps[edge].mean() / (jumps[~edge].mean() + 0.1)


def ten(fault):
    """Ten pictures and what the fault makes of them."""
    for number in range(10):
        picture = pool.photograph(7, pool.POOL, number)
        yield picture, faults.APPLIED[fault](picture, np.random.default_rng(number))


def test_each_fault_has_its_share_of_the_addresses(planned):
    assert len(planned.lines) == 1000
    assert planned == pool.plan(7, 1000, pool.POOL, 400)
    assert sorted(planned.shots) == sorted({line.picture for line in planned.lines}) == list(range(985))
    counts = Counter({line.picture: line.label for line in planned.lines}.values())
    assert {label: counts[label] for label in LABELS} == {
        label: pytest.approx(985 * share, abs=1 if label != "swapped" else 5) for label, share in LABELS.items()
    }
    assert set(counts) == {*LABELS, pool.CLEAN}
    assert len(set(planned.lines)) == 995


def test_a_small_pool_has_every_fault_and_one_without_a_test_set_no_copies_of_it():
    assert {line.label for line in pool.plan(1, 60, pool.POOL, 50).lines} == {*LABELS, pool.CLEAN}
    assert {line.label for line in pool.plan(1, 60, pool.CALIBRATION).lines} == {*LABELS, pool.CLEAN} - {"test_copy"}


def test_only_swapped_and_spam_captions_are_of_no_scene_at_their_address(planned):
    for line in planned.lines:
        shot = planned.shots[line.picture]
        own = line.caption in pool.captions(7, shot.stream, shot.scene, 3)
        assert own == (line.label not in ("swapped", "spam")), line


def test_what_was_done_to_a_picture_is_what_its_label_says(planned):
    done = {(line.label, planned.shots[line.picture].fault) for line in planned.lines}
    kept = {*LABELS, pool.CLEAN} - {*faults.DEGRADING, "near_duplicate", "written"}
    assert done == {(label, label) for label in (*faults.DEGRADING, "near_duplicate", "written")} | {
        (label, None) for label in kept
    } | {("test_copy", "re_encoded")}


def test_two_streams_plan_other_scenes():
    plans = [pool.plan(7, 200, stream) for stream in (pool.POOL, pool.CALIBRATION)]
    assert not {shot.stream for shot in plans[0].shots.values()} & {shot.stream for shot in plans[1].shots.values()}
    first, second = ({line.caption for line in each.lines if line.label == pool.CLEAN} for each in plans)
    assert len(first & second) < 5


def test_blur_takes_detail_from_every_picture_and_from_some_little():
    shares = [detail(bad) / detail(good) for good, bad in ten("blurred")]
    assert max(shares) < 0.85
    assert max(shares) > 1.3 * min(shares)


def test_a_washed_out_picture_has_half_the_contrast_at_most_and_none_of_the_dark():
    for good, bad in ten("washed_out"):
        assert grey(bad).std() < 0.52 * grey(good).std()
        assert bad.min() > 60


def test_a_watermark_covers_some_of_every_quarter_and_leaves_the_rest():
    for good, bad in ten("watermarked"):
        changed = (np.abs(good.astype(int) - bad) > 12).any(2)
        quarters = changed.reshape(2, 64, 2, 64).mean((1, 3))
        assert quarters.min() > 0.02
        assert changed.mean() < 0.6


def test_compression_leaves_blocks():
    assert np.mean([blocks(bad) / blocks(good) for good, bad in ten("over_compressed")]) > 2
    assert all(blocks(bad) > blocks(good) for good, bad in ten("over_compressed"))


def test_a_near_duplicate_is_within_a_few_bits_of_a_clean_picture_of_the_pool_and_of_no_other(planned):
    label = {line.picture: line.label for line in planned.lines}
    copies = [line.picture for line in of(planned, "near_duplicate")][:12]
    originals = [planned.shots[number].scene for number in copies]
    assert {label[number] for number in originals} == {pool.CLEAN}
    assert len(set(originals)) == len(copies)
    hashes = [[_hash(7, number, planned) for number in numbers] for numbers in (copies, originals)]
    apart = np.array([[copy - other for other in hashes[1]] for copy in hashes[0]])
    assert apart.diagonal().max() <= 10
    assert np.median(apart.diagonal()) <= 6
    assert apart[~np.eye(len(copies), dtype=bool)].min() > 12


def _hash(seed, number, planned):
    return imagehash.phash(opened(pool.file(seed, number, planned.shots[number])))


def test_half_of_the_test_copies_are_the_held_out_file_and_half_the_same_to_the_eye(planned):
    same = []
    for line in of(planned, "test_copy"):
        shot = planned.shots[line.picture]
        assert shot.stream == pool.TEST
        copy, held_out = pool.file(7, line.picture, shot), dict(pool.files(7, pool.clean(pool.TEST, [shot.scene])))
        (original,) = held_out.values()
        same.append(copy == original)
        assert np.abs(np.asarray(opened(copy), int) - np.asarray(opened(original), int)).mean() < 6
    assert sum(same) == len(same) / 2


def test_a_picture_of_any_fault_is_a_jpeg_of_about_its_size():
    for number, fault in enumerate((*faults.APPLIED, "written")):
        content = pool.file(7, number, pool.Shot(pool.POOL, number, fault))
        assert content.startswith(b"\xff\xd8")
        assert 100 <= min(opened(content).size) <= 170


def test_the_caption_is_written_on_a_card_that_hides_a_third_of_the_picture_or_more():
    hidden = []
    for number in range(40):
        picture, random = pool.photograph(7, pool.POOL, number), np.random.default_rng(number)
        bad = faults.written(picture, pool.captions(7, pool.POOL, number, 1)[0], random)
        colours, counts = np.unique(bad.reshape(-1, 3), axis=0, return_counts=True)
        assert counts.max() > 0.15 * bad[..., 0].size
        assert len(colours) > 2
        hidden.append(np.mean((bad != picture).any(axis=(1, 2))))
    assert min(hidden) > 0.3
    assert max(hidden) == 1


def test_no_picture_but_those_of_clean_pairs_changes_for_written_captions(planned):
    written = {line.picture for line in of(planned, "written")}
    assert len(written) == 30
    originals = {planned.shots[line.picture].scene for line in of(planned, "near_duplicate")}
    assert not written & originals


def test_spam_is_varied_and_some_of_it_is_as_long_as_a_caption():
    said = [spam(np.random.default_rng(number)) for number in range(1000)]
    assert max(Counter(said).values()) < 60
    assert len(set(said)) > 600
    assert 0.2 < np.mean([len(each.split()) > 4 for each in said]) < 0.8
    assert not any(sign in each for each in said for sign in "\t\r\n")


def test_the_demo_clip_reads_any_spam():
    said = [spam(np.random.default_rng(number)) for number in range(200)]
    _, read = clip.embeddings(clip.FOLDER, [pool.file(7, 0, pool.Shot(pool.POOL, 0))], [*said, "é 漢字 🙂"])
    assert read.shape == (201, 128)
    assert np.abs(np.linalg.norm(read.numpy(), axis=1) - 1).max() < 1e-5
