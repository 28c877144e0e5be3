"""The examples in docstrings hold. Pytest's own collection of them would import all of the package in every process."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHOWN = [path for path in sorted(ROOT.glob("routerr1/**/*.py")) if ">>> " in path.read_text()]


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples(path: Path) -> None:
    tried = doctest.testmod(import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)))
    assert tried.attempted
    assert not tried.failed
