"""What the benchmarks share: their options, and how they print and keep what they find."""

import argparse
import json
import os
import platform
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routerr1.files import atomic_path, atomic_write_text
from routerr1.report import markdown
from routerr1.report.sections import table_of

if TYPE_CHECKING:  # slow to import, and few benchmarks need them
    from matplotlib.figure import Figure

    from routerr1.rollout.generate import Generator
    from routerr1.workspace import Workspace


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Options whose help shows the module's docstring as it is."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_policy(parser: argparse.ArgumentParser) -> None:
    """The option `--policy`, for `generators_of`."""
    parser.add_argument(
        "--policy", action="append", type=Path, metavar="FOLDER",
        help="a training seed's policy; default: those of params.yaml",
    )  # fmt: skip


def generators_of(
    workspace: "Workspace", folders: Sequence[Path] | None
) -> "Mapping[int, Generator]":
    """Training seed -> policy: of these folders, counted from one, or those of the workspace."""
    if not folders:
        return workspace.policies()
    return {seed: workspace.load_unchecked(each) for seed, each in enumerate(folders, start=1)}


def machine() -> dict[str, Any]:
    """What measured times depend on."""
    load = [round(value, 1) for value in os.getloadavg()]
    return {"cores": os.cpu_count(), "python": platform.python_version(), "load": load}


def report(found: Mapping[str, Any], out: Path | None = None, page: str | None = None) -> None:
    """Print the figures as JSON; with `out`, keep them in OUT.json, and the page in OUT.md."""
    text = json.dumps(found, indent=1)
    print(text)
    if out:
        atomic_write_text(out.with_suffix(".json"), text + "\n")
    if out and page is not None:
        atomic_write_text(out.with_suffix(".md"), page)


def save(figure: "Figure", path: Path) -> None:
    """Write an SVG whose bytes depend on the figure alone."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": path.stem}), atomic_path(path) as aside:
        figure.savefig(aside, format="svg", metadata={"Date": None})


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return markdown.table_text(table_of(heads, rows))


def ranged(found: Mapping[str, float], sign: str = "") -> str:
    """`mean [low, high]`."""
    mean, low, high = (f"{found[part]:{sign}.3f}" for part in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def fill(path: Path, marks: tuple[str, str], content: str) -> None:
    """Put `content` between the marks of a text."""
    atomic_write_text(path, filled(path.read_text(encoding="utf-8"), marks, content))


def filled(text: str, marks: tuple[str, str], content: str) -> str:
    """`text` with `content` between its marks.

    Raises: ValueError without the marks.
    """
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"the text needs the marks {marks[0]} and {marks[1]}")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def wrapped(text: str, *, hyphens: bool = True) -> str:
    """Lines of prose in at most 100 characters; tables stay.

    Args:
        hyphens: a line may end at one.
    """
    return "\n".join(
        line
        if line.startswith("|")
        else textwrap.fill(line, 100, break_long_words=False, break_on_hyphens=hyphens)
        for line in text.split("\n")
    )
