"""What calls cost, known and at worst, in US dollars."""

import math

from routerr1.types import Card, Reply, Usage

# Chat templates wrap a message in role markers and, with some models, a default system text.
TEMPLATE_TOKENS = 128
TOKEN_BYTES = 4  # as is usual for English


def cost_usd(
    card: Card,
    prompt_tokens: int,
    completion_tokens: int,
    *,
    cached_prompt_tokens: int = 0,
    reasoning_tokens: int = 0,
) -> float:
    """The price of one call by its card.

    >>> card = Card("One", prompt_usd_per_mtok=2.0, completion_usd_per_mtok=8.0, cached_prompt_usd_per_mtok=0.5)
    >>> cost_usd(card, 1_000_000, 500_000, cached_prompt_tokens=400_000)
    5.4
    """
    cached_price, reasoning_price = card.cached_prompt_usd_per_mtok, card.reasoning_usd_per_mtok
    if cached_price is None:
        cached_price = card.prompt_usd_per_mtok
    if reasoning_price is None:
        reasoning_price = card.completion_usd_per_mtok
    prompt_usd = (prompt_tokens - cached_prompt_tokens) * card.prompt_usd_per_mtok
    said = (completion_tokens - reasoning_tokens) * card.completion_usd_per_mtok
    apart = cached_prompt_tokens * cached_price + reasoning_tokens * reasoning_price
    return (prompt_usd + said + apart) / 1e6 + card.request_usd


def reply_usd(card: Card, reply: Reply) -> float:
    """The price of one reply by its card, as if one try made it."""
    return usage_usd(
        card,
        Usage(
            reply.prompt_tokens,
            reply.completion_tokens,
            reply.cached_prompt_tokens,
            reply.reasoning_tokens,
        ),
    )


def prices_of(card: Card) -> tuple[float | None, ...]:
    """Everything that decides what a call costs by its card."""
    return (
        card.prompt_usd_per_mtok,
        card.completion_usd_per_mtok,
        card.cached_prompt_usd_per_mtok,
        card.reasoning_usd_per_mtok,
        card.request_usd,
    )


def tokens_by_length(text: str) -> int:
    """An estimate where no count is known."""
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / TOKEN_BYTES)


def usage_usd(card: Card, usage: Usage) -> float:
    """The price of one call by its card."""
    return cost_usd(
        card,
        usage.prompt_tokens,
        usage.completion_tokens,
        cached_prompt_tokens=usage.cached_prompt_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )


def is_free(card: Card) -> bool:
    """True if no call of this candidate costs anything by its card."""
    prices = (
        card.prompt_usd_per_mtok,
        card.completion_usd_per_mtok,
        card.reasoning_usd_per_mtok,
        card.request_usd,
    )
    return not any(prices)


def most_prompt_tokens(query: str) -> int:
    """No fewer than the tokens of `query` as a prompt: a token of any text tokenizer is at least a byte."""
    return len(query.encode("utf-8", "surrogatepass")) + TEMPLATE_TOKENS


def worst_case_usd(card: Card, query: str, max_reply_tokens: int) -> float:
    """The most one try can cost, wherever its tokens are counted."""
    prompt_tokens = most_prompt_tokens(query)
    dearer_prompt = (card.cached_prompt_usd_per_mtok or 0.0) > card.prompt_usd_per_mtok
    dearer_thoughts = (card.reasoning_usd_per_mtok or 0.0) > card.completion_usd_per_mtok
    return cost_usd(
        card,
        prompt_tokens,
        max_reply_tokens,
        cached_prompt_tokens=prompt_tokens if dearer_prompt else 0,
        reasoning_tokens=max_reply_tokens if dearer_thoughts else 0,
    )
