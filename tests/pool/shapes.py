"""Bodies as OpenAI-compatible servers send them, each made from one and the same reply.

The forms follow the servers' documentation and their public issue trackers; ids, times and fingerprints that
nothing reads are left out or shortened.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from routerr1.types import Usage

PROMPT_PRICE, CACHED_PRICE, COMPLETION_PRICE, REASONING_PRICE, REQUEST_USD = (
    2.0,
    0.5,
    8.0,
    10.0,
    0.001,
)


@dataclass(frozen=True)
class Said:
    """A model's text and the server's counts. `completion` includes `reasoning`, as it is billed."""

    text: str = "Paris."
    thought: str = "Lyon? No."
    prompt: int = 40
    cached: int = 16
    completion: int = 30
    reasoning: int = 20

    def bill_usd(self, *, cached: bool = True, reasoning: bool = True) -> float:
        """The server's own bill. Servers without a cache or without thoughts bill neither apart."""
        from_cache = self.cached if cached else 0
        thought = self.reasoning if reasoning else 0
        micro_usd = (
            (self.prompt - from_cache) * PROMPT_PRICE
            + from_cache * CACHED_PRICE
            + (self.completion - thought) * COMPLETION_PRICE
            + thought * REASONING_PRICE
        )
        return micro_usd / 1e6 + REQUEST_USD


@dataclass(frozen=True)
class Shape:
    """How one kind of server sends a reply.

    Attributes:
        body: of the response.
        cached, reasoning: the server reports, and bills, these tokens apart.
        thinks: the reply comes with its thoughts.
        stated: the server states its price, 1.25 times the price book's.
    """

    name: str
    body: Callable[[Said], dict[str, Any]]
    cached: bool = False
    reasoning: bool = False
    thinks: bool = False
    stated: bool = False
    headers: Callable[[Said], dict[str, str]] = lambda _: {}

    def usage(self, said: Said) -> Usage:
        """What is read of it."""
        return Usage(
            said.prompt,
            said.completion,
            said.cached if self.cached else 0,
            said.reasoning if self.reasoning else 0,
        )

    def bill_usd(self, said: Said) -> float:
        """What the server bills."""
        bill = said.bill_usd(cached=self.cached, reasoning=self.reasoning)
        return 1.25 * bill if self.stated else bill


def _stated_usd(said: Said, *, cached: bool = False, reasoning: bool = False) -> float:
    return 1.25 * said.bill_usd(cached=cached, reasoning=reasoning)


def _chat(
    message: dict[str, Any], usage: dict[str, Any], *, finish: str = "stop", **more: Any
) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
        ],
        "usage": usage,
        **more,
    }


def _plain(said: Said) -> dict[str, Any]:
    return {
        "prompt_tokens": said.prompt,
        "completion_tokens": said.completion,
        "total_tokens": said.prompt + said.completion,
    }


def openai(said: Said) -> dict[str, Any]:
    """OpenAI: reasoning inside completion_tokens, the cache inside prompt_tokens."""
    usage = {
        **_plain(said),
        "prompt_tokens_details": {"cached_tokens": said.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": said.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
    message = {"content": said.text, "refusal": None, "annotations": []}
    return _chat(message, usage, service_tier="default", system_fingerprint="fp")


def azure(said: Said) -> dict[str, Any]:
    """Azure: content filter results around every choice and prompt."""
    body = openai(said)
    safe = {"hate": {"filtered": False, "severity": "safe"}}
    body["choices"][0]["content_filter_results"] = safe
    return {
        **body,
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": safe}],
    }


def mistral(said: Said) -> dict[str, Any]:
    """Mistral's reasoning models: content in parts."""
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": said.thought}], "closed": True},
        {"type": "text", "text": said.text},
    ]
    return _chat({"content": parts, "tool_calls": None}, _plain(said))


def deepseek(said: Said) -> dict[str, Any]:
    """DeepSeek: thoughts in reasoning_content, cache hits and misses on top of usage."""
    usage = {
        **_plain(said),
        "prompt_cache_hit_tokens": said.cached,
        "prompt_cache_miss_tokens": said.prompt - said.cached,
        "completion_tokens_details": {"reasoning_tokens": said.reasoning},
    }
    return _chat({"content": said.text, "reasoning_content": said.thought}, usage)


def xai(said: Said) -> dict[str, Any]:
    """xAI: reasoning beside completion_tokens, inside total_tokens; the price in ticks."""
    usage = {
        "prompt_tokens": said.prompt,
        "completion_tokens": said.completion - said.reasoning,
        "total_tokens": said.prompt + said.completion,
        "prompt_tokens_details": {"text_tokens": said.prompt, "cached_tokens": said.cached},
        "completion_tokens_details": {"reasoning_tokens": said.reasoning},
        "num_sources_used": 0,
        "cost_in_usd_ticks": round(_stated_usd(said, cached=True, reasoning=True) * 10**10),
    }
    return _chat({"content": said.text, "reasoning_content": said.thought}, usage)


def gemini(said: Said) -> dict[str, Any]:
    """Gemini's endpoint: thoughts are neither shown nor detailed; only the total contains them."""
    usage = {
        "prompt_tokens": said.prompt,
        "completion_tokens": said.completion - said.reasoning,
        "total_tokens": said.prompt + said.completion,
    }
    return _chat({"content": said.text}, usage)


def openrouter(said: Said) -> dict[str, Any]:
    """OpenRouter: thoughts under `reasoning`, the price in `usage.cost`."""
    usage = {
        **_plain(said),
        "prompt_tokens_details": {"cached_tokens": said.cached, "cache_write_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": said.reasoning},
        "cost": _stated_usd(said, cached=True, reasoning=True),
        "cost_details": {"upstream_inference_cost": None},
        "is_byok": False,
    }
    message = {
        "content": said.text,
        "refusal": None,
        "reasoning": said.thought,
        "reasoning_details": [{"type": "reasoning.text", "text": said.thought}],
    }
    body = _chat(message, usage, provider="P")
    body["choices"][0]["native_finish_reason"] = "completed"
    return body


def openrouter_own_key(said: Said) -> dict[str, Any]:
    """OpenRouter with a key of one's own: its fee in `cost`, the rest on the provider's bill."""
    body = openrouter(said)
    whole = body["usage"]["cost"]
    body["usage"] |= {
        "cost": whole * 0.05,
        "cost_details": {"upstream_inference_cost": whole * 0.95},
        "is_byok": True,
    }
    return body


def ollama(said: Said) -> dict[str, Any]:
    """Ollama's compatible endpoint: thoughts under `reasoning`."""
    message = {"content": said.text, "reasoning": said.thought}
    return _chat(message, _plain(said), system_fingerprint="fp_ollama")


def vllm(said: Said) -> dict[str, Any]:
    """vLLM: both names of the thoughts, many nulls."""
    message = {
        "content": said.text,
        "reasoning_content": said.thought,
        "reasoning": said.thought,
        "refusal": None,
        "tool_calls": [],
        "function_call": None,
    }
    usage = {**_plain(said), "prompt_tokens_details": None}
    body = _chat(message, usage, kv_transfer_params=None, prompt_logprobs=None)
    body["choices"][0] |= {"logprobs": None, "stop_reason": None}
    return body


def llama_cpp(said: Said) -> dict[str, Any]:
    """llama.cpp without a reasoning parser: thoughts in the text; timings beside usage."""
    message = {"content": f"<think>\n{said.thought}\n</think>\n\n{said.text}"}
    return _chat(message, _plain(said), timings={"prompt_n": 3, "predicted_ms": 4.5})


def lm_studio(said: Said) -> dict[str, Any]:
    """LM Studio: a chat template that opens the thoughts, so only their end is in the text."""
    message = {"content": f"{said.thought}\n</think>\n\n{said.text}", "tool_calls": []}
    return _chat(message, _plain(said), stats={})


def tgi(said: Said) -> dict[str, Any]:
    """TGI: an empty id, its own names of finish reasons."""
    return _chat({"content": said.text}, _plain(said), finish="eos_token") | {"id": ""}


def bedrock(said: Said) -> dict[str, Any]:
    """Bedrock's own form, which thin gateways pass on: inputTokens leaves out the cache."""
    content = [
        {"reasoningContent": {"reasoningText": {"text": said.thought, "signature": "s"}}},
        {"text": said.text},
    ]
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": "end_turn",
        "usage": {
            "inputTokens": said.prompt - said.cached,
            "outputTokens": said.completion,
            "totalTokens": said.prompt + said.completion,
            "cacheReadInputTokens": said.cached,
            "cacheWriteInputTokens": 0,
        },
        "metrics": {"latencyMs": 3},
    }


def anthropic_gateway(said: Said) -> dict[str, Any]:
    """Gateways that pass on Anthropic's counts: what comes from the cache is beside input_tokens."""
    usage = {
        "input_tokens": said.prompt - said.cached,
        "cache_read_input_tokens": said.cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": said.completion,
    }
    return _chat({"content": [{"type": "text", "text": said.text}]}, usage, finish="end_turn")


def litellm(said: Said) -> dict[str, Any]:
    """LiteLLM's proxy: the price in a header."""
    return _chat({"content": said.text}, _plain(said))


def perplexity(said: Said) -> dict[str, Any]:
    """Perplexity: an object of costs."""
    total = _stated_usd(said)
    usage = {**_plain(said), "cost": {"input_tokens_cost": total / 2, "total_cost": total}}
    return _chat({"content": said.text}, usage, citations=["https://example.org"])


def deepinfra(said: Said) -> dict[str, Any]:
    """DeepInfra: the price under a name of its own."""
    return _chat({"content": said.text}, {**_plain(said), "estimated_cost": _stated_usd(said)})


def gemini_own(said: Said) -> dict[str, Any]:
    """Gemini's own form, which thin gateways pass on: thoughts as parts, and beside the candidates."""
    parts = [{"text": said.thought, "thought": True}, {"text": said.text}]
    return {
        "candidates": [{"content": {"parts": parts, "role": "model"}, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": said.prompt,
            "candidatesTokenCount": said.completion - said.reasoning,
            "thoughtsTokenCount": said.reasoning,
            "totalTokenCount": said.prompt + said.completion,
            "cachedContentTokenCount": said.cached,
        },
    }


def ollama_own(said: Said) -> dict[str, Any]:
    """Ollama's own form of a chat: counts beside the message."""
    return {
        "model": "m",
        "message": {"role": "assistant", "content": said.text, "thinking": said.thought},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": said.prompt,
        "eval_count": said.completion,
    }


def cloudflare(said: Said) -> dict[str, Any]:
    """Cloudflare: a reply inside a result."""
    result = {"response": said.text, "usage": _plain(said)}
    return {"result": result, "success": True, "errors": [], "messages": []}


SHAPES = (
    Shape("openai", openai, cached=True, reasoning=True),
    Shape("azure", azure, cached=True, reasoning=True),
    Shape("mistral", mistral, thinks=True),
    Shape("deepseek", deepseek, cached=True, reasoning=True, thinks=True),
    Shape("xai", xai, cached=True, reasoning=True, thinks=True, stated=True),
    Shape("gemini", gemini, reasoning=True),
    Shape("openrouter", openrouter, cached=True, reasoning=True, thinks=True, stated=True),
    Shape("own_key", openrouter_own_key, cached=True, reasoning=True, thinks=True, stated=True),
    Shape("ollama", ollama, thinks=True),
    Shape("vllm", vllm, thinks=True),
    Shape("llama_cpp", llama_cpp, thinks=True),
    Shape("lm_studio", lm_studio, thinks=True),
    Shape("tgi", tgi),
    Shape("bedrock", bedrock, cached=True, thinks=True),
    Shape("anthropic", anthropic_gateway, cached=True),
    Shape(
        "litellm",
        litellm,
        stated=True,
        headers=lambda said: {"x-litellm-response-cost": repr(_stated_usd(said))},
    ),
    Shape("perplexity", perplexity, stated=True),
    Shape("deepinfra", deepinfra, stated=True),
    Shape("gemini_own", gemini_own, cached=True, reasoning=True, thinks=True),
    Shape("ollama_own", ollama_own, thinks=True),
    Shape("cloudflare", cloudflare),
)
