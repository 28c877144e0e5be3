"""What serving a version changes in the parameters that it was trained with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from routerr1.config import BudgetParams, Params, explain
from routerr1.errors import ConfigError, PoolError
from routerr1.files import read_json
from routerr1.types import Card

TOPICS = "topics.json"
"""File of a version's context: the questions that it learned from, each with its topic."""
MATRIX = "matrix.parquet"
"""In the context of a policy that looks questions up: the probes that its figures rest on."""


def as_served(
    params: Params, *, pool: Path | None, packed: Path, prompt: Path, budget: Mapping[str, Any]
) -> Params:
    """The parameters of training with serving's own files and limits, and with live calls.

    Args:
        pool: a pool file that takes the place of the version's own; a simulated pool then becomes an http
            one.
        packed: the version's own pool file.
        budget: limits that differ from those of training.

    Raises: ConfigError for an invalid budget.
    """
    own = params.pool
    try:
        limits = BudgetParams.model_validate({**own.budget.model_dump(), **budget})
    except ValidationError as error:
        raise ConfigError(f"model_config: budget: {explain(error)[1]}") from None
    kind = "http" if pool is not None else own.kind
    file = None if kind == "simulated" else pool or packed
    store = own.store if kind == "recorded" else None
    live = own.replace(kind=kind, file=file, calls="live", store=store, budget=limits, redraw=0.0)
    wording = params.prompt
    if wording.file is not None:
        wording = wording.replace(file=prompt)
    return params.replace(pool=live, prompt=wording)


def known_topics(context: Path) -> dict[str, str]:
    """Question -> topic of those that a version learned from; empty for a version that keeps none.

    Raises: DataError naming the file.
    """
    path = context / TOPICS
    found: dict[str, str] = read_json(path) if path.is_file() else {}
    return found


def check_cards(offered: Sequence[Card], needed: Sequence[Card]) -> None:
    """Confirm that the pool has every candidate that the policy may name.

    Raises: PoolError naming the missing cards.
    """
    missing = sorted({card.name for card in needed} - {card.name for card in offered})
    if missing:
        raise PoolError(
            f"the pool lacks {', '.join(missing)}, which the policy was trained to call"
        )
