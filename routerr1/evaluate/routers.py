"""How routers are named in rows and tables."""

from typing import Literal, NamedTuple

Kind = Literal["control", "fixed", "baseline", "swept"]

_PREFIXES: dict[Kind, str] = {"fixed": "fixed/", "baseline": "baseline/", "swept": "alpha="}


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
