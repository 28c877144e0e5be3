"""What a report consists of, independent of HTML and Markdown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "better", "worse"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table.

    Attributes:
        low, high: interval of the figure in `text`; empty without one.
        tone: colour of a difference whose interval excludes zero.
        hint: shown on hover, in HTML only.
        words: the cell holds text, not a figure.
    """

    text: str
    low: str = ""
    high: str = ""
    tone: Tone = ""
    hint: str = ""
    words: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table; a `marked` one is highlighted, such as the reference router's."""

    cells: tuple[Cell, ...]
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column names its lines."""

    heads: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot by the name of its SVG; a `large` one takes the whole width of a phone."""

    name: str
    caption: str = ""
    large: bool = False


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline figure."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report.

    Attributes:
        warning: shown first and highlighted.
        points: bullets.
        parts: sections one level below.
        folded: closed in HTML until it is clicked.
    """

    title: str
    note: str = ""
    table: Table | None = None
    plots: tuple[Plot, ...] = ()
    warning: str = ""
    tiles: tuple[Tile, ...] = ()
    points: tuple[str, ...] = ()
    parts: tuple["Section", ...] = ()
    folded: bool = False

    @property
    def anchor(self) -> str:
        """The title as a fragment of an address.

        >>> Section("Cost and quality").anchor
        'cost-and-quality'
        """
        return "-".join(self.title.lower().split())


def table_of(heads: Sequence[str], rows: Sequence[Sequence[Cell | str]]) -> Table:
    """A table of cells, or of texts that become cells of words."""
    lines = [
        Line(tuple(Cell(cell, words=True) if isinstance(cell, str) else cell for cell in row))
        for row in rows
    ]
    return Table(tuple(heads), tuple(lines))


def walk(sections: Sequence[Section]) -> Iterator[Section]:
    """All sections with their parts, in reading order."""
    for section in sections:
        yield section
        yield from walk(section.parts)
