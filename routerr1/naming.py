"""Names that anybody gave, made fit for places that do not take every character."""

import re
import unicodedata
from collections.abc import Iterable

IN_CALL = re.compile(r"[:<>]")
"""Not in the name of a call: the first colon ends it, and brackets are the protocol's."""
IN_KEY = re.compile(r"[^\w. -]|^[. -]|[. -]$")
"""Not in a metric of MLflow, a column, a file or a CSS class."""
_LONGEST = 64


def fit_names(names: Iterable[str], unfit: re.Pattern[str]) -> dict[str, str]:
    """Each name -> what stands for it where `unfit` characters are not allowed.

    A name that fits stays as it is. Two results always differ in more than case, so that files and
    databases that ignore case keep them apart; a number tells equal ones apart.

    >>> fit_names(["Atlas", "Goliath (big)", "goliath big", "Qwen/Qwen2.5-7B:free"], IN_KEY)
    {'Atlas': 'Atlas', 'Goliath (big)': 'Goliath -big', 'goliath big': 'goliath big', 'Qwen/Qwen2.5-7B:free': 'Qwen-Qwen2.5-7B-free'}
    >>> fit_names(["gpt", "GPT", "<b>", "🦙"], IN_KEY)
    {'gpt': 'gpt', 'GPT': 'GPT-2', '<b>': 'model b', '🦙': 'model'}
    """
    given = list(dict.fromkeys(names))
    wanted = {name: _fit(name, unfit) for name in given}
    found: dict[str, str] = {}
    taken: set[str] = set()
    # Names that fit come first: no other name takes theirs.
    for name in sorted(given, key=lambda name: wanted[name] != name):
        fit, number = wanted[name], 1
        while fit.casefold() in taken:
            number += 1
            fit = f"{wanted[name]}-{number}"
        taken.add(fit.casefold())
        found[name] = fit
    return {name: found[name] for name in given}


def _fit(name: str, unfit: re.Pattern[str]) -> str:
    if len(name) <= _LONGEST and name.isprintable() and not unfit.search(name):
        return name
    plain = unicodedata.normalize("NFKC", name)
    visible = "".join(char if char.isprintable() else "-" for char in plain)
    joined = re.sub(r"--+", "-", unfit.sub("-", visible))[:_LONGEST].strip(" .-")
    # A question that holds the name of its model breaks the format, and one may hold any short word.
    return joined if len(joined) > 3 else f"model {joined}".strip()
