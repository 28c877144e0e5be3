"""The examples in docstrings hold, and their sentences are short.

Pytest's own collection of examples would import all of the package in every process.
"""

import ast
import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WRITTEN = sorted(ROOT.glob("routerr1/**/*.py"))
SHOWN = [path for path in WRITTEN if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples(path: Path) -> None:
    tried = doctest.testmod(import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)))
    assert tried.attempted
    assert not tried.failed


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_sentences_are_short(path: Path) -> None:
    """At most 30 words, as on the pages of the documentation; a clause after a colon counts by itself."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        text = re.sub(r">>> .*", "", ast.get_docstring(node) or "")
        # A blank line, an entry of `Args:` and an indented block end a sentence too.
        for part in re.split(r"\n\s*\n|\n(?=\s*\w+: )|\n(?=\s{4})", text):
            for sentence in re.split(r"(?<=[.;:?!])\s+", " ".join(part.split())):
                assert len(sentence.split()) <= 30, sentence
