"""A judge in a whole run, against an endpoint that is good, slow, wrong, refuses, lies, or is not there."""

import json
import signal
import subprocess
import sys
import time

import main_job
import pyarrow.parquet as pq
import pytest
from judge_endpoint import completion, endpoint, slowly
from PIL import Image

from pipeline.errors import ModelError, SourceError
from pipeline.manifest import remarks
from pipeline.manifest.manifest import Manifest
from pipeline.sources import loading

PAIRS = 12


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def pool(tmp_path):
    """Pictures with captions in a folder, and a source file whose judge is at an address."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(PAIRS):
        Image.new("RGB", (64, 48), (20 * number, 100, 200)).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(f"a picture of number {number}")

    def described(address, more=""):
        toml = tmp_path / "mine.toml"
        toml.write_text(f"""
filters = []
[pairs]
folder = "photos"
[download]
shard_size = 5
[scorers.judge]
kind = "judge"
endpoint = "{address}"
model = "tiny-vlm"
question = "Does the caption fit the picture?"
{"" if "seconds" in more else "seconds = 5"}
{more if "answers" in more else 'answers = { fits = "bool", stars = "1..5", recaption = "text" }' + chr(10) + more}
""")
        return toml

    return described


def good(caption, count=1):
    number = int(caption.split()[-1])
    return json.dumps({"fits": number % 2 == 0, "stars": 1 + number % 5, "recaption": f"number {number}, seen"})


def judged(toml, tmp_path):
    """The newest rows after a run, by caption."""
    main_job.run(toml, tmp_path / "store")
    manifest = Manifest.open(main_job.storage_of(toml, tmp_path / "store"))
    with manifest.connection() as con:
        rows = con.sql("FROM rows ORDER BY caption").to_arrow_table().to_pylist()
    return {int(row["caption"].split()[-1]): row for row in rows}, manifest


@pytest.mark.slow
def test_answers_are_typed_columns_and_nothing_is_asked_twice(pool, tmp_path):
    with endpoint(lambda caption, _: slowly(0.5, good(caption))) as server:
        rows, manifest = judged(pool(server.address_of, "at_once = 3"), tmp_path)
        assert all(row["judge_fits"] is (number % 2 == 0) for number, row in rows.items())
        assert all(row["judge_stars"] == 1 + number % 5 for number, row in rows.items())
        assert rows[7]["judge_recaption"] == "number 7, seen"
        assert {row["judge_unanswered"] for row in rows.values()} == {None}
        assert len(server.requests) == PAIRS
        assert server.requests[0][1]["response_format"]["json_schema"]["schema"]["required"] == [
            "fits",
            "stars",
            "recaption",
        ]
        assert 1 < server.most <= 3
        assert remarks.of(manifest) == []
        again, _ = judged(pool(server.address_of, "at_once = 3\nattempt = 2"), tmp_path)
        assert [row["judge_stars"] for row in again.values()] == [row["judge_stars"] for row in rows.values()]
        assert len(server.requests) == PAIRS


@pytest.mark.slow
def test_replies_that_are_no_answers_are_counted_and_asked_about_again_by_attempt(pool, tmp_path):
    bad = {
        0: "I'd rather not say.",
        1: '{"fits": "perhaps", "stars": 3, "recaption": "x"}',
        2: '{"fits": true, "stars": 9, "recaption": "x"}',
        3: (200, {}, completion(None, message={"content": None, "refusal": "no"})),
        4: (200, {}, completion('{"fits": tr', finish_reason="length")),
        5: (200, {"Content-Type": "text/html"}, b"<html>sign in</html>"),
        6: (200, {}, b"[]"),
        7: (200, {}, completion("x" * 3_000_000)),
        8: (200, {}, completion([{"type": "text", "text": good("number 8")}])),
        9: (418, {}, b"a teapot"),
    }
    well = False

    def reply(caption, count):
        number = int(caption.split()[-1])
        return good(caption) if well or number not in bad else bad[number]

    with endpoint(reply) as server:
        rows, manifest = judged(pool(server.address_of), tmp_path)
        causes = {number: row["judge_unanswered"] for number, row in rows.items()}
        assert causes == {
            0: "no_json",
            1: "wrong_type",
            2: "out_of_range",
            3: "refused",
            4: "cut_off",
            5: "no_completion",
            6: "no_completion",
            7: "no_completion",
            8: None,
            9: "http_418",
            10: None,
            11: None,
        }
        assert all((row["judge_fits"] is None) == (row["judge_unanswered"] is not None) for row in rows.values())
        (line,) = remarks.of(manifest)
        assert line.startswith("judge: 9 pairs have no answer (cut_off 1, http_418 1, no_completion 3")
        assert line.endswith("set attempt = 2 in [scorers.judge]")
        asked, well = len(server.requests), True
        judged(pool(server.address_of, "seconds = 6"), tmp_path)
        assert len(server.requests) == asked
        rows, _ = judged(pool(server.address_of, "attempt = 2"), tmp_path)
        assert {row["judge_unanswered"] for row in rows.values()} == {None}
        assert len(server.requests) == asked + 9


@pytest.mark.slow
def test_a_busy_endpoint_is_asked_again_when_it_says(pool, tmp_path):
    times = {}

    def reply(caption, count):
        times.setdefault(caption, []).append(time.monotonic())
        number = int(caption.split()[-1])
        if count == 1 and number == 0:
            return 429, {"Retry-After": "2"}, b""
        if count == 1 and number == 1:
            return 500, {}, b"oops"
        if count == 1 and number == 2:
            return 200, {}, None
        if count == 1 and number == 3:
            return slowly(9, good(caption))
        return good(caption)

    with endpoint(reply) as server:
        rows, _ = judged(pool(server.address_of, "seconds = 7"), tmp_path)
    assert {row["judge_unanswered"] for row in rows.values()} == {None}
    first, second = times["a picture of number 0"]
    assert second - first >= 2
    assert [len(times[f"a picture of number {number}"]) for number in (1, 2, 3)] == [2, 2, 2]


@pytest.mark.slow
def test_an_endpoint_that_knows_no_schema_is_asked_without_it(pool, tmp_path):
    with endpoint(good) as server:

        def reply(caption, count):
            return (400, {}, b"unknown field") if "response_format" in server.requests[-1][1] else good(caption)

        server.reply = reply
        rows, _ = judged(pool(server.address_of, "at_once = 1"), tmp_path)
    assert {row["judge_unanswered"] for row in rows.values()} == {None}
    assert len(server.requests) == PAIRS + 1


@pytest.mark.slow
def test_an_endpoint_that_goes_down_leaves_rows_that_a_later_run_asks_about(pool, tmp_path):
    down = True

    def reply(caption, count):
        return (200, {}, None) if down and int(caption.split()[-1]) > 2 else good(caption)

    with endpoint(reply) as server:
        toml = pool(server.address_of, "at_once = 4")
        rows, manifest = judged(toml, tmp_path)
        missing = {number for number, row in rows.items() if row["judge_unanswered"] == "endpoint_down"}
        assert missing >= set(range(3, PAIRS))  # shards arrive in any order: it may be down before the first is asked
        assert manifest.card["judged"]["judge"]["causes"] == {"endpoint_down": len(missing)}
        down, before = False, len(server.requests)
        rows, _ = judged(pool(server.address_of, "at_once = 4\nattempt = 2"), tmp_path)
        assert {row["judge_unanswered"] for row in rows.values()} == {None}
        assert len(server.requests) == before + len(missing)


@pytest.mark.slow
def test_nothing_is_asked_beyond_the_budget(pool, tmp_path):
    priced = "at_once = 1\nprice = { prompt = 1000, reply = 10000 }\n"  # 2 a pair
    with endpoint(good) as server:
        rows, _ = judged(pool(server.address_of, f"{priced}budget = 9"), tmp_path)
        assert [row["judge_unanswered"] for row in rows.values()].count("over_budget") == PAIRS - 5
        assert len(server.requests) == 5
        judged(pool(server.address_of, f"{priced}budget = 9\nattempt = 2"), tmp_path)
        assert len(server.requests) == 5
        rows, manifest = judged(pool(server.address_of, f"{priced}budget = 100\nattempt = 3"), tmp_path)
        assert {row["judge_unanswered"] for row in rows.values()} == {None}
        assert manifest.card["judged"]["judge"]["spent"] == 24
        assert manifest.card["judged"]["judge"]["tokens"] == {"prompt": 12_000, "reply": 1_200}


@pytest.mark.slow
@pytest.mark.parametrize("status", [401, 404])
def test_a_refused_key_or_an_unknown_model_ends_the_run_in_one_line(pool, tmp_path, monkeypatch, status):
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    with endpoint(lambda *_: (status, {}, b"sk-very-secret is wrong")) as server:
        toml = pool(server.address_of, 'key = "JUDGE_KEY"')
        with pytest.raises(ModelError, match=rf"^http://127.*/v1 .*\(HTTP {status}\): check endpoint") as error:
            main_job.run(toml, tmp_path / "store")
        assert "secret" not in str(error.value)
        assert server.requests[0][2] == "Bearer sk-very-secret"
        assert "secret" not in "".join(map(str, loading.load(toml).scorers["judge"].identity().values()))


def test_a_key_may_end_in_a_line_break_and_must_fit_into_a_header(pool, monkeypatch):
    spec = loading.load(pool("http://127.0.0.1:9/v1", 'key = "JUDGE_KEY"')).scorers["judge"]
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret\r\n")
    spec.load().asking.stop()
    monkeypatch.setenv("JUDGE_KEY", "sk-\N{EM DASH}secret")
    with pytest.raises(ModelError, match="JUDGE_KEY has characters that no key of an endpoint has$"):
        spec.identity()


def test_the_key_s_variable_must_be_set_before_anything_runs(pool, tmp_path):
    with pytest.raises(ModelError, match="JUDGE_KEY is not set"):
        main_job.run(pool("http://127.0.0.1:9/v1", 'key = "JUDGE_KEY"'), tmp_path / "store")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('answers = { fits = "maybe" }', "an answer is"),
        ('answers = { unanswered = "bool" }', "take another name"),
        ("answers = {}", "at least 1"),
        ("budget = 3", "a budget needs price"),
        ("attempt = 0", "greater than or equal to 1"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(pool, more, says):
    with pytest.raises(SourceError, match=says) as error:
        loading.load(pool("http://127.0.0.1:9/v1", more))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("address", ["http:///v1", "http://[::1", "http://a..b/v1"])
def test_an_endpoint_without_a_host_is_refused_in_one_line(pool, address):
    with pytest.raises(SourceError, match="is no address of a server") as error:
        loading.load(pool(address))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_ctrl_c_ends_at_once_and_keeps_the_replies(pool, tmp_path):
    """The first three requests are answered, whichever they are: shards arrive in any order."""
    answered, asked_slowly = [], True

    def reply(caption, count):
        with server.lock:
            if len(answered) == 3 and asked_slowly:
                seconds = 300
            else:
                answered.append(caption)
                seconds = 0
        return slowly(seconds, good(caption))

    with endpoint(reply) as server:
        toml = pool(server.address_of, "seconds = 600")
        command = [sys.executable, "-m", "flows", "curate", str(toml), "--root", str(tmp_path / "r")]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        end = time.monotonic() + 120
        while len(server.requests) < 5:
            assert time.monotonic() < end, run.communicate()[0] if run.poll() is not None else "nothing is asked"
            time.sleep(0.05)
        time.sleep(1)
        run.send_signal(signal.SIGINT)
        words, _ = run.communicate(timeout=100)  # far below the seconds of a request
        assert run.returncode == 130, words
        before, asked_slowly = set(answered), False
        server.requests.clear()
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        assert len(before) == 3
        assert {each[0] for each in server.requests} == {
            f"a picture of number {number}" for number in range(PAIRS)
        } - before


@pytest.mark.slow
def test_a_model_in_a_folder_is_asked(pool, tmp_path):
    pytest.importorskip("transformers")
    tiny_vlm(tmp_path / "vlm")
    toml = pool("http://127.0.0.1:9/v1", "max_tokens = 8")
    text = toml.read_text().replace('endpoint = "http://127.0.0.1:9/v1"\n', "")
    toml.write_text(text.replace('"tiny-vlm"', '"local-dir:vlm"'))
    rows, manifest = judged(toml, tmp_path)
    assert {row["judge_unanswered"] for row in rows.values()} <= {"no_json", "cut_off", "empty"}
    tokens = manifest.card["judged"]["judge"]["tokens"]
    assert tokens["prompt"] > 16 * PAIRS
    assert 0 < tokens["reply"] <= 8 * PAIRS
    (tmp_path / "vlm/model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="is no vision-language model that transformers can load"):
        main_job.run(toml, tmp_path / "store")
    (tmp_path / "vlm/model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"weights in \.safetensors files"):
        main_job.run(toml, tmp_path / "store")


def tiny_vlm(folder):
    """An untrained LLaVA of a few thousand weights: it loads and replies as a real one does, with nonsense."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    words = ["<unk>", "<s>", "</s>", "<image>", *(chr(number) for number in range(32, 127))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.add_special_tokens({"additional_special_tokens": ["<image>"]})
    template = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer=fast,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    )
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=3))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@pytest.mark.slow
def test_the_answers_are_in_the_stored_scores(pool, tmp_path):
    with endpoint(good) as server:
        toml = pool(server.address_of)
        main_job.run(toml, tmp_path / "store")
    files = sorted((tmp_path / "store/mine/scores").glob("judge-*/*.parquet"))
    assert [pq.read_metadata(path).num_rows for path in files] == [5, 5, 2]
    assert "number 3, seen" in pq.read_table(files[0])["judge_recaption"].to_pylist()
