"""What the commands that import a file of questions say beyond the import itself."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from routerr1.data.imported import Imported
from routerr1.data.splits import read_file
from routerr1.errors import DataError

_LONG_WORDS = 10  # of an answer that a reply seldom repeats word by word
_LONG_SHARE = 0.05
_FEW_TESTS = 20  # below this `routerr1 advise` decides nothing
_MOST_HELD_OUT = 0.4


@contextmanager
def with_remedy(file: Path) -> Iterator[None]:
    """Add a remedy to errors of a CSV file as spreadsheets outside of English write it."""
    try:
        yield
    except DataError as error:
        remedy = _remedy(file)
        if remedy is None or not str(error).startswith(str(file)):
            raise
        raise DataError(f"{error}; {remedy}") from None


def hints(found: Imported) -> list[str]:
    """What the imported rows are likely to lack, as lines for people."""
    rows = list(read_file(found.path))
    wordy = sum(
        row.metadata.get("task", "short") == "short"
        and min(len(answer.split()) for answer in row.golden_answers) >= _LONG_WORDS
        for row in rows
    )
    if wordy == 0 or wordy < _LONG_SHARE * len(rows):
        return []
    return [
        f"{wordy} answers have {_LONG_WORDS} words or more, and a right reply has to contain these very words: "
        "--task long compares meaning"
    ]


def held_out_hint(found: Imported, test: float) -> list[str]:
    """Larger shares for a file that holds out few test questions, drawn by the share `test`."""
    tests = found.rows["test"]
    if tests >= _FEW_TESTS or test >= _MOST_HELD_OUT:
        return []
    return [
        f"{tests} test questions say little: `--test {_MOST_HELD_OUT} --validation 0.2` holds out more, "
        "as `routerr1 init` does of few questions"
    ]


def _remedy(file: Path) -> str | None:
    if file.suffix.lower() != ".csv":
        return None
    try:
        text = file.read_bytes()
        if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return None
        header = text.decode("utf-8-sig").partition("\n")[0]
    except UnicodeDecodeError:
        return f"save it as 'CSV UTF-8', or: iconv -f WINDOWS-1252 -t UTF-8 {file.name} > utf8.csv"
    except OSError:
        return None
    if ";" in header and "," not in header:
        return "its cells are separated by semicolons: save it as .xlsx, or with commas or (as .tsv) tabs"
    return None
