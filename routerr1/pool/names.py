"""Made-up names for candidates that are drawn or renamed."""

_FAMILIES = ("Atlas", "Mint", "Curie", "Goliath", "Scout", "Penny", "Basil", "Cobra", "Drake", "Fargo", "Gecko",
             "Hawk", "Iris", "Jasper", "Koala", "Lotus", "Mango", "Nimbus", "Otter", "Piper", "Raven", "Sirius",
             "Tango", "Umbra")  # fmt: skip
_VARIANTS = ("Arc", "Bay", "Cove", "Dune", "Elm", "Fen", "Glen", "Hill", "Isle", "Jade", "Knoll",
             "Lake")  # fmt: skip


def _names(held_out: bool) -> tuple[str, ...]:
    """Family and variant, as real models are named; one pair in six is held out of training."""
    return tuple(
        family + variant
        for i, family in enumerate(_FAMILIES)
        for j, variant in enumerate(_VARIANTS)
        if ((i + j) % 6 == 0) is held_out
    )


TRAINING_NAMES = (*_FAMILIES[:6], *_names(held_out=False))
"""Names that training may show; those of the simulated pools come first."""
UNSEEN_NAMES = _names(held_out=True)
"""Names that no training shows."""


def family_of(name: str) -> str:
    """The family in a name; another name is its own family."""
    return next((family for family in _FAMILIES if name.startswith(family)), name)
