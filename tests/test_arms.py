import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import published_sources
import pyarrow as pa
import pytest
import training_sources

from filters import catalog
from filters.selections import SoftCap
from pipeline.manifest import arms, publish
from pipeline.store.storage import Storage
from pipeline.trials import claims, trials
from pipeline.trials.trials import EpochLosses, LearningCurvePoint, Setting, Trial


def pool(count, kept):
    return judged([[] if kept(i) else ["f"] for i in range(count)])


def judged(dropped_by):
    uids, reasons = [f"u{i:04d}" for i in range(len(dropped_by))], pa.array(dropped_by, pa.list_(pa.string()))
    verdicts = pa.array([not each for each in dropped_by], pa.bool_())
    return pa.table({"uid": pa.array(uids, pa.string()), "kept": verdicts, "dropped_by": reasons})


def test_arms_are_cut_from_one_resample():
    drawn = {arm: uids.to_pylist() for arm, uids in arms.draw(pool(400, lambda i: i % 4 == 0), 3).items()}
    assert list(drawn) == list(arms.ARMS)
    assert len(drawn["raw"]) == 400
    assert 220 < len(set(drawn["raw"])) < 280  # 1 - 1/e of them, as with replacement
    assert drawn["filtered"] == [uid for uid in drawn["raw"] if int(uid[1:]) % 4 == 0]
    assert len(drawn["random"]) == len(drawn["filtered"]) > 60
    parts = [uid for uid in set(drawn["random"]) if drawn["random"].count(uid) < drawn["raw"].count(uid)]
    assert len(parts) <= 1
    share = np.mean([int(uid[1:]) % 4 == 0 for uid in drawn["random"]])
    assert 0.1 < share < 0.4


def test_the_control_repeats_rows_as_what_was_kept_does():
    """A subset of draws, instead of rows, would repeat rows less, and learn more of as many pairs."""
    shares = {}
    for seed in range(30):
        for arm, uids in arms.draw(pool(1000, lambda i: i % 10 < 3), seed).items():
            shares.setdefault(arm, []).append([len(uids), len(set(uids.to_pylist()))])
    pairs, distinct = np.mean([shares["filtered"], shares["random"]], axis=1).T
    assert pairs == pytest.approx([300, 300], abs=12)
    assert distinct == pytest.approx([190, 190], abs=8)


def test_a_control_is_another_subset_for_each_seed_and_arm():
    table = pool(200, lambda i: i < 60).append_column(arms.without("sharp"), pa.array([i < 60 for i in range(200)]))
    subsets = [
        set(arms.draw(table, seed, ["sharp"])[arm].to_pylist())
        for seed in (1, 2)
        for arm in ("random", "random-without-sharp")
    ]
    assert len({frozenset(each) for each in subsets}) == 4


def test_a_seed_means_a_draw():
    table = pool(300, lambda i: i < 100)
    assert arms.draw(table, 1) == arms.draw(table, 1)
    assert arms.draw(table, 1)["raw"] != arms.draw(table, 2)["raw"]


def test_raw_does_not_depend_on_what_was_kept():
    assert arms.draw(pool(99, lambda i: i < 9), 1)["raw"] == arms.draw(pool(99, lambda i: True), 1)["raw"]


def test_an_arm_without_a_filter_is_what_would_be_kept_without_it():
    table = judged([[], ["sharp"], ["worded"], ["sharp", "worded"]])
    for name, back in {"sharp": [True, True, False, False], "idle": [True, False, False, False]}.items():
        table = table.append_column(arms.without(name), pa.array(back))
    for seed in range(20):
        drawn = {arm: uids.to_pylist() for arm, uids in arms.draw(table, seed, ["sharp", "idle"]).items()}
        left_out = ["without-sharp", "without-idle"]
        assert list(drawn) == [*arms.ARMS, *(arm for each in left_out for arm in (each, f"random-{each}"))]
        for arm in left_out:
            control = drawn[f"random-{arm}"]
            assert len(control) == len(drawn[arm])
            assert all(control.count(uid) <= drawn["raw"].count(uid) for uid in table["uid"].to_pylist())
        assert drawn["without-sharp"] == [uid for uid in drawn["raw"] if uid in ("u0000", "u0001")]
        assert drawn["without-idle"] == drawn["filtered"] == [uid for uid in drawn["raw"] if uid == "u0000"]


def test_what_comes_back_is_thinned_and_may_beat_what_was_kept(tmp_path):
    """Without "even" 41 is a worse neighbour of 40, 55 a better one of 54, and 83 lets 70 pass "below"."""
    even = {"name": "even", "sql": "pixels_sharpness % 2 = 0"}
    below = {"name": "below", "sql": "pixels_sharpness <= (SELECT max(pixels_sharpness) FROM rows WHERE {rest}) - 10"}
    more = (
        '[scorers.duplicates]\nkind = "duplicates"\nradius = 1\n'
        '[distinct]\nradius = 1\nbest_by = "pixels_sharpness = 40 OR pixels_sharpness = 55"\n'
    )
    described = published_sources.listed(tmp_path, [40, 41, 54, 55, 70, 83], (even, below), more=more)
    storage = Storage(tmp_path / "store")
    published_sources.published(described, storage)
    table = pa.Table.from_batches(list(arms.Choice.open(storage).downloaded()))
    assert table["kept"].to_pylist() == [True, False, True, False, False, False]
    found = {name: table[arms.without(name)].to_pylist() for name in ("even", "below", "distinct")}
    assert found == {
        "even": [True, False, False, True, True, False],
        "below": [True, False, True, False, True, False],
        "distinct": [True, False, True, False, False, False],
    }


def test_no_answer_of_a_filter_is_its_drop(tmp_path):
    """Of six pairs: two filters say no to some, and have no answer for others."""
    captions = {
        0: "a disc",
        1: "a disc no",
        2: "a disc null",
        3: "a disc no null",
        4: "a disc void",
        5: "a disc no void",
    }
    filters = {
        "first": "CASE WHEN caption LIKE '%null%' THEN NULL ELSE caption NOT LIKE '%no%' END",
        "second": "CASE WHEN caption LIKE '%void%' THEN NULL ELSE true END",
    }
    _, storage = training_sources.task(tmp_path / "task", count=6, captions=captions, filters=filters)
    table = pa.Table.from_batches(list(arms.Choice.open(storage).downloaded()))
    assert table["dropped_by"].to_pylist() == [[], ["first"], ["first"], ["first"], ["second"], ["first", "second"]]
    assert table[arms.without("first")].to_pylist() == [True, True, True, True, False, False]
    assert table[arms.without("second")].to_pylist() == [True, False, False, False, True, False]


def test_another_recipe_of_the_same_pairs(tmp_path):
    captions = {0: "disc", 1: "a disc of stone", 2: "stock disc"}
    _, storage = training_sources.task(
        tmp_path / "task", count=30, captions=captions, filters={"short": "length(caption) < 6"}
    )
    published, other = arms.Choice.open(storage), arms.Choice.open(storage, recipe=catalog.recipes()["everything"])
    assert (published.published, other.published) == (True, False)
    assert published.key != other.key
    table, all_kept = (pa.Table.from_batches(list(each.downloaded())) for each in (published, other))
    told = ["kept", "dropped_by"]
    assert table.drop_columns([*told, arms.without("short")]) == all_kept.drop_columns(told)
    assert (sum(table["kept"].to_pylist()), sum(all_kept["kept"].to_pylist())) == (1, 30)
    assert all_kept["dropped_by"].to_pylist() == [[]] * 30


def test_arms_repeat_what_the_recipe_repeats():
    """Row i has i % 4 copies. The control has other rows, as many samples, and repeats them as often."""
    table = pool(2000, lambda i: i % 4 > 0).append_column("copies", pa.array([i % 4 for i in range(2000)], pa.uint16()))
    table = table.append_column(arms.without("f"), pa.array([2] * 2000, pa.uint16()))
    for seed in range(5):
        drawn = {arm: uids.to_pylist() for arm, uids in arms.draw(table, seed, ["f"]).items()}
        raw = Counter(drawn["raw"])
        assert Counter(drawn["filtered"]) == +Counter({uid: n * (int(uid[1:]) % 4) for uid, n in raw.items()})
        assert Counter(drawn["without-f"]) == Counter({uid: 2 * n for uid, n in raw.items()})
        for arm in ("filtered", "without-f"):
            control = Counter(drawn[arms.control_of(arm)])
            assert control.total() == len(drawn[arm])
            assert set(control) <= set(raw)
            assert len(control) == pytest.approx(len(set(drawn[arm])), rel=0.08)
        blind = np.mean([int(uid[1:]) % 4 for uid in drawn["random"]])
        assert blind == pytest.approx(1.5, abs=0.15)  # of what was chosen it is (1 + 4 + 9) / 6


def test_copies_of_a_recipe_are_those_of_its_arms(tmp_path):
    described = published_sources.listed(tmp_path, range(40, 70), shard_size=7)
    storage = Storage(tmp_path / "store")
    published_sources.published(described, storage)
    cap = SoftCap(by="pixels_sharpness", penalty=3, budget=50, unit="samples", temperature=5, batch=10)
    recipe = replace(described.own_recipe, selection=cap)
    other = arms.Choice.open(storage, recipe=recipe)
    publish.republish(storage, recipe)
    published = arms.Choice.open(storage)
    assert (published.published, other.published) == (True, False)
    table, same = (pa.Table.from_batches(list(each.downloaded())) for each in (published, other))
    assert table.equals(same)
    chosen = published.manifest.select().to_pylist()
    assert {each["uid"]: each["copies"] for each in table.to_pylist() if each["kept"]} == {
        each["uid"]: each["copies"] for each in chosen
    }
    assert sum(table["copies"].to_pylist()) == sum(table[arms.without("sharp")].to_pylist()) == 50
    assert table[arms.without("selection")].type == pa.bool_()
    assert sum(table[arms.without("selection")].to_pylist()) == 20


@pytest.mark.parametrize("count", [0, 5])
def test_nothing_kept_makes_empty_arms(count):
    drawn = arms.draw(pool(count, lambda i: False), 0)
    assert [len(uids) for uids in drawn.values()] == [count, 0, 0]


def test_downloaded_pairs_come_in_ledger_order(tmp_path):
    _, storage = training_sources.task(tmp_path / "task", count=60, lies={1, 2})
    batches = list(arms.Choice.open(storage).downloaded())
    table = pa.Table.from_batches(batches)
    own = [arms.without(name) for name in arms.Choice.open(storage).recipe.reasons]
    assert table.column_names == ["uid", "caption", "shard", "member", "sha256", "kept", "dropped_by", *own]
    assert table["caption"].to_pylist() == [training_sources.caption(number, {1, 2}) for number in range(60)]
    assert table["kept"].to_pylist() == [number not in (1, 2) for number in range(60)]


def setting(**other):
    fields = {
        "code": 1, "source": "s", "manifest": "m", "recipe": "r", "choice": "c",
        "learner": "linear", "head": "linear", "arm": "raw",
        "augmented": False, "seed": 0,
        "kind": "classes", "column": None,
        "budget": {"steps": 3}, "encoder": {"kind": "timm"}, "classes": {"b": ("b", "bs"), "a": ("a",)}, "test": "t",
    }  # fmt: skip
    return Setting(**fields | other)


def trial(of, seconds=1.5):
    per_class = {"b": {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "support": 2.0}}
    scores = {"f1_macro": 0.5, "accuracy": 0.9}
    curve = [LearningCurvePoint(32, 0.25), LearningCurvePoint(64, 0.5)]
    return Trial(of, 9, 7, scores, 0.1, per_class, curve, [0, 1, 1], 0.003, 64, seconds)


def test_a_trial_survives_being_written():
    assert Trial.from_json(trial(setting()).to_json()) == trial(setting())
    model = replace(trial(setting()), losses=(EpochLosses(1, 4, 2.5, None), EpochLosses(2, 8, 1.5, 2.0)))
    assert Trial.from_json(model.to_json()) == model
    flat = json.loads(trial(setting()).to_json())
    assert flat["arm"] == "raw"
    assert flat["f1_macro"] == flat["score"] == 0.5
    assert flat["seconds_per_point"] == pytest.approx(1.5 / 40)


def test_every_setting_has_its_own_key():
    others = [
        {"seed": 1}, {"arm": "random"}, {"augmented": True}, {"manifest": "n"}, {"choice": "d"},
        {"test": "u"}, {"budget": {"steps": 4}},
        {"encoder": {"kind": "open_clip"}}, {"classes": {"a": ("a",), "b": ("b", "bs")}}, {"learner": "mlp"},
        {"head": "mlp"}, {"code": 2}, {"kind": "label"}, {"column": "breed"},
    ]  # fmt: skip
    assert len({setting(**each).key for each in [{}, *others]}) == len(others) + 1
    assert setting().key == setting().key


def claim(storage, generation, **holder):
    me = {"host": platform.node(), "pid": os.getpid(), "started": "never", "time": time.time()}
    storage.put_if_absent(f"{setting().key}.claim-{generation}", json.dumps(me | holder).encode())


def once(storage):
    trained = []
    return claims.train_once(storage, setting(), lambda: trained.append(1) or trial(setting())), trained


def test_a_trial_is_trained_once(tmp_path):
    storage = Storage(tmp_path)
    assert once(storage) == (trial(setting()), [1])
    assert once(storage) == (trial(setting()), [])
    assert trials.finished(storage) == [f"{setting().key}.json"]


def test_a_trial_that_another_process_trains_is_left_to_it(tmp_path):
    storage, trained = Storage(tmp_path), []

    def train():
        trained.append(1)
        return trial(setting())

    claim(storage, 0, host="elsewhere")
    assert not claims.train_if_free(storage, setting(), train)
    storage.put_if_absent(f"{setting().key}.json", trial(setting()).to_json())
    assert claims.train_if_free(storage, setting(), train)
    assert not trained


def test_a_dead_process_s_claim_is_taken_over(tmp_path):
    storage = Storage(tmp_path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    claim(storage, 0, pid=gone.pid)
    claim(storage, 1)  # this very number, but another process had it
    assert once(storage)[1] == [1]
    assert storage.done(f"{setting().key}.claim-2")


def test_an_interrupted_trial_is_trained_again_by_the_same_process(tmp_path):
    storage = Storage(tmp_path)

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        claims.train_once(storage, setting(), interrupted)
    assert once(storage)[1] == [1]


def test_a_claim_of_another_machine_is_waited_for_until_it_is_old(tmp_path):
    storage = Storage(tmp_path)
    claim(storage, 0, host="elsewhere", time=time.time() - claims.PATIENCE + 1.5)
    start = time.time()
    assert once(storage)[1] == [1]
    assert 1 < time.time() - start < 20


def test_a_claim_from_the_future_is_nobody_s(tmp_path):
    """The clock went back: it could not be told when that claim is old."""
    storage = Storage(tmp_path)
    claim(storage, 0, host="elsewhere", time=time.time() + 2 * claims.PATIENCE)
    assert once(storage)[1] == [1]


def race(root, start, told):
    def train(of):
        told.put(of.seed)
        time.sleep(0.05)
        return trial(of, seconds=float(os.getpid()))

    start.wait()
    for seed in range(8):
        claims.train_once(Storage(root), setting(seed=seed), partial(train, setting(seed=seed)))


def test_two_processes_train_each_trial_once(tmp_path):
    context = multiprocessing.get_context("fork")
    start, told = context.Event(), context.SimpleQueue()
    workers = [context.Process(target=race, args=(tmp_path, start, told)) for _ in range(2)]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    trained = []
    while not told.empty():
        trained.append(told.get())
    assert sorted(trained) == list(range(8))


def claimed_and_stuck(root):
    claims.train_once(Storage(root), setting(), lambda: time.sleep(600))


def test_a_killed_trainer_does_not_stop_the_next(tmp_path):
    worker = multiprocessing.get_context("fork").Process(target=claimed_and_stuck, args=(tmp_path,))
    worker.start()
    storage = Storage(tmp_path)
    while not storage.done(f"{setting().key}.claim-0"):
        time.sleep(0.02)
    worker.kill()  # nobody reaps it yet: a process that is dead and still listed
    assert once(storage)[1] == [1]
    worker.join()
