"""Routers over recorded replies: real candidates' answers to real questions, nothing called, nothing paid.

Five times two folds: each repetition halves the questions at random, a router learns on one half and is
tested on the other, then the other way round, so that each repetition tests every question once. Intervals
take repetitions as `stats` takes training seeds. A log holds whole questions only, so what is compared are
single-round routers; their candidate's reply counts as it stands, with no policy behind it.
"""

import gzip
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from routerr1.baselines.build import LEARNED, lessons
from routerr1.baselines.learned import Majority
from routerr1.baselines.matrix import Matrix
from routerr1.config import BaselineParams, EvaluateParams
from routerr1.errors import DataError
from routerr1.evaluate.formatting import bounded, number
from routerr1.evaluate.pareto import area
from routerr1.evaluate.stats import holm, interval, paired_difference, spread
from routerr1.evaluate.table import order_routers, shorten
from routerr1.matching import exact_match, token_f1
from routerr1.pool.profile import contains_gold
from routerr1.protocol import extract_answer
from routerr1.types import Reply

Metric = Literal["em_in_tag", "f1_in_tag", "gold_contained"]
METRICS: tuple[Metric, ...] = ("em_in_tag", "f1_in_tag", "gold_contained")

_FIELDS = ("query_id", "query", "golden_answers", "model", "response", "cost_usd")
_ANSWER_TAG = re.compile(r"</?answer>")
_SINGLE = "single/"
_BEST, _ORACLE, _RANDOM = "best_single", "oracle", "random"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Quality and cost of one router, repetitions x questions."""

    quality: NDArray[np.float64]
    cost: NDArray[np.float64]


def read_log(path: Path, metric: Metric) -> Matrix:
    """A log of one JSON object per (query, model) as a matrix under `metric`.

    Raises: DataError naming file and line of what is malformed, or the query a model has no reply to, or two.
    """
    rows = _read_rows(path)
    names = tuple(sorted({row["model"] for row in rows}))
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        place = (row["query_id"], row["model"])
        if place in cells:
            raise DataError(f"{path}: two replies for {place}")
        cells[place] = row
    queries = {row["query_id"]: row["query"] for row in rows}
    try:
        grid = [[cells[query, name] for name in names] for query in queries]
    except KeyError as missing:
        raise DataError(f"{path}: no reply for {missing}") from None
    return Matrix(
        tuple(queries.values()),
        names,
        np.array([[score(row, metric) for row in line] for line in grid]),
        np.array([[float(row["cost_usd"]) for row in line] for line in grid]),
        tuple(tuple(row["response"] or "" for row in line) for line in grid),
    )


def score(row: Mapping[str, Any], metric: Metric) -> float:
    """How right a recorded reply is, in [0, 1]; without an answer tag both tag metrics give 0."""
    reply, golds = row["response"] or "", row["golden_answers"]
    if metric == "gold_contained":
        # Normalisation joins what a tag's brackets parted: "<answer>Ada" would read "answerada".
        return contains_gold(_ANSWER_TAG.sub(" ", reply), golds)
    tagged = extract_answer(reply)
    if tagged is None:
        return 0.0
    return exact_match(tagged, golds) if metric == "em_in_tag" else token_f1(tagged, golds)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                rows.append(_parsed(line, path, number))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: is not JSON ({error.msg})") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if not rows:
        raise DataError(f"{path}: holds no reply")
    return rows


def _parsed(line: str, path: Path, number: int) -> dict[str, Any]:
    row: Any = json.loads(line)
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {number}: is not a JSON object")
    missing = [field for field in _FIELDS if field not in row]
    if missing:
        raise DataError(f"{path}, line {number}: has no {', '.join(missing)}")
    if row["cost_usd"] is None:
        raise DataError(f"{path}, line {number}: cost_usd is not known")
    return row


def study(
    matrix: Matrix,
    baselines: BaselineParams,
    params: EvaluateParams,
    *,
    repetitions: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Every router that learns from a matrix, the single models, random and the oracle, with intervals.

    `per_repetition` is the spread over halvings. `difference` is router minus `best_single`, which is
    chosen on the learning half.
    """
    outcomes = _play(matrix, baselines, params.seed, repetitions, progress)
    names = order_routers(set(outcomes))
    best = outcomes[_BEST].quality
    entries: list[dict[str, Any]] = []
    for name in names:
        found = outcomes[name]
        sampling: dict[str, Any] = {
            "resamples": params.bootstrap, "confidence": params.confidence, "seed": params.seed,
        }  # fmt: skip
        entries.append(
            {
                "router": name,
                "quality": asdict(interval(found.quality, **sampling)),
                "cost_usd": asdict(interval(found.cost, **sampling)),
                "per_repetition": asdict(spread(found.quality.mean(axis=1).tolist())),
                "difference": asdict(paired_difference(found.quality, best, **sampling)),
            }
        )
    _correct(entries)
    learned = [e for e in entries if e["router"] in (*LEARNED, "frugal")]
    points = [(e["cost_usd"]["mean"], e["quality"]["mean"]) for e in learned]
    singles = [e for e in entries if e["router"].startswith(_SINGLE)]
    fixed = [(e["cost_usd"]["mean"], e["quality"]["mean"]) for e in singles]
    dearest = max(cost for cost, _ in fixed)
    result: dict[str, Any] = shorten(
        {
            "n": len(matrix.questions),
            "repetitions": repetitions,
            "resamples": params.bootstrap,
            "confidence": params.confidence,
            "routers": entries,
            "pareto_area_singles": area(fixed, dearest),
            "pareto_area_with_learned": area([*fixed, *points], dearest),
        }
    )
    return result


def _correct(entries: Sequence[dict[str, Any]]) -> None:
    compared = [entry for entry in entries if entry["router"] != _BEST]
    corrected = holm([entry["difference"]["p"] for entry in compared])
    for entry, p in zip(compared, corrected, strict=True):
        entry["difference"]["p_holm"] = p


def _play(
    matrix: Matrix,
    baselines: BaselineParams,
    seed: int,
    repetitions: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Outcome]:
    count = len(matrix.questions)
    found: dict[str, Outcome] = {}

    def outcome(name: str) -> Outcome:
        empty = Outcome(np.zeros((repetitions, count)), np.zeros((repetitions, count)))
        return found.setdefault(name, empty)

    for repetition in range(repetitions):
        order = np.random.default_rng([seed, repetition]).permutation(count)
        halves = order[: count // 2], order[count // 2 :]
        for side, (learn, test) in enumerate((halves, halves[::-1])):
            for name, route in _routes(
                matrix.rows(np.sort(learn)), baselines, seed + repetition
            ).items():
                target = outcome(name)
                for row in test:
                    asked = route(matrix, int(row))
                    target.quality[repetition, row] = matrix.quality[row, asked[-1]]
                    target.cost[repetition, row] = matrix.cost[row, asked].sum()
            if progress:
                progress(2 * repetition + side + 1, 2 * repetitions)
    found[_RANDOM] = _constant(matrix.quality.mean(axis=1), matrix.cost.mean(axis=1), repetitions)
    # The oracle is the best reply of each question, the cheapest on ties: no router can be above it.
    rank = np.lexsort((matrix.cost, -matrix.quality), axis=1)[:, 0]
    rows = np.arange(count)
    found[_ORACLE] = _constant(matrix.quality[rows, rank], matrix.cost[rows, rank], repetitions)
    for place, name in enumerate(matrix.candidates):
        cells = matrix.quality[:, place], matrix.cost[:, place]
        found[f"{_SINGLE}{name.rpartition('/')[2]}"] = _constant(*cells, repetitions)
    return found


def _constant(quality: NDArray[np.float64], cost: NDArray[np.float64], repetitions: int) -> Outcome:
    return Outcome(np.tile(quality, (repetitions, 1)), np.tile(cost, (repetitions, 1)))


_Route = Callable[[Matrix, int], list[int]]
"""(matrix, row) -> places of the candidates asked, the last of which answered."""


def _routes(learn: Matrix, baselines: BaselineParams, seed: int) -> dict[str, _Route]:
    learnt = lessons(learn, baselines, seed=seed)
    routes: dict[str, _Route] = {
        name: _by_question(learnt[name]().choose) for name in LEARNED if name in baselines.include
    }
    routes[_BEST] = _by_question(Majority(learn).choose)
    if "frugal" in baselines.include:
        cascade = learnt["frugal"]()

        def play(matrix: Matrix, row: int) -> list[int]:
            replies: list[Reply] = []
            asked: list[int] = []
            while (ask := cascade.next_call(matrix.questions[row], replies)) is not None:
                asked.append(matrix.candidates.index(ask.name))
                replies.append(Reply(ask.name, matrix.replies[row][asked[-1]]))
            return asked

        routes["frugal"] = play
    return routes


def _by_question(choose: Callable[[str], str]) -> _Route:
    return lambda matrix, row: [matrix.candidates.index(choose(matrix.questions[row]))]


def studies_markdown(found: Mapping[Metric, Mapping[str, Any]]) -> str:
    """One table for each metric, then the ranking of all routers under each."""
    parts = []
    for metric, result in found.items():
        percent = round(100 * result["confidence"])
        parts.append(
            f"## {metric}\n\nn = {result['n']} questions, {result['repetitions']} x 2 folds; {percent} % "
            f"bootstrap intervals over questions and repetitions ({result['resamples']} draws); difference "
            "to the best single model (chosen on the learning half) on the same questions, p "
            'Holm-corrected; "resolves" is the smallest true difference found in four of five such '
            f"studies. Area under the Pareto front up to the dearest model: "
            f"{result['pareto_area_singles']:.4f} with the single models, "
            f"{result['pareto_area_with_learned']:.4f} with the learned routers too."
        )
        parts.append("\n".join([*_HEAD, *map(_line, result["routers"])]))
    parts.append("## Rankings\n\n" + _rankings(found))
    return "\n\n".join(parts) + "\n"


_HEAD = (
    "| router | quality | sd over repetitions | USD per 1000 | minus best single | p | resolves |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)


def _line(entry: Mapping[str, Any]) -> str:
    quality, gap, sd = entry["quality"], entry["difference"], entry["per_repetition"]["sd"]
    compared = (
        f"{bounded(gap, 3, signed=True)} | {gap['p_holm']:.4f} | {number(gap['resolvable'], 3)}"
        if "p_holm" in gap
        else "reference | |"
    )
    return (
        f"| {entry['router']} | {bounded(quality, 3)} | {number(sd, 3)} "
        f"| {number(entry['cost_usd']['mean'], 4, 1000)} | {compared} |"
    )


def _rankings(found: Mapping[Metric, Mapping[str, Any]]) -> str:
    """Learned routers and single models from best to worst, apart."""
    lines = ["| metric | who | from best to worst |", "| --- | --- | --- |"]
    for metric, result in found.items():
        singles = [e for e in result["routers"] if e["router"].startswith(_SINGLE)]
        learned = [e for e in result["routers"] if e["router"] in (*LEARNED, "frugal")]
        for who, entries in (("single models", singles), ("learned routers", learned)):
            ranked = sorted(entries, key=lambda entry: -entry["quality"]["mean"])
            shown = (
                f"{e['router'].removeprefix(_SINGLE)} {e['quality']['mean']:.3f}" for e in ranked
            )
            lines.append(f"| {metric} | {who} | {', '.join(shown)} |")
    return "\n".join(lines)
