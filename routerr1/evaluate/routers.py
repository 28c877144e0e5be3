"""How routers are named in rows and tables."""

from collections.abc import Collection
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

Kind = Literal["control", "fixed", "baseline", "swept"]

_PREFIXES: dict[Kind, str] = {"fixed": "fixed/", "baseline": "baseline/", "swept": "alpha="}
LEARNED_ROUTERS = ("knn", "mlp", "bert", "router_dc", "graph_router", "frugal", "knn_multi_turn")
"""Baselines that choose a candidate by what they learned from the whole profile, without their variants."""


class RouterId(NamedTuple):
    """What kind of router, and which.

    Attributes:
        kind: `control` (the policy and what has its text), `fixed` (one candidate for every call),
            `baseline` (a router from the literature), `swept` (a policy for one cost weight).
        name: the control, the candidate, the baseline, or the cost weight.
    """

    kind: Kind
    name: str

    def __str__(self) -> str:
        """As in the column `router` of the rows."""
        return f"{_PREFIXES.get(self.kind, '')}{self.name}"

    @classmethod
    def parse(cls, text: str) -> "RouterId":
        """Inverse of `str`.

        >>> RouterId.parse("fixed/Atlas"), str(RouterId("swept", "0.3"))
        (RouterId(kind='fixed', name='Atlas'), 'alpha=0.3')
        """
        for kind, prefix in _PREFIXES.items():
            if text.startswith(prefix):
                return cls(kind, text.removeprefix(prefix))
        return cls("control", text)


def is_learned(router: str) -> bool:
    """True for a baseline that learned which candidate to choose.

    >>> is_learned("baseline/knn"), is_learned("baseline/largest"), is_learned("policy")
    (True, False, False)
    """
    kind, name = RouterId.parse(router)
    return kind == "baseline" and name in LEARNED_ROUTERS


def spelled_out(text: str, known: Collection[str]) -> str | None:
    """The router of `known` that a person means, who may leave out `baseline/` or `fixed/`; None if there is none.

    >>> spelled_out("knn", ["policy", "baseline/knn"]), spelled_out("mlp", ["policy"])
    ('baseline/knn', None)
    """
    names = (text, str(RouterId("baseline", text)), str(RouterId("fixed", text)))
    return next((name for name in names if name in known), None)


def nearest(name: str, known: Collection[str]) -> str:
    """The most similar name, compared whole and by its part after the last slash."""

    def likeness(other: str) -> float:
        parts = (other, other.rpartition("/")[2])
        return max(SequenceMatcher(None, name.lower(), part.lower()).ratio() for part in parts)

    return max(sorted(known), key=likeness)
