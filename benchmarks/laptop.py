"""Accuracy, cost and common errors of the recorded candidates of pools/laptop.yaml. Prints Markdown.

    python -m benchmarks.laptop > docs/results/laptop.md

Everything is computed from the committed store, and no model runs. A reply is right if it contains
a reference answer (`pool.profile.contains_gold`). Choices (best single candidate, best by topic,
order of a cascade) are made on training questions and judged on test questions.
"""

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from benchmarks import shared
from routerr1.config import load_params
from routerr1.data.embedded import TOPICS, Step, World, build_world, questions
from routerr1.laptop.books import passages, read_facts
from routerr1.pool.pool_file import PoolFile, read_pool_file
from routerr1.pool.pricing import cost_usd
from routerr1.pool.profile import contains_gold, wilson
from routerr1.pool.recorded import Store, StoredReply, read_store
from routerr1.types import Question

POOL = Path("pools/laptop.yaml")
STORE = Path("pools/laptop/replies.jsonl.gz")
REFUSAL = "not in my notes"
# The figures that need the models: second recordings of a part of the questions, compared with the store.
AGAIN = (
    "Two second recordings were compared with the store word by word. On the same day and machine, 151 "
    "of 154 replies to 14 questions were equal. On 2026-11-30, with eight and then three calls at a time, "
    "395 of 410 replies to the first 40 questions were equal: .963 [.941, .978], and one of the 15 others "
    "changed from wrong to right or back. Asked alone, these 15 said the same twice, 2 of them as in the "
    "store: what is computed beside a call can flip a token. Desks repeated 246 of 250 replies, and models without "
    "notes 149 of 160. `routerr1 pool record --at-once 1` asks a server one question at a time."
)


@dataclass(frozen=True)
class Asked:
    """One question and what every candidate said to it."""

    question: Question
    replies: dict[str, StoredReply]

    def right(self, name: str) -> bool:
        return contains_gold(self.replies[name].text, self.question.golden_answers) == 1.0

    def refused(self, name: str) -> bool:
        return REFUSAL in self.replies[name].text.lower()

    @property
    def topic(self) -> str:
        return str(self.question.metadata["topic"])


def asked_of(store: Store, names: Sequence[str], rows: Iterable[Question]) -> list[Asked]:
    """The questions that every candidate has a reply to."""
    found = []
    for row in rows:
        replies = {name: store.find(name, row.question) for name in names}
        whole = {name: reply for name, reply in replies.items() if reply is not None}
        if len(whole) == len(names):
            found.append(Asked(row, whole))
    return found


def share(rows: Sequence[Asked], holds: Callable[[Asked], bool]) -> float:
    return sum(map(holds, rows)) / len(rows)


def right(name: str) -> Callable[[Asked], bool]:
    return lambda asked: asked.right(name)


def refused(name: str) -> Callable[[Asked], bool]:
    return lambda asked: asked.refused(name)


def last_is_right(path: Callable[[Asked], list[str]]) -> Callable[[Asked], bool]:
    return lambda asked: asked.right(path(asked)[-1])


def interval(rows: Sequence[Asked], holds: Callable[[Asked], bool]) -> str:
    """`share [low, high]`; every phrasing of a fact counts."""
    low, high = wilson(sum(map(holds, rows)), len(rows))
    return f"{share(rows, holds):.3f} [{low:.3f}, {high:.3f}]"


def usd(file: PoolFile, asked: Asked, name: str) -> float:
    card = next(card for card in file.cards if card.name == name)
    reply = asked.replies[name]
    return cost_usd(card, reply.prompt_tokens, reply.completion_tokens)


def candidates_table(file: PoolFile, rows: Sequence[Asked], names: Sequence[str]) -> str:
    """Accuracy by topic, refusals, tokens and price."""
    lines = []
    for name in names:
        by_topic = [
            f"{share([each for each in rows if each.topic == topic], right(name)):.2f}"
            for topic in TOPICS
        ]
        tokens = statistics.mean(each.replies[name].prompt_tokens for each in rows)
        said = statistics.mean(each.replies[name].completion_tokens for each in rows)
        price = 1000 * statistics.mean(usd(file, each, name) for each in rows)
        lines.append([
            name + (" (held out)" if name in file.held_out else ""),
            interval(rows, right(name)),
            *by_topic,
            f"{share(rows, refused(name)):.2f}",
            f"{tokens:.0f} + {said:.0f}",
            f"{price:.4f}",
        ])  # fmt: skip
    head = ["candidate", "right", *TOPICS, "refuses", "tokens", "USD per 1000 calls"]
    return shared.table(head, lines)


def statement(world: World, asked: Asked) -> str:
    """The fact that a one-hop question asks for, as a sentence of the file of facts."""
    step = Step(*asked.question.metadata["group"].split(":", 1))
    return world.relations[step.relation].statement.format(step.subject, world.facts[step])


def desks_table(file: PoolFile, world: World, rows: Sequence[Asked]) -> str:
    """For each desk: right where its notes hold the fact, where they lack it, and on other topics."""
    assert file.servers is not None
    lines = []
    for row in file.candidates:
        server = file.servers.desks[row.endpoint]
        book = server.desks[row.model].book
        if book is None:
            continue
        held = set(passages(book, read_facts(file.path.parent / server.facts)))
        own = [each for each in rows if each.topic in book.topics]
        there = [each for each in own if statement(world, each) in held]
        lacking = [each for each in own if statement(world, each) not in held]
        others = [each for each in rows if each.topic not in book.topics]
        lines.append([
            row.name,
            ", ".join(book.topics),
            *(f"{share(part, right(row.name)):.2f}" for part in (there, lacking, others)),
            *(f"{share(part, refused(row.name)):.2f}" for part in (lacking, others)),
            f"{1000 * statistics.mean(usd(file, each, row.name) for each in there):.4f}",
        ])  # fmt: skip
    head = [
        "desk", "notes on", "right: in its notes", "not in them", "other topics",
        "refuses: not in them", "other topics", "USD per 1000 calls, in its notes",
    ]  # fmt: skip
    return shared.table(head, lines)


def alike(one: StoredReply, other: StoredReply) -> bool:
    """True if one reply is part of the other as whole words."""
    return bool(contains_gold(one.text, (other.text,)) or contains_gold(other.text, (one.text,)))


def agreement(
    rows: Sequence[Asked], orders: dict[str, list[str]]
) -> tuple[list[Asked], list[Asked]]:
    """(questions on which the two best of the topic say the same, those on which they differ); without refusals."""
    same: list[Asked] = []
    differ: list[Asked] = []
    for asked in rows:
        one, other = orders[asked.topic][:2]
        if asked.refused(one) or asked.refused(other):
            continue
        (same if alike(asked.replies[one], asked.replies[other]) else differ).append(asked)
    return same, differ


def orders_of(rows: Sequence[Asked], names: Sequence[str]) -> dict[str, list[str]]:
    """For each topic, the candidates from the best to the worst."""
    return {
        topic: sorted(
            names, key=lambda name: -share([a for a in rows if a.topic == topic], right(name))
        )
        for topic in TOPICS
    }


def routing_table(
    file: PoolFile, train: Sequence[Asked], test: Sequence[Asked], names: Sequence[str]
) -> str:
    """Simple routers on single facts: chosen on `train`, judged on `test`."""

    best = max(names, key=lambda name: share(train, right(name)))
    orders = orders_of(train, names)

    def by_topic(asked: Asked) -> list[str]:
        return orders[asked.topic][:1]

    def again(count: int) -> Callable[[Asked], list[str]]:
        def path(asked: Asked) -> list[str]:
            order, calls = orders[asked.topic], 1
            while asked.refused(order[calls - 1]) and calls < count:
                calls += 1
            return order[:calls]

        return path

    def verified(count: int) -> Callable[[Asked], list[str]]:
        """The next one until a reply is right."""

        def path(asked: Asked) -> list[str]:
            order = orders[asked.topic][:count]
            found = next((place for place, name in enumerate(order) if asked.right(name)), None)
            return order if found is None else order[: found + 1]

        return path

    def agreed(asked: Asked) -> list[str]:
        """Replies to the first that repeats an earlier one; after three different ones, the first again."""
        called: list[str] = []
        said: list[str] = []
        for name in orders[asked.topic]:
            called.append(name)
            if asked.refused(name):
                continue
            if any(alike(asked.replies[name], asked.replies[other]) for other in said):
                return called
            said.append(name)
            if len(said) == 3:
                break
        first = (said or called)[0]
        return [*(name for name in called if name != first), first]

    def oracle(asked: Asked) -> list[str]:
        knowing = [name for name in names if asked.right(name)]
        return [min(knowing or names, key=lambda name: usd(file, asked, name))]

    routers: dict[str, Callable[[Asked], list[str]]] = {
        "oracle: the cheapest candidate that is right": oracle,
        "best of its topic; the next one after a refusal, at most 3 calls": again(3),
        "best of its topic; the next one after a refusal, at most 2 calls": again(2),
        "best of its topic": by_topic,
        "best of its topic; the next one until a reply is right, at most 2 calls": verified(2),
        "best of its topic; the next one until a reply is right, at most 3 calls": verified(3),
        "best of its topic and on, until two say the same, at most 3 answers": agreed,
        f"best single candidate ({best})": lambda _: [best],
    }
    lines = []
    for label, path in routers.items():
        calls = statistics.mean(len(path(asked)) for asked in test)
        price = statistics.mean(
            sum(usd(file, asked, name) for name in path(asked)) for asked in test
        )
        lines.append([
            label,
            interval(test, last_is_right(path)),
            f"{calls:.2f}",
            f"{1000 * price:.4f}",
        ])  # fmt: skip
    mean = statistics.mean(share(test, right(name)) for name in names)
    lines.append(["random candidate", f"{mean:.3f}", "1.00", ""])
    return shared.table(["router", "right", "calls", "USD per 1000 questions"], lines)


def correlation_table(rows: Sequence[Asked], names: Sequence[str]) -> tuple[str, float]:
    """Pearson's correlation of being right, over the pairs of candidates; and its mean."""
    marks = np.array([[each.right(name) for each in rows] for name in names], dtype=float)
    matrix = np.corrcoef(marks)
    lines = [
        [name, *("" if j >= i else f"{matrix[i, j]:.2f}" for j in range(len(names) - 1))]
        for i, name in enumerate(names)
        if i
    ]
    pairs = [matrix[i, j] for i, j in combinations(range(len(names)), 2)]
    return shared.table(["candidate", *names[:-1]], lines), float(np.mean(pairs))


def wrong_alike(rows: Sequence[Asked], names: Sequence[str]) -> tuple[int, int]:
    """(pairs of wrong replies that are no refusals and equal, all such pairs) of different candidates."""
    same = total = 0
    for asked in rows:
        wrong = [
            asked.replies[name].text.strip(" .").lower()
            for name in names
            if not asked.right(name) and not asked.refused(name)
        ]
        for one, other in combinations(wrong, 2):
            total += 1
            same += one == other
    return same, total


def say(text: str) -> None:
    """Print Markdown, its paragraphs wrapped."""
    for paragraph in text.strip().split("\n\n"):
        print(shared.wrapped(" ".join(paragraph.split()), hyphens=False), end="\n\n")


def main() -> None:
    """Print the page."""
    file, store = read_pool_file(POOL), read_store(STORE)
    section = load_params(Path("params.yaml")).dataset
    world = build_world(section.embedded)
    every = questions(world, section.embedded, section.seed)
    names = [card.name for card in file.cards]
    trained = [name for name in names if name not in file.held_out]
    facts = asked_of(store, names, [row for row in every if row.hops == 1])
    whole = asked_of(store, names, [row for row in every if row.hops == 2])
    by_split: dict[str, list[Asked]] = defaultdict(list)
    for each in facts:
        by_split[each.question.split].append(each)
    provenance = json.loads(STORE.with_suffix("").with_suffix(".provenance.json").read_text())
    say(f"""# Real models on a laptop

{len(names)} candidates on four open models, with recorded replies and no simulation. Seven of them
are *desks*: a model with a book of notes in front of it. `pools/laptop.yaml` is the pool file and
`pools/laptop/README.md` the data card. The store was recorded on {provenance["recorded"]}
({provenance["server"]}; {provenance["machine"]}).

A reply is right if it contains a reference answer. Brackets are Wilson intervals of 95 % over
questions. The phrasings of one fact count as questions of their own, so the true intervals are wider.

{AGAIN}

`python -m benchmarks.laptop > docs/results/laptop.md` prints this page from the committed store.

## Candidates

{len(facts)} questions for a single fact ({", ".join(f"{split} {len(rows)}" for split, rows in sorted(by_split.items()))}) have a reply of
every candidate. *right* and the columns of topics are shares of right replies. *refuses* is the share
of replies that say that the notes hold nothing. *tokens* are means of prompt and reply. A desk with a `least_score` refuses by itself when its search finds nothing, at no cost.
""")
    print(candidates_table(file, facts, names), end="\n\n")
    shown = ", ".join(f"{name} for {topic}" for topic, name in best_of(facts, names).items())
    say(f"\nBest of each topic: {shown}.\n")
    say("""## What each desk is good for

A desk is good where its notes hold the fact. Where they lack it, the desks on Qwen-0.5B mostly refuse, and the
cheap ones guess. Right on other topics is what the model knows by itself.
""")
    print(desks_table(file, world, facts), end="\n\n")
    if whole:
        print(
            f"## Two facts asked at once\n\n{len(whole)} questions that need two facts, asked whole.\n"
        )
        lines = [[name, interval(whole, right(name))] for name in names]
        print(shared.table(["candidate", "right"], lines), end="\n\n")
    train, test = by_split["train"], by_split["test"]
    say(f"""## What routing can gain

Chosen on {len(train)} training questions, judged on {len(test)} test questions for single facts, among
the {len(trained)} candidates that training may use.
""")
    print(routing_table(file, train, test, trained), end="\n\n")
    orders = orders_of(train, trained)
    same_said, differing = agreement(test, orders)

    def top(asked: Asked) -> bool:
        return asked.right(orders[asked.topic][0])

    same, total = wrong_alike(facts, names)
    correlations, mean = correlation_table(facts, names)
    nobody = share(facts, lambda a: not any(a.right(name) for name in names))
    say(f"""
No router that returns the reply of one candidate can be above the oracle. The rows *after a refusal*
show what it gains to notice a reply that cannot help.

## What verification buys

The rows *until a reply is right* have a verifier that never errs: an upper bound. Agreement is a verifier that can be
had. Where the two best of a topic answer and say the same, {share(same_said, top):.3f} of the first replies are right
({len(same_said)} test questions). Where they differ, {share(differing, top):.3f} are right ({len(differing)}).

## How often they err alike

Correlation of being right, {len(facts)} questions. The mean over pairs is {mean:.2f}: candidates fail on
different questions, because the desks have notes on different topics. Models without notes err more
alike. On {nobody:.3f} of the questions every candidate is wrong. Of {total} pairs of wrong
replies that are no refusals, {same / total:.3f} say the same words.
""")
    print(correlations)


def best_of(rows: Sequence[Asked], names: Sequence[str]) -> dict[str, str]:
    """Topic -> the candidate that is right most often."""
    found = {}
    for topic in TOPICS:
        own = [asked for asked in rows if asked.topic == topic]
        shares = {name: share(own, right(name)) for name in names}
        found[topic] = max(shares, key=shares.__getitem__)
    return found


if __name__ == "__main__":
    main()
