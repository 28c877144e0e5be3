"""What calls cost, known and at worst, in US dollars."""

import math

from routerr1.types import Card

# Chat templates wrap a message in role markers and, with some models, a default system text.
TEMPLATE_TOKENS = 128


def cost_usd(card: Card, prompt_tokens: int, completion_tokens: int) -> float:
    """The price of one call by its card."""
    return (
        prompt_tokens * card.prompt_usd_per_mtok + completion_tokens * card.completion_usd_per_mtok
    ) / 1e6


def tokens_by_length(text: str) -> int:
    """Where nobody counted them: about four bytes to a token, as is usual for English."""
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / 4)


def most_prompt_tokens(query: str) -> int:
    """No fewer than the tokens of `query` as a prompt: a token of any text tokenizer is at least a byte."""
    return len(query.encode("utf-8", "surrogatepass")) + TEMPLATE_TOKENS


def worst_case_usd(card: Card, query: str, max_reply_tokens: int) -> float:
    """The most one try can cost."""
    return cost_usd(card, most_prompt_tokens(query), max_reply_tokens)
