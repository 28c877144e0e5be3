"""Separates thoughts that a model writes into its reply from the reply itself."""

import re

# Opening and closing marks of R1 and Qwen, Gemini, Magistral, Kimi, Seed-OSS, Command A, OpenThinker,
# MedGemma and Gemma 4.
_CLOSING = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "[think]": "[/think]",
    "◁think▷": "◁/think▷",
    "<seed:think>": "</seed:think>",
    "<|start_thinking|>": "<|end_thinking|>",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<unused94>thought": "<unused95>",
    "<|channel>thought": "<channel|>",
}
_ANYWHERE = ("<think>", "</think>")
_STARTING = (*_CLOSING, "</think>")
_MARK = re.compile(
    "|".join(re.escape(mark) for pair in _CLOSING.items() for mark in pair), re.IGNORECASE
)
# gpt-oss writes channels; a server that does not parse them passes them on as text. Possessive: a
# hostile reply must not make the search quadratic.
_CHANNEL = re.compile(
    r"<\|channel\|>(\w++)[^<]*+<\|message\|>(.*?)(?=<\|end\|>|<\|return\|>|<\|start\|>|\Z)",
    re.DOTALL,
)


# The same channels where a server leaves out their marks.
_UNMARKED = re.compile(r"analysis(?! )(.*?)assistantfinal(.*)", re.DOTALL)
# Marks around the reply of models whose marks of thoughts are above.
_FRAME = re.compile(r"<\|(?:(?:start|end)_response|(?:begin|end)_of_solution)\|>", re.IGNORECASE)


def split_thoughts(text: str, *, cut: bool = False) -> tuple[str, str]:
    """The reply without its thoughts, and the thoughts; linear in the length of `text`.

    `<think>` is a mark anywhere, the others only before anything else is said. A closing `</think>`
    without an opening one ends thoughts that the chat template began. An opening mark that is never
    closed begins thoughts only if the reply was cut.

    Args:
        cut: the model was stopped by its token limit.

    >>> split_thoughts("<think>Lyon? No.</think>Paris.")
    ('Paris.', 'Lyon? No.')
    >>> split_thoughts("It is easy.</think>Paris.")
    ('Paris.', 'It is easy.')
    >>> split_thoughts("Paris.")
    ('Paris.', '')
    """
    if channels := _CHANNEL.findall(text):
        final = [words for channel, words in channels if channel == "final"]
        others = [words for channel, words in channels if channel != "final"]
        return "".join(final).strip(), _joined(others)
    if unmarked := _UNMARKED.fullmatch(text.strip()):
        return unmarked[2].strip(), unmarked[1].strip()
    said: list[str] = []
    thoughts: list[str] = []
    opened: re.Match[str] | None = None
    place, spoken, stray = 0, False, False
    for mark in _MARK.finditer(text):
        name = mark[0].lower()
        if opened is not None and name != _CLOSING[opened[0].lower()]:
            continue
        if opened is None and name not in (_ANYWHERE if spoken else _STARTING):
            continue
        before = text[place : mark.start()]
        if opened is not None:
            thoughts.append(before)
            opened, stray = None, False
        elif name == "</think>":
            thoughts.append("".join([*said, before]))
            said, spoken, stray = [], False, True
        else:
            said.append(before)
            spoken = spoken or bool(before.strip())
            if spoken and name != "<think>":
                place = mark.start()
                continue
            opened = mark
        place = mark.end()
    if opened is not None and cut:
        thoughts.append(text[place:])
    else:
        # A mark that opens the reply and is never closed is noise; further on it may be quoted.
        said.append(text[opened.start() if opened is not None and spoken else place :])
    if stray and not "".join(said).strip():  # a closing mark that ends the reply ends no thoughts
        said = [thoughts.pop()]
    return (_FRAME.sub("", "".join(said)).strip() if place else text), _joined(thoughts)


def without_thoughts(text: str) -> str:
    """The reply without its thoughts; as it is if it holds nothing else."""
    return split_thoughts(text)[0] or text


def _joined(thoughts: list[str]) -> str:
    return "\n".join(filter(None, (thought.strip() for thought in thoughts)))
