"""What the benchmarks share, and that each says how it is run."""

import ast
import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from benchmarks import shared

FILES = sorted(path for path in Path(shared.__file__).parent.glob("*.py") if path.stem != "shared")
MARKS = ("<!-- begin -->", "<!-- end -->")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_benchmark_says_how_it_is_run(path: Path):
    about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert f"    python -m benchmarks.{path.stem}" in about


def test_content_is_put_between_marks_again_and_again():
    text = f"a\n{MARKS[0]}\nold\n{MARKS[1]}\nb"
    once = shared.filled(text, MARKS, r"| \1 |")
    assert once == f"a\n{MARKS[0]}\n\n| \\1 |\n\n{MARKS[1]}\nb"
    assert shared.filled(once, MARKS, r"| \1 |") == once
    with pytest.raises(ValueError, match="needs the marks <!-- begin --> and"):
        shared.filled("no marks", MARKS, "new")


def test_figures_are_printed_and_kept_beside_their_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shared.report({"b": 1, "a": 0.5}, tmp_path / "found.json", "# Page\n")
    assert json.loads(capsys.readouterr().out) == {"b": 1, "a": 0.5}
    assert (tmp_path / "found.json").read_text() == '{\n "b": 1,\n "a": 0.5\n}\n'
    assert (tmp_path / "found.md").read_text() == "# Page\n"


def test_a_plot_has_the_same_bytes_again(tmp_path: Path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        figure = Figure()
        figure.add_subplot().plot([1, 2], marker="o")
        shared.save(figure, tmp_path / folder / "plot.svg")
    assert (tmp_path / "a/plot.svg").read_bytes() == (tmp_path / "b/plot.svg").read_bytes()


def test_prose_is_wrapped_and_tables_are_not():
    row = "| " + "x " * 80 + "|"
    prose, kept = shared.wrapped("word " * 40 + "\n" + row).rsplit("\n", 1)
    assert (max(map(len, prose.split("\n"))) <= 100, kept) == (True, row)
