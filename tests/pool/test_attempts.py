"""Every server's body becomes the same text, tokens and money, and no text is lost for its bookkeeping."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routerr1.pool.attempts import Completion, read_completion
from routerr1.pool.failures import TryError, described, without_secrets, words_of
from routerr1.types import Usage
from tests.pool.shapes import SHAPES, Said, Shape, openai

QUERY = "What is the capital of France?"  # 30 bytes: 8 tokens by length
PLAIN = {"prompt_tokens": 12, "completion_tokens": 2}


def body(content: Any = "Paris.", usage: Any = PLAIN, finish: str | None = "stop", **more: Any) -> bytes:  # fmt: skip
    message = {"role": "assistant", "content": content, **more}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


def read(content: bytes, **options: Any) -> Completion:
    return read_completion(content, QUERY, **options)


def lost(content: bytes) -> TryError:
    with pytest.raises(TryError) as caught:
        read(content)
    return caught.value


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_the_shape_of_every_server_is_read_alike(shape: Shape):
    said = Said()
    got = read(json.dumps(shape.body(said)).encode(), headers=shape.headers(said))
    assert got.text == said.text
    assert got.thoughts == (said.thought if shape.thinks else "")
    if shape.thinks and not shape.reasoning:  # three tokens by length are thoughts, and it says so
        assert got.usage == Usage(said.prompt, said.completion, shape.usage(said).cached_prompt_tokens, 3)  # fmt: skip
        assert got.notes == ("reasoning tokens not reported, estimated by length",)
    else:
        assert got.usage == shape.usage(said)
    assert (got.cost_usd is not None) == shape.stated
    if shape.stated:
        assert got.cost_usd == pytest.approx(shape.bill_usd(said), abs=1e-9)


@pytest.mark.parametrize(
    ("usage", "tokens", "estimated"),
    [
        (None, (8, 2), "usage"),
        ({}, (8, 2), "usage"),
        ([], (8, 2), "usage"),
        ("none", (8, 2), "usage"),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (8, 2), "usage"),
        ({"prompt_tokens": 12, "completion_tokens": 0}, (12, 2), "completion tokens"),
        ({"prompt_tokens": 12, "completion_tokens": None}, (12, 2), "completion tokens"),
        ({"prompt_tokens": 12, "completion_tokens": 7.5}, (12, 2), "completion tokens"),
        ({"prompt_tokens": 12, "completion_tokens": "many"}, (12, 2), "completion tokens"),
        ({"prompt_tokens": 12, "completion_tokens": True}, (12, 2), "completion tokens"),
        ({"prompt_tokens": 12, "completion_tokens": 10**9}, (12, 2), "completion tokens"),
        ({"prompt_tokens": -1, "completion_tokens": 2}, (8, 2), "prompt tokens"),
        ({"completion_tokens": 2}, (8, 2), "prompt tokens"),
        # What the others tell is no estimate.
        ({"prompt_tokens": 12, "total_tokens": 16}, (12, 4), None),
        ({"completion_tokens": 4, "total_tokens": 16}, (12, 4), None),
        ({"input_tokens": 12, "output_tokens": 2}, (12, 2), None),
        ({"prompt_tokens": "12", "completion_tokens": 2.0}, (12, 2), None),
        # Reasoning that is in no total and exceeds the completion counts beside it.
        ({"prompt_tokens": 12, "completion_tokens": 7,
          "completion_tokens_details": {"reasoning_tokens": 500}}, (12, 507), None),
        # Less than the completion: a part of it.
        ({"prompt_tokens": 12, "completion_tokens": 7,
          "completion_tokens_details": {"reasoning_tokens": 5}}, (12, 7), None),
        # Perplexity: its total leaves the reasoning out, which cannot be a part of so few.
        ({"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19, "reasoning_tokens": 500}, (12, 507), None),
        # What is read from a cache or written to it, beside the prompt or inside it.
        ({"inputTokens": 5, "outputTokens": 2, "totalTokens": 42, "cacheReadInputTokens": 25,
          "cacheWriteInputTokens": 10}, (40, 2), None),
        ({"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 25,
          "cache_creation_input_tokens": 10}, (40, 2), None),
        ({"input_tokens": 40, "output_tokens": 2, "total_tokens": 42, "cache_read_input_tokens": 25}, (40, 2), None),
        ({"prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42, "cached_tokens": 25}, (40, 2), None),
        # A total below its parts is not believed.
        ({"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 3}, (12, 7), None),
    ],
)  # fmt: skip
def test_what_is_missing_is_estimated_by_length_and_noted(
    usage: Any, tokens: tuple[int, int], estimated: str | None
):
    got = read(body(usage=usage))
    assert got.text == "Paris."
    assert (got.usage.prompt_tokens, got.usage.completion_tokens) == tokens
    noted = (f"{estimated} not reported, estimated by length",) if estimated else ()
    assert got.notes == noted


def test_thoughts_nobody_counted_are_billed_too():
    got = read(body("<think>" + "a" * 400 + "</think>Paris.", usage=None))
    # 100 tokens of thoughts and 2 of the reply.
    assert got.usage == Usage(8, 102, 0, 100)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"type": "text", "text": "Paris."}], "Paris."),
        ([{"type": "text", "text": "Par"}, {"type": "text", "text": "is."}], "Paris."),
        (["Par", "is."], "Paris."),
        ([{"text": "Paris."}], "Paris."),
        ({"type": "text", "text": "Paris."}, "Paris."),
        ([{"type": "text", "text": {"value": "Paris.", "annotations": []}}], "Paris."),
        ([{"type": "output_text", "text": "Paris."}], "Paris."),
        ([{"type": "image_url", "image_url": {"url": "data:"}}, {"type": "text", "text": "Paris."}], "Paris."),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Paris."}], "Paris."),
        ([{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "Paris."}], "Paris."),
        ([{"type": "text", "text": None}, None, 7, {"type": "text", "text": "Paris."}], "Paris."),
        ("Paris \ud83d", "Paris \ufffd"),
    ],
)  # fmt: skip
def test_content_in_parts_is_joined(content: Any, said: str):
    assert read(body(content)).text == said


def test_thoughts_are_kept_as_a_part_of_the_text_if_asked_for():
    content = body("<think>Lyon?</think>Paris.")
    assert read(content, thoughts="keep").text == "Lyon?\n\nParis."
    only = body(None, reasoning_content="Paris it is.")
    assert read(only, thoughts="keep").text == "Paris it is."
    assert "thoughts: keep" in lost(only).why


@pytest.mark.parametrize(
    ("finish", "note"),
    [
        ("length", "cut at the token limit"),
        ("MAX_TOKENS", "cut at the token limit"),
        ("content_filter", "cut by the server's content filter"),
        ("SAFETY", "cut by the server's content filter"),
        ("insufficient_system_resource", "interrupted by the server"),
        ("stop", None),
        ("tool_calls", None),
        (None, None),
        ("something new", None),
    ],
)
def test_a_text_counts_however_it_ended(finish: str | None, note: str | None):
    got = read(body(finish=finish))
    assert got.text == "Paris."
    assert got.notes == ((note,) if note else ())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (body("", finish="content_filter"), "content filter left nothing"),
        (body(None, finish="tool_calls", tool_calls=[{"id": "x"}]), "calls a tool"),
        (body("<think>Lyon, or", finish="length"), "the thoughts took all tokens"),
        (body(None, finish="length", reasoning="Lyon, or"), "the thoughts took all tokens"),
        (body("   "), "the reply is empty"),
        (json.dumps({"choices": [], "usage": PLAIN}).encode(), "the reply is empty"),
    ],
)  # fmt: skip
def test_why_there_is_no_text_is_told_and_its_tokens_are_billed(content: bytes, why: str):
    failed = lost(content)
    assert why in failed.why
    assert (failed.usage, failed.billable, failed.retry) == (Usage(12, 2), False, False)


def test_a_refusal_is_what_the_model_says():
    assert read(body(None, refusal="I can't help with that.")).text == "I can't help with that."
    part = {"type": "refusal", "refusal": "I can't help with that."}
    assert read(body([part])).text == "I can't help with that."


def test_of_several_choices_the_first_with_text_counts():
    choices = [{"index": n, "message": {"content": text}} for n, text in enumerate(["", "b", "c"])]
    assert read(json.dumps({"choices": choices, "usage": PLAIN}).encode()).text == "b"
    same = [{"index": 0, "message": {"content": text}} for text in ("a", "b")]
    assert read(json.dumps({"choices": same, "usage": PLAIN}).encode()).text == "a"


@pytest.mark.parametrize(
    ("answer", "status", "retry"),
    [
        ({"error": {"message": "Provider returned error", "code": 429}}, 429, True),
        ({"error": {"message": "slow", "code": "429"}}, 429, True),
        ({"error": {"message": "slow", "type": "rate_limit_error"}}, 429, True),
        ({"error": {"message": "busy", "type": "overloaded_error"}}, 503, True),
        ({"error": {"message": "no", "code": "invalid_request_error"}}, 400, False),
        ({"error": {"message": "no", "code": 401}}, 401, False),
        ({"error": "model not found"}, 404, False),
        ({"error": {"message": "it broke"}}, 502, True),
        ([{"error": {"message": "no", "code": 400, "status": "INVALID_ARGUMENT"}}], 400, False),
        ({"object": "error", "message": "too long", "type": "BadRequestError", "code": 400}, 400, False),
        ({"error": {"message": "no", "status": "RESOURCE_EXHAUSTED"}}, 429, True),
        ({"error": {"message": "no", "code": "content_policy_violation"}}, 400, False),
        ({"error": {"message": "slow", "code": 429.0}}, 429, True),
        ({"error": {"message": "slow", "http_status": 429}}, 429, True),
        ({"error": {"message": "slow"}, "code": 429}, 429, True),
        ({"error": "slow", "status": 429}, 429, True),
        ({"error": '{"message": "slow", "code": 429}'}, 429, True),
        ({"error": "Input validation error", "error_type": "validation"}, 422, False),
        ({"errors": [{"message": "no", "code": 401}], "success": False}, 401, False),
        ({"code": 429, "message": "slow"}, 429, True),
        ({"code": "1302", "msg": "slow"}, 502, True),
        ({"error_code": 336501, "error_msg": "slow"}, 502, True),
        ({"message": "Too many requests"}, 502, True),
        ({"fault": {"faultstring": "no", "detail": {"errorcode": "policies.ratelimit.Spent"}}}, 429, True),
        ({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, 429, True),
        ({"base_resp": {"status_code": 2013, "status_msg": "invalid params"}}, 502, True),
        ({"choices": [{"message": {"content": None}, "finish_reason": "error"}]}, 502, True),
        ({"choices": [{"message": {"content": "Par"}, "finish_reason": "error"}]}, 502, True),
        ({"choices": [{"message": {"content": None}, "finish_reason": "error"}], "error": {"code": 502}}, 502, True),
        ({"choices": [{"message": {"content": "Par"}, "finish_reason": "error", "error": {"code": 502}}]}, 502, True),
    ],
)  # fmt: skip
def test_an_error_in_a_body_counts_as_its_status(answer: Any, status: int, retry: bool):
    failed = lost(json.dumps(answer).encode())
    assert (failed.why, failed.retry) == (f"status {status}", retry)
    # Half a reply may be billed though no usage is known; an error alone is not.
    assert failed.billable == ("Par" in json.dumps(answer) and "Provider" not in json.dumps(answer))


@pytest.mark.parametrize("finish", ["stop", "STOP", "COMPLETE", "eos_token"])
def test_a_whole_text_beside_an_error_is_kept(finish: str):
    answer = {**json.loads(body(finish=finish)), "error": {"message": "logging failed"}}
    assert read(json.dumps(answer).encode()).text == "Paris."


def events(*deltas: dict[str, Any], usage: Any = PLAIN, end: str = "data: [DONE]\n\n") -> bytes:
    lines = [": keep-alive\n\n", "event: message\n"]
    for delta in deltas:
        lines.append(f"data: {json.dumps({'choices': [{'index': 0, **delta}], 'usage': None})}\n\n")
    lines.append(f"data: {json.dumps({'choices': [], 'usage': usage})}\r\n\r\n")
    return "".join([*lines, end]).encode()


def test_an_event_stream_is_read_as_one_body():
    got = read(
        events(
            {"delta": {"role": "assistant", "content": "", "reasoning_content": "Ly"}},
            {"delta": {"reasoning_content": "on?"}},
            {"delta": {"content": "Par"}},
            {"delta": {"content": "is."}, "finish_reason": "stop"},
        )
    )
    assert (got.text, got.thoughts) == ("Paris.", "Lyon?")
    assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (12, 2)
    assert "read from an event stream that was not asked for" in got.notes


@pytest.mark.parametrize(
    "events",
    [
        b'data: {"error": {"code": 429, "message": "slow down"}}\n\n',
        b'event: error\ndata: {"code": 429, "message": "slow down"}\n\n',
        b'data: {"choices": [{"delta": {"content": "Par"}}]}\n\nevent: error\ndata: {"code": 429, "message": "slow down"}\n\n',
    ],
)  # fmt: skip
def test_an_error_in_an_event_stream_is_one(events: bytes):
    failed = lost(events)
    assert (failed.why, failed.said, failed.retry) == ("status 429", "slow down", True)


@pytest.mark.parametrize(
    ("events", "status", "said"),
    [
        (b"event: error\ndata: Too many requests\n\n", 429, "Too many requests"),
        (b"event: error\ndata: Too many\ndata: requests\n\n", 429, "Too many requests"),
        (b'event: error\ndata: "Too many requests"', 429, "'Too many requests'"),
        (b'event: error\ndata: [{"code": 429, "message": "slow down"}]\n\n', 429, "slow down"),
        (b"event: error\ndata: upstream is gone\n\n", 502, "upstream is gone"),
        (b"event: error\ndata:\n\n", 502, "error"),
        (b'data: {"choices": [{"delta": {"content": "Par"}}]}\n\nevent: error\ndata: gone\n\n', 502, "gone"),
    ],
)  # fmt: skip
def test_the_words_of_an_error_event_are_its_message(events: bytes, status: int, said: str):
    failed = lost(events)
    assert (failed.why, failed.said, failed.retry) == (f"status {status}", said, True)


def delta(**more: Any) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0, **more}]})}\n\n"


COUNTS = f"data: {json.dumps({'choices': [], 'usage': PLAIN})}\n\n"


@pytest.mark.parametrize(
    "stream",
    [
        "id: 1\nretry: 3000\n" + delta(delta={"content": "Paris."}) + COUNTS,
        delta(delta={"content": "Par"}, message={"content": "Par"})
        + delta(delta={"content": "is."}, message={"content": "Paris."}) + COUNTS,
        delta(delta={"content": "Paris."}) + delta(delta={}, message={"content": "Paris."}) + COUNTS,
        delta(delta={"content": "Paris."}) + f"data: {json.dumps({'choices': [], 'x_groq': {'usage': PLAIN}})}\n\n",
        delta(delta={"content": "Paris."}).replace(', "delta"', ',\ndata: "delta"') + COUNTS,
        delta(message={"content": "Paris."}) + COUNTS,
        "\ufeff" + delta(delta={"content": "Paris."}) + COUNTS,
        delta(delta={"content": "Paris."}) + delta(delta={}, finish_reason="stop", usage=PLAIN),
    ],
    ids=["id", "cumulative", "whole at the end", "groq", "two lines", "one message", "mark", "moonshot"],
)  # fmt: skip
def test_event_streams_of_every_kind_say_their_text_once(stream: str):
    got = read((stream + "data: [DONE]\n\n").encode())
    assert (got.text, got.usage) == ("Paris.", Usage(12, 2))
    assert got.notes == ("read from an event stream that was not asked for",)


@pytest.mark.parametrize(
    "last", [{"delta": None}, {}, {"delta": None, "message": {"content": "Par"}}]
)
def test_the_last_chunk_of_a_stream_ends_its_choice_without_a_delta(last: dict[str, Any]):
    stream = delta(delta={"content": "Par"}) + delta(**last, finish_reason="length") + COUNTS
    got = read((stream + "data: [DONE]\n\n").encode())
    assert (got.text, got.usage) == ("Par", Usage(12, 2))
    assert got.notes[0] == "cut at the token limit"


def gemini(*texts: str, **more: Any) -> list[dict[str, Any]]:
    chunks: list[dict[str, Any]] = [
        {"candidates": [{"content": {"parts": [{"text": text}]}}]} for text in texts
    ]
    chunks[-1]["candidates"][0]["finishReason"] = "MAX_TOKENS"
    chunks[-1]["usageMetadata"] = {"promptTokenCount": 12, "candidatesTokenCount": 2}
    return [*chunks, *([more] if more else [])]


def test_a_list_of_chunks_is_read_to_its_end():
    got = read(json.dumps(gemini("Par", "is."), indent=2).encode())
    assert (got.text, got.usage) == ("Paris.", Usage(12, 2))
    assert got.notes[0] == "cut at the token limit"
    failed = lost(json.dumps(gemini("", "", error={"code": 503, "message": "busy"})).encode())
    assert (failed.why, failed.said) == ("status 503", "busy")


def test_of_a_list_of_whole_replies_the_first_counts():
    replies = [{"generated_text": "Paris."}, {"generated_text": "Lyon."}]
    assert read(json.dumps(replies).encode()).text == "Paris."


def test_an_event_stream_that_ends_early_is_read_with_a_note():
    got = read((delta(delta={"content": "Par"}) + COUNTS).encode())
    assert (got.text, got.notes[-1]) == ("Par", "the event stream ended before its last event")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", ""),
        (b"<html><head><style>x</style></head><body>Please <b>log in</b></body></html>", "Please log in"),
        (b'{"choices": [{"message": {"content": "Par', '{\'choices\': [{\'message\': {\'content\': \'Par'),
        (b"[]", "[]"),
        (b"null", "null"),
        (b"[" * 100_000, None),
        (b'{"choices": "none"}', None),
        (b'{"choices": [' + b'{"message": {"content": ' + b"[" * 500 + b"]" * 500 + b"}}]}", None),
        (b"\xff\xfe\xfd", None),
    ],
)  # fmt: skip
def test_what_is_no_chat_completion_is_told_with_its_beginning(content: bytes, said: str | None):
    failed = lost(content)
    if said is not None:
        assert (failed.why, failed.said) == ("the body is no chat completion", said)
    assert failed.billable
    assert not failed.retry


@pytest.mark.parametrize(
    "content",
    [
        body().replace(b"Paris.", b"Par\xffs."),
        b"\xef\xbb\xbf" + body(),
        body().decode().encode("utf-16"),
        b"\n\n   " + body(),
        body().replace(b"Paris.", b"Par\nis."),
        body().replace(b'"completion_tokens": 2', b'"completion_tokens": ' + b"9" * 5000),
        body().replace(b'"completion_tokens": 2', b'"completion_tokens": NaN'),
        body().replace(b'"completion_tokens": 2', b'"completion_tokens": 1e999'),
    ],
)
def test_odd_bytes_around_a_text_do_not_lose_it(content: bytes):
    assert read(content).text.startswith("Par")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["choices", "message", "content", "text", "type", "usage", "error", "code", "index",
                         "thinking", "prompt_tokens", "total_tokens", "cost", "delta", "finish_reason"]),
        inner, max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@given(json_values)
def test_no_body_raises_anything_but_a_failed_try(value: Any):
    for content in (value, {"choices": [value]}, {"choices": [{"message": value}], "usage": value}):
        try:
            got = read(json.dumps(content).encode())
        except TryError:
            continue
        assert got.text.strip()
        assert got.usage.prompt_tokens > 0
        assert got.usage.completion_tokens > 0


@given(json_values)
def test_no_usage_loses_a_text(usage: Any):
    got = read(json.dumps({**openai(Said()), "usage": usage}).encode())
    assert got.text == "Paris."
    assert got.usage.cached_prompt_tokens <= got.usage.prompt_tokens
    assert got.usage.reasoning_tokens <= got.usage.completion_tokens
    assert got.cost_usd is None or got.cost_usd >= 0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"error": {"message": 'Unsupported "x"'}}, "Unsupported 'x'"),
        ({"error": "broken"}, "broken"),
        ({"detail": [{"loc": ["body"], "msg": "Field required"}]}, "Field required"),
        ({"error": {"message": "Provider returned error", "metadata": {"raw": "no such model"}}}, "no such model"),
        ({"message": "a\n\x1b[31mb"}, "a [31mb"),
        ({"error": {"message": "no", "metadata": {"raw": '{"error": {"message": "too long"}}'}}}, "too long"),
        ({"error": {"message": "x" * 500}}, "x" * 199 + "…"),
        ({"error": {}}, ""),
    ],
)  # fmt: skip
def test_a_servers_own_words_become_one_short_line(answer: Any, words: str):
    assert words_of(answer) == words


@pytest.mark.parametrize(
    "said",
    [
        "Incorrect API key provided: my-own-secret-1.",
        "Incorrect API key provided: sk-proj-********f9aB.",
        "bad header: Bearer abcDEF123",
        "proxy http://user:my-own-secret-1@proxy:80 failed",
        "proxy http://user:other@proxy:80 failed",
    ],
)
def test_keys_are_cut_out_of_a_servers_words(said: str):
    shown = described(TryError("status 401", said=said), ["my-own-secret-1"])
    assert shown.startswith("status 401 ")
    for secret in ("my-own-secret", "f9aB", "abcDEF", "other@"):
        assert secret not in shown


def test_short_secrets_are_no_reason_to_damage_a_text():
    assert without_secrets("a key is a key", ["a"]) == "a key is a key"


_WHOLE = {
    "choices": [{"message": {"content": "Paris."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 2},
}
_LINES = (
    {"message": {"content": "Par"}, "done": False},
    {"message": {"content": "is."}, "done": False},
    {
        "message": {"content": ""},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 12,
        "eval_count": 2,
    },
)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(_WHOLE).encode() + b"\0\n",
        json.dumps(_WHOLE).encode() + b"\n<!-- proxied -->",
        "\n".join(map(json.dumps, _LINES)).encode(),
        json.dumps({"data": _WHOLE}).encode(),
        json.dumps({"success": True, "result": _WHOLE}).encode(),
        json.dumps({**_WHOLE, "choices": {"0": _WHOLE["choices"][0]}}).encode(),
        json.dumps({**_WHOLE, "choices": [{"text": "Paris.", "message": {"content": ""}}]}).encode(),
        json.dumps({"type": "message", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Paris."}],
                    "stop_reason": "end_turn", "usage": {"input_tokens": 12, "output_tokens": 2}}).encode(),
        json.dumps({"object": "response", "status": "completed", "error": None,
                    "output": [{"type": "reasoning", "summary": []},
                               {"type": "message", "content": [{"type": "output_text", "text": "Paris."}]}],
                    "usage": {"input_tokens": 12, "output_tokens": 2}}).encode(),
        json.dumps({"message": {"content": [{"type": "text", "text": "Paris."}]}, "finish_reason": "COMPLETE",
                    "usage": {"billed_units": {"input_tokens": 12, "output_tokens": 2},
                              "tokens": {"input_tokens": 70, "output_tokens": 4}}}).encode(),
        json.dumps({**_WHOLE, "usage": {**_WHOLE["usage"], "cost": 1e12}}).encode(),
        json.dumps({**_WHOLE, "usage": {**_WHOLE["usage"], "cost": -1}}).encode(),
        json.dumps({**_WHOLE, "choices": ["Paris."]}).encode(),
        json.dumps({**_WHOLE, "choices": [{"message": "Paris."}]}).encode(),
        json.dumps({**_WHOLE, "choices": [{"message": {"content": None, "audio": {"transcript": "Paris."}}}]}).encode(),
        json.dumps(json.dumps(_WHOLE)).encode(),
        json.dumps({"statusCode": 200, "body": json.dumps(_WHOLE)}).encode(),
        json.dumps({"response": "Paris.", "done": True, "prompt_eval_count": 12, "eval_count": 2}).encode(),
        json.dumps([{"generated_text": "Paris.", "usage": _WHOLE["usage"]}]).encode(),
        json.dumps({"choices": [{**_WHOLE["choices"][0], "usage": _WHOLE["usage"]}]}).encode(),
        json.dumps({**_WHOLE, "choices": [{"message": {"content": {"parts": [{"text": "Paris."}]}}}]}).encode(),
        json.dumps({**_WHOLE, "base_resp": {"status_code": 0, "status_msg": ""}}).encode(),
        json.dumps({**_WHOLE, "usage": {**_WHOLE["usage"], "cost": {"currency": "EUR", "total": 0.5}}}).encode(),
    ],
    ids=["nul", "trailing", "lines", "data", "result", "mapping", "both", "anthropic", "responses", "cohere", "price",
         "negative", "plain choice", "plain message", "audio", "twice", "lambda", "generate", "tgi",
         "in the choice", "parts", "in order", "euros"],
)  # fmt: skip
def test_bodies_that_are_nearly_chat_completions_keep_their_text_and_tokens(content: bytes):
    got = read(content)
    assert (got.text, got.usage.prompt_tokens, got.usage.completion_tokens) == ("Paris.", 12, 2)
    assert got.cost_usd is None


def test_a_count_with_separators_and_a_number_as_content_are_read():
    body = {**_WHOLE, "usage": {"prompt_tokens": "1,024", "completion_tokens": "2"}}
    assert read(json.dumps(body).encode()).usage == Usage(1024, 2)
    number = {**_WHOLE, "choices": [{"message": {"content": 42}}]}
    assert read(json.dumps(number).encode()).text == "42"


@pytest.mark.parametrize(
    "field",
    [
        {"reasoning_text": "Lyon?"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "Lyon?"}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "Lyon?"}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "Lyon?", "signature": "s"}]},
    ],
)  # fmt: skip
def test_thoughts_are_found_under_every_name(field: dict[str, Any]):
    got = read(body("Paris.", **field))
    assert (got.text, got.thoughts) == ("Paris.", "Lyon?")


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        ({"cost": "0.001"}, 0.001),
        ({"cost": {"total": 0.001}}, 0.001),
        ({"total_cost": 0.001}, 0.001),
        ({"cost": None, "estimated_cost": 0.001}, 0.001),
        ({"cost": "free"}, None),
        ({"cost": "NaN"}, None),
        ({"cost": True}, None),
    ],
)
def test_a_stated_price_is_read_in_every_form(usage: dict[str, Any], usd: float | None):
    assert read(body(usage=PLAIN | usage)).cost_usd == usd
