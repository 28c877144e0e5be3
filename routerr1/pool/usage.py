"""What a server reports of the tokens and the price of a reply, whatever names it uses."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from routerr1.pool.pricing import is_free, tokens_by_length, usage_usd
from routerr1.types import Card, Reply, Usage

# Beyond any context window: a server that reports more is not to be believed.
_MOST_TOKENS = 10**8
_GROUPED = re.compile(r"\d{1,3}(,\d{3})+")
_MOST_USD = 1000  # of one call
_TICKS_PER_USD = 10**10  # xAI's unit of `cost_in_usd_ticks`

_PROMPT = ("prompt_tokens", "input_tokens", "inputTokens", "promptTokens", "prompt_eval_count", "promptTokenCount")  # fmt: skip
_COMPLETION = (
    "completion_tokens",
    "output_tokens",
    "outputTokens",
    "completionTokens",
    "eval_count",
    "candidatesTokenCount",
)
_TOTAL = ("total_tokens", "totalTokens", "totalTokenCount")
_CACHED = (
    "prompt_cache_hit_tokens",
    "cache_read_input_tokens",
    "cacheReadInputTokens",
    "cached_tokens",
    "cachedContentTokenCount",
)
_WRITTEN = ("cache_creation_input_tokens", "cacheWriteInputTokens", "cacheCreationInputTokens")
_APART = ("cache_read_input_tokens", "cacheReadInputTokens")
_COST = ("cost", "total_cost", "estimated_cost")
_PROMPT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_COMPLETION_DETAILS = ("completion_tokens_details", "output_tokens_details")


@dataclass(frozen=True, slots=True)
class Reported:
    """The counts that a server reports; None for a missing or implausible one.

    Attributes:
        prompt_tokens: cached ones included.
        completion_tokens: reasoning included, also where the server counts it apart.
        hidden_tokens: part of `completion_tokens` that only the total contains.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_prompt_tokens: int | None = None
    reasoning_tokens: int | None = None
    hidden_tokens: int = 0

    @property
    def whole(self) -> Usage | None:
        """The usage if no count has to be estimated."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return Usage(
            self.prompt_tokens,
            self.completion_tokens,
            self.cached_prompt_tokens or 0,
            self.reasoning_tokens or 0,
        )


def read_usage(usage: object) -> Reported:
    """The counts of a `usage` object.

    Reasoning is billed like a completion. OpenAI counts it in completion_tokens; xAI and Gemini's
    endpoint count it beside them, so the total exceeds the sum of prompt and completion.

    >>> read = read_usage({"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 519})
    >>> read.completion_tokens, read.reasoning_tokens, read.hidden_tokens
    (507, 500, 500)
    """
    if not isinstance(usage, Mapping):
        return Reported()
    for name in ("billed_units", "tokens"):  # Cohere's
        if isinstance(inner := usage.get(name), Mapping):
            usage = {**inner, **usage}
    prompt, completion = _first(usage, _PROMPT), _first(usage, _COMPLETION)
    total = _first(usage, _TOTAL)
    cached = _first([*_inner(usage, _PROMPT_DETAILS), usage], _CACHED)
    reasoning = _first(
        [*_inner(usage, _COMPLETION_DETAILS), usage], ("reasoning_tokens", "thoughtsTokenCount")
    )
    if prompt is not None:
        prompt += _cache_apart(usage, prompt, completion, total)
    if prompt is not None and cached is not None and cached > prompt:
        prompt += cached  # counted beside the prompt, since it cannot be a part of it
    if prompt is None and total is not None and completion is not None:
        prompt = total - completion if total > completion else None
    if completion is None and total is not None and prompt is not None:
        completion = total - prompt if total > prompt else None
    hidden = 0
    if prompt is not None and completion is not None:
        beside = max((total or 0) - prompt - completion, 0)
        if not beside and reasoning is not None and reasoning > completion:
            beside = reasoning  # more than the completion is no part of it
        completion += beside
        if beside and reasoning is None:
            hidden = reasoning = beside
    return Reported(
        prompt,
        completion,
        None if cached is None else min(cached, prompt or 0),
        None if reasoning is None else min(reasoning, completion or 0),
        hidden,
    )


def estimated(reported: Reported, query: str, text: str, thoughts: str) -> tuple[Usage, list[str]]:
    """The usage of a reply with text, where counts that are missing or zero are estimated by length.

    Returns: the usage, and notes that say what is estimated or unusual.
    """
    missing: list[str] = []
    prompt, completion = reported.prompt_tokens, reported.completion_tokens
    reasoning = reported.reasoning_tokens
    if not prompt:
        missing.append("prompt tokens")
        prompt = tokens_by_length(query)
    if not completion:
        missing.append("completion tokens")
        completion = tokens_by_length(text) + tokens_by_length(thoughts)
    if thoughts and not reasoning:
        reasoning = min(tokens_by_length(thoughts), completion)
        missing.append("reasoning tokens")
    notes = []
    if missing[:2] == ["prompt tokens", "completion tokens"]:
        notes.append("usage not reported, estimated by length")
    elif missing:
        notes.append(f"{' and '.join(missing)} not reported, estimated by length")
    if reported.hidden_tokens:
        notes.append(f"{reported.hidden_tokens} hidden tokens counted as completion")
    cached = min(reported.cached_prompt_tokens or 0, prompt)
    return Usage(prompt, completion, cached, min(reasoning or 0, completion)), notes


def billed(cards: Iterable[Card], query: str, reply: Reply) -> Reply:
    """`reply`, with tokens and price estimated if it is a text of a priced candidate that cost nothing.

    Calls recorded by other programs or older versions hold such replies. They would win every
    comparison of costs, and later stages refuse them.
    """
    card = next((card for card in cards if card.name == reply.model), None)
    if card is None or is_free(card) or reply.failure is not None or not reply.text.strip():
        return reply
    if reply.prompt_tokens and reply.completion_tokens and reply.cost_usd:
        return reply
    reported = Reported(
        reply.prompt_tokens,
        reply.completion_tokens,
        reply.cached_prompt_tokens,
        reply.reasoning_tokens or None,
    )
    usage, notes = estimated(reported, query, reply.text, reply.thoughts)
    return replace(
        reply,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost_usd=reply.cost_usd or usage_usd(card, usage),
        note="; ".join(filter(None, [reply.note, *notes, "cost by the prices of the card"])),
    )


def reported_cost_usd(usage: object, headers: Mapping[str, str]) -> float | None:
    """What the server says the call costs, in USD; None where it says nothing usable.

    OpenRouter and LiteLLM state USD in `usage.cost` or a header, Perplexity an object with
    `total_cost`, DeepInfra `estimated_cost`, xAI ticks. With a provider's own key OpenRouter bills its fee,
    and the provider bills the rest.
    """
    found: object = None
    upstream = 0.0
    if isinstance(usage, Mapping):
        found = next((usage[key] for key in _COST if usage.get(key) is not None), None)
        if isinstance(found, Mapping):
            if str(found.get("currency", "USD")).upper() != "USD":
                return None
            found = found.get("total_cost", found.get("total"))
        if found is None and (ticks := _amount(usage.get("cost_in_usd_ticks"))) is not None:
            found = ticks / _TICKS_PER_USD
        details = usage.get("cost_details")
        if usage.get("is_byok") is True and isinstance(details, Mapping):
            upstream = _amount(details.get("upstream_inference_cost")) or 0.0
    if found is None:
        found = headers.get("x-litellm-response-cost")
    amount = _amount(found)
    return None if amount is None or amount > _MOST_USD else amount + upstream


def _cache_apart(
    usage: Mapping[str, object], prompt: int, completion: int | None, total: int | None
) -> int:
    """Tokens read from or written to a cache that the prompt's count leaves out.

    Bedrock's `inputTokens` leaves them out, and Anthropic's `input_tokens` where no total says otherwise.
    """
    cache = (_first(usage, _APART) or 0) + (_first(usage, _WRITTEN) or 0)
    if "inputTokens" in usage:
        return cache
    if total is not None and completion is not None:
        return cache if total == prompt + cache + completion else 0
    return cache if "input_tokens" in usage and "input_tokens_details" not in usage else 0


def _inner(usage: Mapping[str, object], names: Iterable[str]) -> list[Mapping[str, object]]:
    return [found for name in names if isinstance(found := usage.get(name), Mapping)]


def _first(
    places: Mapping[str, object] | Iterable[Mapping[str, object]], names: Iterable[str]
) -> int | None:
    """The first count found under any of the names."""
    where = [places] if isinstance(places, Mapping) else places
    found = (_count(place.get(name)) for place in where for name in names)
    return next((count for count in found if count is not None), None)


def _count(value: object) -> int | None:
    number = _amount(value)
    if number is None or number > _MOST_TOKENS or number != int(number):
        return None
    return int(number)


def _amount(value: object) -> float | None:
    """A finite number of at least 0, also as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and _GROUPED.fullmatch(value):
        value = value.replace(",", "")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None
