"""The profile stage: ask every candidate the probe questions, and write cards from the replies.

A candidate answers in sentences, so a probe is correct if the reply contains a gold answer as whole
words after normalisation. Exact match and token F1 of the whole reply are measured too.
"""

import asyncio
import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal, TypedDict

from routerr1.answers.short_answer import passes
from routerr1.errors import BudgetExceeded, DataError, PoolError, ungrouped
from routerr1.files import atomic_path, write_json
from routerr1.matching import Rule, contains, exact_match, token_f1
from routerr1.pool.base import Call, Pool
from routerr1.pool.cards import write_cards
from routerr1.pool.grading import Grade, compared, how_right
from routerr1.pool.recording import Recorder
from routerr1.pool.records import RecordStore
from routerr1.pool.tally import FailureTally
from routerr1.pool.thoughts import without_thoughts
from routerr1.types import BreakerState, Card, Failure, Question, Reply

MAX_OPEN_CALLS = 256


class ProbeRow(TypedDict):
    """A row of matrix.parquet: one question put to one candidate.

    The row holds the text of the question, because the question of an id can change later. `group` is
    the group of an evaluated row.
    """

    question_id: str
    dataset: str
    question: str
    golden_answers: list[str]
    topic: str
    group: str
    candidate: str
    answer: str
    correct: float
    em: float
    f1: float
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    latency_s: float
    retries: int
    failure: Failure | None
    breaker_state: BreakerState | None


@dataclass(frozen=True, slots=True)
class Profile:
    """The result of the probes.

    Attributes:
        rows: questions in the order given, each with the candidates in card order.
        cards: the pool's cards with measured latency, reply length and performance.
        summary: per candidate, accuracy with its 95 % interval and the number of probes.
    """

    rows: tuple[ProbeRow, ...]
    cards: tuple[Card, ...]
    summary: dict[str, Any]


def sample_probes(questions: Iterable[Question], probes: int, seed: int) -> list[Question]:
    """`probes` questions, spread evenly over topics (or data sets); all of them if there are fewer.

    If the data have `hops`, only questions of one fact are taken. The policy calls candidates with
    sub-questions, so the card describes that skill.
    """
    pool = list(questions)
    single = [question for question in pool if question.hops == 1]
    by_topic: dict[str, list[Question]] = defaultdict(list)
    for question in single or pool:
        by_topic[topic_of(question)].append(question)
    rng = Random(f"probes/{seed}")
    shuffled = {
        topic: rng.sample(by_topic[topic], len(by_topic[topic])) for topic in sorted(by_topic)
    }
    depth = max(map(len, shuffled.values()), default=0)
    turns = [
        rows[place] for place in range(depth) for rows in shuffled.values() if place < len(rows)
    ]
    return turns[:probes]


def topic_of(question: Question) -> str:
    """The key of a card's performance: the topic, or the data set of a question without topic."""
    return str(question.metadata.get("topic") or question.dataset)


def contains_gold(reply: str, golds: Sequence[str], rule: Rule = "squad") -> float:
    """1.0 if a gold answer is part of `reply` as whole words, else 0.0; see `matching.contains`.

    Its thoughts do not count: they name what the model does not answer, too.

    >>> contains_gold("The capital of France is Paris.", ["Paris"])
    1.0
    >>> contains_gold("It is Parisian.", ["Paris"])
    0.0
    """
    return contains(without_thoughts(reply), golds, rule)


def wilson(right: int, total: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953); (0, 1) of none.

    >>> [round(bound, 4) for bound in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    from scipy.stats import binomtest  # takes a second to import

    if total == 0:
        return 0.0, 1.0
    found = binomtest(right, total).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


async def profile(
    questions: Sequence[Question],
    pool: Pool,
    *,
    store: Path | None,
    max_rejected: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
    grade: Grade = compared,
) -> Profile:
    """Put every question to every candidate of `pool`, and make cards from the replies.

    Args:
        store: records the calls and answers them when the stage runs again, so that no call of a
            killed run is paid twice. Use one file per pool and parameters, outside DVC's outputs.
        max_rejected: share of the stored calls that may be damaged.
        progress: called with (calls done, calls in all) after every call.
        grade: of the replies to questions whose task takes one.

    Raises:
        BudgetExceeded: the budget refused a call; the replies so far are in the store.
        PoolError: there is no question or candidate, or a candidate answered none of its probes.
    """
    tally = FailureTally()
    rows = await probe(
        questions, pool, store=store, max_rejected=max_rejected, progress=progress, tally=tally,
        grade=grade,
    )  # fmt: skip
    return summarise(rows, pool.cards, tally)


async def probe(
    questions: Sequence[Question],
    pool: Pool,
    *,
    store: Path | None,
    max_rejected: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
    tally: FailureTally | None = None,
    grade: Grade = compared,
) -> tuple[ProbeRow, ...]:
    """The rows of `profile`; the rows of a candidate that never answers hold failed calls.

    Raises: BudgetExceeded as `profile`; PoolError if there is no question or candidate.
    """
    if not questions or not pool.cards:
        raise PoolError("profile: needs at least one probe question and one candidate")
    recorder = None
    if store is not None:
        recorder = Recorder(pool, RecordStore(store), max_rejected=max_rejected)
    asked: Pool = recorder or pool
    names = [card.name for card in pool.cards]
    total, done = len(questions) * len(names), 0
    slots = asyncio.Semaphore(MAX_OPEN_CALLS)

    async def ask(question: Question, name: str) -> ProbeRow:
        nonlocal done
        async with slots:
            reply = await asked.ask(Call(name, question.question))
        if tally is not None:
            tally.add(name, reply)
        if reply.model != name:  # a fallback's knowledge says nothing about this candidate
            reply = dataclasses.replace(reply, text="", failure="unavailable")
        answer = without_thoughts(reply.text)
        found = await grade(question, answer)
        done += 1
        if progress is not None:
            progress(done, total)
        return _row(question, name, reply, answer, found)

    try:
        with ungrouped():
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ask(q, name)) for q in questions for name in names]
    except BudgetExceeded as spent:
        raise BudgetExceeded(
            f"profile: budget spent after {done} of {total} calls: {spent}; "
            "raise pool.budget and run the stage again"
        ) from None
    finally:
        if recorder is not None:
            await recorder.finish()
    return tuple(task.result() for task in tasks)


def _row(question: Question, name: str, reply: Reply, answer: str, grade: float | None) -> ProbeRow:
    return {
        "question_id": question.id,
        "dataset": question.dataset,
        "question": question.question,
        "golden_answers": list(question.golden_answers),
        "topic": topic_of(question),
        "group": f"{question.dataset}/{question.metadata.get('group', question.id)}",
        "candidate": name,
        "answer": answer,
        "correct": how_right(question, answer, grade, whole_reply=True),
        "em": exact_match(answer, question.golden_answers, question.matching) if answer else 0.0,
        "f1": token_f1(answer, question.golden_answers, question.matching),
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "cost_usd": reply.cost_usd,
        "latency_s": reply.latency_s,
        "retries": reply.retries,
        "failure": reply.failure,
        "breaker_state": reply.breaker_state,
    }


def summarise(
    rows: Sequence[ProbeRow], cards: Sequence[Card], tally: FailureTally | None = None
) -> Profile:
    """Cards and summary from the matrix alone; a failed call counts as wrong and as failed.

    Args:
        tally: why calls failed, for the error of a candidate that never answered.

    Raises: PoolError naming a candidate that answered none of its probes.
    """
    by_candidate: dict[str, list[ProbeRow]] = defaultdict(list)
    for row in rows:
        by_candidate[row["candidate"]].append(row)
    filled, summary = [], {}
    for card in cards:
        mine = by_candidate[card.name]
        answered = [row for row in mine if row["failure"] is None]
        if not answered:
            reason = tally.reason(card.name) if tally is not None else None
            why = f" ({reason})" if reason else ""
            raise PoolError(
                f"profile: candidate {card.name!r} answered none of {len(mine)} probes{why}; "
                "check its endpoint, key and parameters"
            )
        latencies = sorted(row["latency_s"] for row in answered)
        topics = {topic: _accuracy(group) for topic, group in _grouped(mine, "topic")}
        card = dataclasses.replace(
            card,
            latency_s=round(statistics.median(latencies), 3),
            latency_p95_s=round(_quantile(latencies, 0.95), 3),
            prompt_tokens=round(statistics.fmean(row["prompt_tokens"] for row in answered), 1),
            completion_tokens=round(
                statistics.fmean(row["completion_tokens"] for row in answered), 1
            ),
            performance={topic: round(entry["accuracy"], 3) for topic, entry in topics.items()},
            unsure={topic: _unsure(group) for topic, group in _grouped(mine, "topic")},
        )
        filled.append(card)
        summary[card.name] = {
            "overall": _accuracy(mine),
            "topics": topics,
            "datasets": {name: _accuracy(group) for name, group in _grouped(mine, "dataset")},
            "failures": len(mine) - len(answered),
            "latency_s": card.latency_s,
            "latency_p95_s": card.latency_p95_s,
            "prompt_tokens": card.prompt_tokens,
            "completion_tokens": card.completion_tokens,
            "cost_usd": statistics.fmean(row["cost_usd"] for row in mine),
            "total_cost_usd": sum(row["cost_usd"] for row in mine),
        }
    return Profile(tuple(rows), tuple(filled), summary)


def _grouped(
    rows: Iterable[ProbeRow], column: Literal["topic", "dataset"]
) -> list[tuple[str, list[ProbeRow]]]:
    groups: dict[str, list[ProbeRow]] = defaultdict(list)
    for row in rows:
        groups[row[column]].append(row)
    return sorted(groups.items())


def _unsure(rows: Sequence[ProbeRow]) -> float:
    return round(statistics.fmean(passed(row) for row in rows), 3)


def passed(row: ProbeRow) -> bool:
    """Whether the reply says that it holds no answer; a failed call says nothing, and counts as wrong."""
    return row["failure"] is None and passes(row["answer"], right=row["correct"] > 0)


def _accuracy(rows: Sequence[ProbeRow]) -> dict[str, float]:
    right = int(sum(row["correct"] for row in rows))
    low, high = wilson(right, len(rows))
    return {
        "accuracy": right / len(rows),
        "low": low,
        "high": high,
        "probes": len(rows),
        "em": statistics.fmean(row["em"] for row in rows),
        "f1": statistics.fmean(row["f1"] for row in rows),
    }


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear between the two nearest, as numpy's default."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def write_profile(folder: Path, found: Profile) -> None:
    """Write cards.json, matrix.parquet and profile.json into `folder`; equal profiles give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("question_id", "dataset", "question")),
            ("golden_answers", pa.list_(pa.string())),
            *((name, pa.string()) for name in ("topic", "group", "candidate", "answer")),
            *((name, pa.float64()) for name in ("correct", "em", "f1")),
            *((name, pa.int64()) for name in ("prompt_tokens", "completion_tokens")),
            *((name, pa.float64()) for name in ("cost_usd", "latency_s")),
            ("retries", pa.int64()),
            ("failure", pa.string()),
            ("breaker_state", pa.string()),
        ]
    )
    table = pa.Table.from_pylist([dict(row) for row in found.rows], schema=schema)
    with atomic_path(folder / "matrix.parquet") as aside:
        pq.write_table(table, aside)
    write_json(folder / "profile.json", found.summary)
    write_cards(folder / "cards.json", found.cards)


def asked_in(rows: Iterable[ProbeRow]) -> list[Question]:
    """The questions of a matrix, each once and with the text that was asked, to repeat the probes."""
    found = {(row["dataset"], row["question_id"]): row for row in rows}
    return [
        Question(
            row["question_id"],
            row["dataset"],
            row["question"],
            tuple(row["golden_answers"]),
            "train",  # the matrix does not hold the split, and probes do not read it
            metadata={
                "topic": row["topic"],
                "group": row["group"].removeprefix(f"{row['dataset']}/"),
            },
        )
        for row in found.values()
    ]


def read_probes(path: Path) -> list[ProbeRow]:
    """The rows of a matrix.parquet.

    Raises: DataError naming the file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=list(ProbeRow.__annotations__))
    except (OSError, pa.ArrowInvalid) as error:
        first = str(error).partition("\n")[0]
        raise DataError(
            f"{path}: cannot be read as a matrix ({first}); run the profile stage again"
        ) from None
    rows: list[ProbeRow] = table.to_pylist()
    return rows
