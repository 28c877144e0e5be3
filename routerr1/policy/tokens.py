"""Prompts, inserted text and truncation in a policy's own tokens."""

from typing import Any

from routerr1.errors import CheckpointError

_DAY = "26 Jul 2024"  # the default of the Llama 3 chat template
_AS_TEXT = {"add_special_tokens": False, "split_special_tokens": True}


def encode_prompt(tokenizer: Any, prompt: str, *, chat: bool) -> list[int]:
    """Token ids of a prompt; its only special tokens are those of the chat template.

    Args:
        chat: wrap the prompt as a user's turn in the tokenizer's chat template.

    Raises: CheckpointError if `chat` is set and the tokenizer has no chat template.
    """
    if not chat:
        return encode_text(tokenizer, prompt)
    if not tokenizer.chat_template:
        raise CheckpointError(
            f"{tokenizer.name_or_path}: has no chat template; set prompt.chat to false"
        )
    # Some templates (Llama 3) write today's date into the prompt; a fixed date keeps runs equal.
    ids: list[int] = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, date_string=_DAY,
        sanitize_control_tokens=True, return_dict=False,
    )  # fmt: skip
    return ids


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of untrusted text: what looks like a special token is encoded as plain text."""
    ids: list[int] = tokenizer(text, **_AS_TEXT)["input_ids"]
    return ids


def truncate(tokenizer: Any, text: str, max_tokens: int) -> str:
    """Longest prefix of `text` that encodes to at most `max_tokens` tokens."""
    offsets = tokenizer(text, **_AS_TEXT, return_offsets_mapping=True)["offset_mapping"]
    return text if len(offsets) <= max_tokens else text[: offsets[max_tokens][0]]
