"""One row per pool, router, training seed and question; tables and plots read nothing else.

No column holds wall-clock time: `latency_s` is what the candidates report, and rounds lose their
wall seconds. So the same evaluation writes the same bytes.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self, get_type_hints

from routerr1.answers.verifiers import SHORT
from routerr1.errors import DataError
from routerr1.files import atomic_path
from routerr1.matching import Rule, token_f1
from routerr1.notation import answers_with_reply
from routerr1.pool.grading import how_right
from routerr1.protocol import check, names_of
from routerr1.rollout.record import to_row, without_tokens
from routerr1.types import Ask, Card, Question, Reply, Trajectory

_NOT_ASKED = ("unknown_model", "malformed_call", "budget", "repeated")  # failures without a call

_TASK = re.compile(r'"task": "([^"\\\\]+)"')

JudgeCall = Callable[[str, str], bool | None]
"""(candidate, sub-question) -> True if it is the most accurate candidate; None if that is unknown."""


@dataclass(frozen=True, slots=True)
class Row:
    """The result of one router on one question.

    Attributes:
        pool: name of the pool it played on; "training" for the pool of training.
        seed: training seed of the policy behind it.
        group: rows of one group ask the same thing; statistics resample groups.
        em: exact match; where the answer is a whole reply, whether it contains a reference answer.
        latency_s: sum of the replies' own seconds; the policy's are not in it.
        called: canonical name of the candidate of each call, in order.
        best_calls: calls that went to the candidate most accurate on that sub-question's topic.
        judged_calls: calls for which that is known.
        trajectory: `rollout.record.to_row` as JSON, without times of the clock and token ids.
    """

    pool: str
    router: str
    seed: int
    question_id: str
    dataset: str
    question: str
    group: str
    hops: int | None
    topic: str | None
    answer: str | None
    em: float
    f1: float
    format_valid: bool
    cost_usd: float
    calls: int
    failures: int
    prompt_tokens: int
    completion_tokens: int
    policy_tokens: int
    latency_s: float
    called: list[str]
    best_calls: int
    judged_calls: int
    trajectory: str

    @property
    def key(self) -> tuple[str, str, int, str, str]:
        """Identity of a row: pool, router, seed, dataset, question."""
        return (self.pool, self.router, self.seed, self.dataset, self.question_id)

    @property
    def matching(self) -> Rule:
        """The rule by which its answer is compared."""
        return "text" if '"matching": "text"' in self.trajectory else "squad"

    @property
    def task(self) -> str:
        """The task of its question."""
        found = _TASK.search(self.trajectory)  # in a text its quotes are escaped
        return found[1] if found else SHORT

    @property
    def rejected(self) -> bool:
        """True if its trajectory broke a contract."""
        return '"stopped": "rejected"' in self.trajectory  # in a text its quotes are escaped

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `dataclasses.asdict`.

        Raises: DataError naming the columns that are missing or unknown.
        """
        known = {column.name for column in fields(cls)}
        if values.keys() != known:
            differ = ", ".join(sorted(values.keys() ^ known))
            raise DataError(f"evaluation row: columns missing or unknown: {differ}")
        return cls(**values)


def asked_of(trajectory: Trajectory) -> list[tuple[Ask, Reply]]:
    """The calls that reached a candidate; a refusal by the loop is none."""
    return [
        (turn.action, turn.reply)
        for turn in trajectory.turns
        if isinstance(turn.action, Ask) and turn.reply and turn.reply.failure not in _NOT_ASKED
    ]


def row_of(
    trajectory: Trajectory,
    *,
    pool: str,
    router: str,
    seed: int,
    cards: Sequence[Card],
    judge: JudgeCall | None = None,
    whole_reply: bool = False,
) -> Row:
    """Score and price one trajectory of any router.

    Args:
        whole_reply: see `controls.Router`; such a router writes no text, so its format is valid.
    """
    question, ledger = trajectory.question, trajectory.ledger
    said = trajectory.answer or ""
    asked = asked_of(trajectory)
    verdicts = [judge(reply.model, ask.query) for ask, reply in asked] if judge else []
    topic = question.metadata.get("topic")
    answered = trajectory.answer is not None
    taken_whole = whole_reply or answers_with_reply(trajectory)
    em = how_right(question, said, trajectory.grade, whole_reply=taken_whole) if answered else 0.0
    return Row(
        pool=pool,
        router=router,
        seed=seed,
        question_id=question.id,
        dataset=question.dataset,
        question=question.question,
        group=f"{question.dataset}/{question.metadata.get('group', question.id)}",
        hops=question.hops,
        topic=str(topic) if topic is not None else None,
        answer=trajectory.answer,
        em=em,
        f1=_f1(said, question, em),
        format_valid=whole_reply or check(trajectory.text, names_of(cards, trajectory.handles)),
        cost_usd=ledger.cost_usd,
        calls=len(asked),
        failures=ledger.failures,
        prompt_tokens=ledger.prompt_tokens,
        completion_tokens=ledger.completion_tokens,
        policy_tokens=ledger.policy_tokens,
        latency_s=_latency_s(reply for _, reply in asked),
        called=[reply.model for _, reply in asked],
        best_calls=sum(verdict is True for verdict in verdicts),
        judged_calls=sum(verdict is not None for verdict in verdicts),
        trajectory=json.dumps(to_row(_for_readers(trajectory)), sort_keys=True, ensure_ascii=False),
    )


def _f1(said: str, question: Question, em: float) -> float:
    """Token F1; that of a right answer is 1, though a right reply may hold more words than the reference."""
    return max(em, token_f1(said, question.golden_answers, question.matching))


def _latency_s(replies: Iterable[Reply]) -> float:
    return sum(reply.latency_s for reply in replies)


def _for_readers(trajectory: Trajectory) -> Trajectory:
    """Without times of the clock, and without the ids and logprobs that only training needs.

    Whether a reply came from a store is left out too: a row shows what its trajectory costs, and
    stays the same if the evaluation was killed and went on with what it had paid for.
    """
    turns = tuple(
        replace(turn, wall_s=0.0, reply=replace(turn.reply, cached=False) if turn.reply else None)
        for turn in trajectory.turns
    )
    ledger = replace(trajectory.ledger, round_wall_s=(), cache_hits=0)
    return without_tokens(replace(trajectory, turns=turns, ledger=ledger))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write parquet atomically; the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=_schema())
    with atomic_path(path) as aside:
        pq.write_table(table, aside, compression="zstd")


def read_rows(path: Path) -> list[Row]:
    """Rows of one file, in its order.

    Raises: DataError naming the file if it is missing, no parquet, or has other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError(f"{path}: not found; run `dvc repro`, which writes it")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read as parquet ({error})") from None
    if set(table.column_names) != {column.name for column in fields(Row)}:
        raise DataError(f"{path}: is not a file of evaluation rows; run the evaluate stage again")
    return [Row.from_dict(values) for values in table.to_pylist()]


def _schema() -> Any:
    import pyarrow as pa

    text, whole, real = pa.string(), pa.int64(), pa.float64()
    kinds = {
        str: text, str | None: text, int: whole, int | None: whole, float: real,
        bool: pa.bool_(), list[str]: pa.list_(text),
    }  # fmt: skip
    hints = get_type_hints(Row)
    return pa.schema([(column.name, kinds[hints[column.name]]) for column in fields(Row)])
