"""Sections as Markdown; plots are links to the .svg files beside it."""

from collections.abc import Sequence

from routerr1.report.formatting import NOTHING
from routerr1.report.sections import Cell, Section, Table


def render(sections: Sequence[Section], level: int = 2) -> str:
    """The sections with their titles, at heading level `level`."""
    return "\n\n".join(block for section in sections for block in _blocks(section, level)) + "\n"


def _blocks(section: Section, level: int) -> list[str]:
    blocks = [f"{'#' * level} {section.title}"]
    if section.warning:
        blocks.append(f"> {section.warning}")
    if section.note:
        blocks.append(section.note)
    bullets = [f"- {tile.label}: {tile.value} {tile.detail}".rstrip() for tile in section.tiles]
    bullets += [f"- {point}" for point in section.points]
    if bullets:
        blocks.append("\n".join(bullets))
    if section.table:
        blocks.append(table_text(section.table))
    blocks += [f"![{plot.caption or plot.name}]({plot.name}.svg)" for plot in section.plots]
    for part in section.parts:
        blocks += _blocks(part, level + 1)
    return blocks


def table_text(table: Table) -> str:
    """A Markdown table, the intervals in brackets."""
    head, *lines = (
        f"| {' | '.join(cells)} |"
        for cells in (
            [_escaped(head) for head in table.heads],
            *([_cell(cell) for cell in line.cells] for line in table.lines),
        )
    )
    return "\n".join([head, f"|{' --- |' * len(table.heads)}", *lines])


def _cell(cell: Cell) -> str:
    text = _escaped(cell.text)
    return (
        f"{text} [{cell.low or NOTHING}, {cell.high or NOTHING}]" if cell.low or cell.high else text
    )


def _escaped(text: str) -> str:
    """Text that cannot end its cell or become a tag: names, questions and replies are not ours."""
    return " ".join(text.replace("|", "\\|").replace("<", "\\<").split())
