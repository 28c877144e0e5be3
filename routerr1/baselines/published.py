"""Public benchmarks of routers as matrices, read as their authors publish them."""

import ast
import csv
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from routerr1.baselines.frames import read_frame
from routerr1.baselines.matrix import Matrix
from routerr1.baselines.replay_study import read_lines
from routerr1.errors import DataError

Benchmark = Literal["llmrouterbench", "routerbench", "log"]

_STAMP = re.compile(r"(\d{8})_(\d{6})\.json$")
_RESPONSE, _COST = "|model_response", "|total_cost"


@dataclass(frozen=True, slots=True)
class Cell:
    """One model's reply to one question; `score` is the source's own, in [0, 1]."""

    question: str
    topic: str
    score: float
    cost_usd: float
    reply: str


Cells = Mapping[str, Mapping[str, Cell]]
"""Model -> key of the question -> cell."""


def read_benchmark(
    name: Benchmark,
    source: Path,
    *,
    models: Sequence[str] = (),
    limit: int | None = None,
    seed: int = 0,
) -> Matrix:
    """The questions that all models answered.

    Args:
        source: a folder, or the file of a log.
        models: only these; none means all.
        limit: number of questions at most, drawn by `seed`.

    Raises: DataError naming what is missing or cannot be read, the question to which a model has two
        replies, the model that is unknown, or how many questions each model has, if they have none in common.
    """
    if not source.exists():
        raise DataError(f"{source}: not found")
    cells = READERS[name](source)
    if unknown := sorted(set(models) - set(cells)):
        raise DataError(
            f"{source}: has no model {', '.join(unknown)}; there are {', '.join(sorted(cells))}"
        )
    chosen = sorted(models or cells)
    common = set.intersection(*(set(cells[model]) for model in chosen))
    if not common:
        counts = ", ".join(f"{model} {len(cells[model])}" for model in chosen)
        raise DataError(
            f"{source}: the models have no question in common ({counts}); name some with --models"
        )
    keys = sorted(common)
    if limit is not None and limit < len(keys):
        drawn = np.random.default_rng(seed).choice(len(keys), size=limit, replace=False)
        keys = [keys[place] for place in sorted(drawn)]
    grid = [[cells[model][key] for model in chosen] for key in keys]
    return Matrix(
        tuple(line[0].question for line in grid),
        tuple(chosen),
        np.array([[cell.score for cell in line] for line in grid], dtype=float),
        np.array([[cell.cost_usd for cell in line] for line in grid], dtype=float),
        tuple(tuple(cell.reply for cell in line) for line in grid),
        tuple(line[0].topic for line in grid),
    )


class _Record(BaseModel):
    """One record of a results file of LLMRouterBench; other keys are ignored."""

    model_config = ConfigDict(frozen=True)

    index: int | str
    origin_query: Any = ""
    prompt: Any = ""
    prediction: Any = ""
    score: float | None = None
    cost: float | None = None


class _Results(BaseModel):
    """One results file of LLMRouterBench: a model on a split of a data set."""

    model_config = ConfigDict(frozen=True)

    dataset_name: str
    split: str
    model_name: str
    demo: bool = False
    records: tuple[_Record, ...]


def _llmrouterbench(folder: Path) -> Cells:
    """`bench/DATASET/SPLIT/MODEL/*.json`; the newest file of each, and no demonstration."""
    newest: dict[tuple[str, str, str], tuple[str, Path, _Results]] = {}
    for path in sorted(folder.rglob("*.json")):
        try:
            found = _Results.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise DataError(
                f"{path}: is no results file of LLMRouterBench ({_first(error)})"
            ) from None
        key = (found.dataset_name, found.split, found.model_name)
        stamp = "".join(match.groups()) if (match := _STAMP.search(path.name)) else ""
        if not found.demo and (key not in newest or stamp >= newest[key][0]):
            newest[key] = (stamp, path, found)
    if not newest:
        raise DataError(
            f"{folder}: holds no results file of LLMRouterBench (bench/SET/SPLIT/MODEL/*.json)"
        )
    cells: dict[str, dict[str, Cell]] = {}
    for dataset, split, model in sorted(newest):
        _, path, found = newest[dataset, split, model]
        for record in found.records:
            cell = Cell(
                _text(record.origin_query) or _text(record.prompt),
                dataset,
                _share(record.score, path),
                record.cost or 0.0,
                _text(record.prediction),
            )
            _add(cells, model, f"{dataset}/{split}/{record.index}", cell, str(path))
    return cells


def _routerbench(folder: Path) -> Cells:
    """`*.csv` or `*.pkl` in wide form: for each model a score, `MODEL|model_response`, `MODEL|total_cost`."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder; name the one that holds RouterBench's tables")
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".csv", ".pkl"))
    cells: dict[str, dict[str, Cell]] = {}
    for path in paths:
        for row in _wide_rows(path):
            if not {"sample_id", "prompt", "eval_name"} <= row.keys():
                raise DataError(
                    f"{path}: is no table of RouterBench: needs sample_id, prompt, eval_name"
                )
            models = [name.removesuffix(_COST) for name in row if name.endswith(_COST)]
            for model in models:
                if model not in row:
                    continue  # the cost of the authors' own oracle
                cell = Cell(
                    _text(row["prompt"]),
                    str(row["eval_name"]),
                    _share(_number(row[model], path), path),
                    _number(row[model + _COST], path) or 0.0,
                    _text(row.get(model + _RESPONSE)),
                )
                _add(cells, model, str(row["sample_id"]), cell, str(path))
    if not cells:
        raise DataError(f"{folder}: holds no table of RouterBench (*.csv or *.pkl)")
    return cells


class _Line(BaseModel):
    """One line of a log; other keys are ignored."""

    model_config = ConfigDict(frozen=True)

    query_id: str
    query: str
    model: str
    score: float
    task: str = ""
    response: str | None = None
    cost_usd: float | None = None


def _log(path: Path) -> Cells:
    """JSON lines, gzipped or not, of one reply each with the log's own score; a missing cost counts as 0."""
    cells: dict[str, dict[str, Cell]] = {}
    for number, row in enumerate(read_lines(path, _Line), start=1):
        score = _share(row.score, path)
        cell = Cell(row.query, row.task, score, row.cost_usd or 0.0, row.response or "")
        _add(cells, row.model, row.query_id, cell, f"{path}, line {number}")
    return cells


READERS: Mapping[Benchmark, Callable[[Path], Cells]] = {
    "llmrouterbench": _llmrouterbench,
    "routerbench": _routerbench,
    "log": _log,
}


def _add(cells: dict[str, dict[str, Cell]], model: str, key: str, cell: Cell, where: str) -> None:
    own = cells.setdefault(model, {})
    if key in own:
        raise DataError(
            f"{where}: a second reply of {model} to {key}; keep one of the two, in one file"
        )
    own[key] = cell


def _wide_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".pkl":
        yield from read_frame(path)
        return
    csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            yield from csv.DictReader(stream)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def _number(value: object, path: Path) -> float | None:
    if value is None or value == "":
        return None
    try:
        found = float(value)  # type: ignore[arg-type]  # whatever the file holds
    except (TypeError, ValueError):
        raise DataError(f"{path}: {value!r} is no number") from None
    return None if np.isnan(found) else found


def _share(score: float | None, path: Path) -> float:
    """The score; a missing one is 0, as the benchmarks count it."""
    if score is None or np.isnan(score):
        return 0.0
    if not 0 <= score <= 1:
        raise DataError(f"{path}: the score {score} is outside [0, 1]")
    return score


def _text(value: object) -> str:
    """A text, or texts joined; a list may be written as Python writes it."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        try:
            value = ast.literal_eval(value)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return str(value)
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _first(error: OSError | ValidationError) -> str:
    if isinstance(error, OSError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
