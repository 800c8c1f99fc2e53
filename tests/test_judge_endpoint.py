"""A judge's endpoint that answers in odd ways: each reply is an answer, a cause, or one line."""

import gzip
import json
import sqlite3

import pytest
from judge_endpoint import completion, endpoint

from pipeline.errors import ModelError, StorageError
from pipeline.judging.answers import Answer, schema
from pipeline.judging.asking import Asking, Price
from pipeline.judging.endpoint import Endpoint
from pipeline.judging.replies import Replies
from pipeline.manifest import unanswered

ANSWERS = {"stars": Answer.parse("1..5"), "words": Answer.parse("text")}
GOOD = '{"stars": 4, "words": "a ball"}'
DRAFT = '{"stars": 1, "words": "perhaps"}'
PICTURE = b"\xff\xd8\xff"  # how a JPEG begins


def ask(answer, tmp_path, budget=None):
    """What an endpoint that always answers so leads to: values and cause, and the tokens that were counted."""
    with endpoint(lambda *_: answer) as server:
        there = Endpoint(server.address_of, "m", None, 5, 300, schema(ANSWERS))
        replies = Replies(tmp_path / "replies.sqlite")
        asking = Asking(there.ask, there.close, ANSWERS, replies, 1, 1, Price(prompt=1), budget)
        (found,) = asking.all(["key"], [PICTURE], ["Caption: a ball"])
        there.close()
        return found, replies.tokens()


def body(message, usage, ended="stop"):
    return json.dumps({"choices": [{"message": message, "finish_reason": ended}], "usage": usage}).encode()


@pytest.mark.parametrize(
    ("message", "ended"),
    [
        ({"content": [{"type": "text", "text": GOOD}]}, "stop"),
        ({"content": [{"type": "thinking", "text": None}, {"type": "text", "text": GOOD}]}, "stop"),
        ({"content": [GOOD]}, "stop"),
        ({"content": GOOD, "reasoning_content": DRAFT}, "stop"),
        ({"content": f"<think>{DRAFT}</think>{GOOD}"}, "stop"),
        ({"content": f"\ud83d {GOOD}"}, "stop"),
        ({"content": GOOD, "refusal": ""}, None),
    ],
)
def test_an_answer_in_an_odd_form_is_an_answer(message, ended, tmp_path):
    found, _ = ask((200, {}, body(message, None, ended)), tmp_path)
    assert (found.values, found.cause) == ({"stars": 4, "words": "a ball"}, None)


@pytest.mark.parametrize(
    ("message", "ended", "cause"),
    [
        ({"content": None}, "stop", "empty"),
        ({"content": None, "tool_calls": [{"function": {"arguments": GOOD}}]}, "tool_calls", "empty"),
        ({"content": {"stars": 4}}, "stop", "empty"),
        ({"content": None, "reasoning_content": "hm"}, "length", "cut_off"),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, "stop", "refused"),
        ({"content": GOOD}, "content_filter", "refused"),
        ({"content": '{"stars": 4, "words": "a",}'}, "stop", "no_json"),
        (GOOD, "stop", "no_completion"),
    ],
)
def test_no_answer_has_a_cause(message, ended, cause, tmp_path):
    assert ask((200, {}, body(message, None, ended)), tmp_path)[0].cause == cause


@pytest.mark.parametrize(
    ("headers", "sent", "cause"),
    [
        ({}, b'{"error": {"code": 429, "message": "slow down"}}', "no_completion"),
        ({}, b'data: {"choices": [{"delta": {"content": "x"}}]}\n\ndata: [DONE]\n\n', "no_completion"),
        ({}, completion("ZZ").replace(b"ZZ", b"\xff"), "no_completion"),
        ({}, b"[" * 100_000, "no_completion"),
        ({"Content-Encoding": "gzip"}, gzip.compress(completion("x" * 30_000_000)), "no_completion"),
        ({"Content-Encoding": "gzip"}, gzip.compress(completion(GOOD)), None),
    ],
)
def test_so_has_a_body_that_is_no_completion(headers, sent, cause, tmp_path):
    assert ask((200, headers, sent), tmp_path)[0].cause == cause


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, (0, 0)),
        ([1], (0, 0)),
        ({"prompt_tokens": "12", "completion_tokens": 3.0}, (12, 3)),
        ({"prompt_tokens": True, "completion_tokens": -3}, (0, 0)),
        ({"prompt_tokens": 10**30, "completion_tokens": "many"}, (1 << 24, 0)),
    ],
)
def test_tokens_are_counted_as_they_are_reported(usage, tokens, tmp_path):
    found, counted = ask((200, {}, body({"content": GOOD}, usage)), tmp_path)
    assert (found.cause, counted) == (None, tokens)


def test_a_budget_without_tokens_ends_the_run_in_one_line(tmp_path):
    with pytest.raises(ModelError, match="reports no tokens, so that no budget can be kept: remove budget"):
        ask((200, {}, body({"content": GOOD}, None)), tmp_path, budget=1.0)


@pytest.mark.parametrize("status", [301, 307])
def test_pictures_follow_no_redirect(status, tmp_path):
    headers = {"Location": "https://user:word@elsewhere.example/v1?token=secret"}
    with pytest.raises(
        ModelError, match=rf"redirects to https://elsewhere.example/v1 \(HTTP {status}\), which"
    ) as error:
        ask((status, headers, b""), tmp_path)
    assert "secret" not in str(error.value)


def test_a_short_time_limit_does_not_cut_the_pause_that_the_endpoint_asks_for(tmp_path):
    with endpoint(lambda _, count: (429, {"Retry-After": "0.5"}, b"") if count < 3 else GOOD) as server:
        there = Endpoint(server.address_of, "m", None, 0.2, 300, schema(ANSWERS))
        assert there.ask(PICTURE, "Caption: a ball").text == GOOD
        there.close()


def test_a_proxy_that_cannot_be_used_is_one_line(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "http://[::1")
    with pytest.raises(ModelError, match="the proxy that the environment names cannot be used"):
        Endpoint("http://127.0.0.1:9/v1", "m", None, 5, 300, {})


def test_replies_that_can_no_longer_be_kept_are_one_line(tmp_path):
    replies = Replies(tmp_path / "replies.sqlite")
    with sqlite3.connect(tmp_path / "replies.sqlite") as con:
        con.execute("DROP TABLE tokens")
    with pytest.raises(StorageError, match="^replies cannot be kept in "):
        replies.tokens()


def test_a_run_says_how_to_ask_again():
    def line(**causes):
        found = {"attempt": 1, "causes": causes, "spent": 0, "tokens": {}}
        (said,) = unanswered.remarks({"judged": {"judge": found}})
        return said

    assert line(endpoint_down=1) == (
        "judge: 1 pair has no answer (endpoint_down 1): to ask about it again, set attempt = 2 in [scorers.judge]"
    )
    assert line(endpoint_down=2, over_budget=1_000).endswith(
        "to ask about them again, raise budget and set attempt = 2 in [scorers.judge]"
    )
