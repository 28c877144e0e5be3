"""The seven question-answering benchmarks of the paper, from the hub or from a folder of files.

Both have the layout of FlashRAG (arXiv 2405.13576): SET/SPLIT with the columns id, question,
golden_answers and metadata.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from routerr1.config import BenchmarksParams
from routerr1.data.sources import SUFFIXES, Raw, read_rows
from routerr1.data.splits import first_line
from routerr1.errors import DataError


class Benchmark(NamedTuple):
    """Facts about a data set beyond its rows.

    Attributes:
        hops: facts each question needs, if all need the same number.
        licence: as its authors state it.
    """

    hops: int | None
    licence: str
    source: str


BENCHMARKS: Mapping[str, Benchmark] = {
    "nq": Benchmark(1, "CC BY-SA 3.0", "google-research-datasets/natural-questions"),
    "triviaqa": Benchmark(1, "Apache-2.0", "mandarjoshi90/triviaqa"),
    "popqa": Benchmark(1, "MIT", "AlexTMallen/adaptive-retrieval"),
    "hotpotqa": Benchmark(2, "CC BY-SA 4.0", "hotpotqa/hotpot"),
    "2wikimultihopqa": Benchmark(None, "Apache-2.0", "Alab-NII/2wikimultihop"),
    "musique": Benchmark(None, "CC BY 4.0", "StonyBrookNLP/musique"),
    "bamboogle": Benchmark(2, "not verified", "ofirpress/self-ask"),
}
_WIKI_HOPS = {"compositional": 2, "inference": 2, "comparison": 2, "bridge_comparison": 4}
_MUSIQUE_HOPS = re.compile(r"(\d)hop")


def hops_of(dataset: str, row_id: str, metadata: Mapping[str, Any]) -> int | None:
    """Facts a question needs: by data set, by type (2Wiki) or by the number in the id (MuSiQue)."""
    if dataset == "2wikimultihopqa":
        return _WIKI_HOPS.get(str(metadata.get("type")))
    if dataset == "musique":
        named = _MUSIQUE_HOPS.search(f"{row_id} {metadata.get('source_id', '')}")
        return int(named[1]) if named else None
    return BENCHMARKS[dataset].hops if dataset in BENCHMARKS else None


def origin(params: BenchmarksParams, dataset: str, split: str) -> str:
    """Origin of an upstream split's rows, for messages and records."""
    if params.folder is not None:
        return str(_local_file(params.folder, dataset, split))
    return f"{params.repo}@{params.revision}/{dataset}/{split}.jsonl"


def read_benchmark(params: BenchmarksParams, dataset: str, split: str) -> Iterator[Raw]:
    """The rows of one upstream split.

    Raises: DataError naming file and line, or the hub, repository and revision.
    """
    columns = (params.columns.question, params.columns.golden_answers)
    if params.folder is not None:
        return read_rows(_local_file(params.folder, dataset, split), columns)
    return _hub_rows(params.repo, params.revision, dataset, split, columns)


def _local_file(folder: Path, dataset: str, split: str) -> Path:
    found = [path for s in SUFFIXES if (path := folder / dataset / f"{split}{s}").is_file()]
    if len(found) != 1:
        what = "is in more than one file" if found else "not found"
        endings = ", ".join(path.name for path in found) or f"{split}{{{','.join(SUFFIXES)}}}"
        raise DataError(f"{folder / dataset}: {what}: {endings}")
    return found[0]


def _hub_rows(
    repo: str, revision: str, dataset: str, split: str, columns: tuple[str, ...]
) -> Iterator[Raw]:
    from datasets import load_dataset

    file = f"{dataset}/{split}.jsonl"
    number = 0
    try:
        # Streamed, because some sets hold gigabytes of context that no row keeps.
        rows = load_dataset(
            repo, data_files={split: file}, split=split, revision=revision, streaming=True
        )
        for number, row in enumerate(rows, start=1):
            for column in columns:
                if column not in row:
                    raise DataError(f"{repo}@{revision}/{file}: no column {column!r}")
            yield Raw(number, row)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{repo}@{revision}/{file}: row {number + 1} cannot be read ({first_line(error)}); "
            "without the hub, set dataset.benchmarks.folder to a local copy"
        ) from None
    if number == 0:
        raise DataError(f"{repo}@{revision}/{file}: holds no row")
