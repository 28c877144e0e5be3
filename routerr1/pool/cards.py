"""Cards on disk: data/pool/cards.json, one object per candidate in the order the prompt shows them."""

import dataclasses
import difflib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from routerr1.errors import DataError, PoolError
from routerr1.files import read_json, write_json
from routerr1.types import Card, Kept

# Characters that turn the direction of all that follows, also of the line around a name.
_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def _printable(name: str) -> str:
    """Joiners and other format characters are a part of some scripts and emoji."""
    hidden = any(
        unicodedata.category(char) in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp")
        or unicodedata.bidirectional(char) in _TURNING
        for char in name
    )
    if hidden or not name or name.strip() != name or not any(char.isprintable() for char in name):
        raise ValueError("must be printable, on one line, and not begin or end with a space")
    return name


Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
# Any printable name; calls show it by its handle (`protocol.handles`).
Name = Annotated[str, AfterValidator(_printable)]
# A call is written `Name: question` between tags, so an alias can hold neither a colon nor a bracket.
Alias = Annotated[str, Field(min_length=1, pattern=r"^[^:<>\s]([^:<>\r\n]*[^:<>\s])?$")]
Row = TypeVar("Row", bound=BaseModel)
_ROUNDING = 0.0011  # of two shares of three digits


class CardRow(BaseModel):
    """One card as it is written; the fields are those of `types.Card`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    description: str = ""
    aliases: tuple[Alias, ...] = ()
    prompt_usd_per_mtok: Amount = 0.0
    completion_usd_per_mtok: Amount = 0.0
    latency_s: Amount | None = None
    latency_p95_s: Amount | None = None
    performance: dict[str, Share] = Field(default_factory=dict)
    prompt_tokens: Amount | None = None
    completion_tokens: Amount | None = None
    size_b: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    cached_prompt_usd_per_mtok: Amount | None = None
    reasoning_usd_per_mtok: Amount | None = None
    request_usd: Amount = 0.0
    reply: Kept = "first"
    unsure: dict[str, Share] = Field(default_factory=dict)

    @field_validator("unsure")
    @classmethod
    def _beside_the_right_ones(
        cls, unsure: dict[str, float], info: ValidationInfo
    ) -> dict[str, float]:
        rights = {name.lower(): right for name, right in info.data.get("performance", {}).items()}
        for topic, share in unsure.items():
            right = rights.get(topic.lower(), 0.0)
            if right + share > 1 + _ROUNDING:
                raise ValueError(
                    f"{share} of the replies on {topic!r} are not sure and {right} are right (performance), more "
                    "than all; a right reply does not count as not sure"
                )
        return unsure


def read_cards(path: Path) -> list[Card]:
    """The cards in `path`.

    Raises: PoolError naming the file and, where there is one, the candidate and key at fault.
    """
    try:
        rows = read_json(path)
    except DataError as error:
        raise PoolError(str(error)) from None
    if not isinstance(rows, list) or not rows:
        raise PoolError(f"{path}: must hold a list of at least one card")
    cards = [Card(**parse_entry(CardRow, row, path, i).model_dump()) for i, row in enumerate(rows)]
    refuse_shared_names(cards, path)
    return cards


def write_cards(path: Path, cards: Sequence[Card]) -> None:
    """Write `cards` so that equal cards give equal bytes.

    Raises: PoolError if two of them could be meant by one name.
    """
    refuse_shared_names(cards, path)
    write_json(path, [_written(card) for card in cards])


# Left out where they say nothing, so that pools without them keep the digest they had.
_OPTIONAL = (
    "size_b",
    "cached_prompt_usd_per_mtok",
    "reasoning_usd_per_mtok",
    "request_usd",
    "reply",
    "unsure",
)


def _written(card: Card) -> dict[str, Any]:
    default = dataclasses.asdict(Card(card.name))
    return {
        name: value
        for name, value in dataclasses.asdict(card).items()
        if name not in _OPTIONAL or value != default[name]
    }


def parse_entry(row_type: type[Row], row: Any, path: Path, index: int) -> Row:
    """Validate one candidate's entry.

    Raises: PoolError naming the file, the candidate (or its position, if it has no name) and the key.
    """
    named = isinstance(row, Mapping) and isinstance(row.get("name"), str) and row["name"].strip()
    who = f"candidate {row['name']!r}" if named else f"candidate number {index + 1}"
    try:
        return row_type.model_validate(row)
    except ValidationError as error:
        raise PoolError(f"{path}: {who}: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """`key: what is wrong with it`, of one thing pydantic found; never the value given.

    An unknown key comes first, because a misspelt key is also a missing one.
    """
    problems = error.errors(include_input=False, include_url=False)
    first = min(problems, key=lambda each: each["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        missing = [
            str(each["loc"][-1])
            for each in problems
            if each["type"] == "missing" and each["loc"][:-1] == first["loc"][:-1]
        ]
        near = difflib.get_close_matches(str(first["loc"][-1]), missing, n=1)
        return f"unknown key {key}" + "".join(f"; did you mean {name}?" for name in near)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "string_pattern_mismatch":
        message = "must not be blank, hold `:`, `<` or `>`, or begin or end with a space"
    return f"{key}: {message}" if key else message


def refuse_shared_names(cards: Iterable[Card | CardRow], path: Path) -> None:
    """Names must differ, and aliases, ignoring case, also from the names.

    Raises: PoolError naming the file, both candidates and the name.
    """
    offered = list(cards)
    owners: dict[str, str] = {}
    for card in offered:
        _own(owners, card.name, "name", card.name, card.name, path)
    owners = {name.lower(): owner for name, owner in owners.items()}
    for card in offered:
        for alias in card.aliases:
            _own(owners, alias.strip().lower(), "alias", alias, card.name, path)


def _own(
    owners: dict[str, str], key: str, kind: str, name: str, candidate: str, path: Path
) -> None:
    if key in owners:
        raise PoolError(
            f"{path}: candidate {candidate!r}: {kind} {name!r} already belongs to candidate "
            f"{owners[key]!r}; give it another"
        )
    owners[key] = candidate
