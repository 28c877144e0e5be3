"""Plots as SVG text: the same values give the same bytes, and colours follow the page's theme."""

import html
import io
import math
import re
import statistics
from collections.abc import Collection, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from routerr1.evaluate.controls import BEST_SINGLE, BOUNDS, POLICY
from routerr1.evaluate.pareto import Point, front
from routerr1.evaluate.results import Comparison, Quality
from routerr1.evaluate.routers import RouterId
from routerr1.report.glossary import label

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = (
    "#3b82c4", "#d9822b", "#2f9e6e", "#c2478f", "#8a6fd1", "#b89a1e", "#4aa3b5", "#b5544d",
)  # fmt: skip
"""Distinct on white and on black, and for most people with red-green colour blindness."""

MANY = 14
"""With more routers than this, a plot of cost and quality names only some of them."""
_BEST = 3
"""That many routers with the highest EM are always named."""
_LANDMARKS = (
    POLICY, BEST_SINGLE, *BOUNDS, "baseline/policy_before_rl", "baseline/knn", "baseline/knn_multi_turn",
)  # fmt: skip
"""What a reader looks for."""

# Stand-ins that the SVG replaces by the page's own colours.
_TEXT, _LINE = "#010203", "#040506"
_THEMED = {_TEXT: "currentColor", _LINE: "var(--line, #d5d9de)"}
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _LINE, "axes.labelcolor": _TEXT, "axes.titlecolor": _TEXT,
    "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.labelsize": 9, "axes.grid": True, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False,
    "grid.color": _LINE, "grid.linewidth": 0.7, "text.color": _TEXT, "font.size": 9,
    "xtick.color": _LINE, "ytick.color": _LINE, "xtick.labelcolor": _TEXT,
    "ytick.labelcolor": _TEXT, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "legend.frameon": False, "legend.fontsize": 8.5, "lines.linewidth": 1.6,
    "svg.fonttype": "none", "font.family": "sans-serif",
    "text.parse_math": False,  # a name may hold "$"
}  # fmt: skip


def pareto(name: str, routers: Sequence[Quality], ours: Sequence[str]) -> str:
    """Cost per 1000 questions against EM, intervals as whiskers, the front as a line.

    Oracles are hollow and not part of the front, because they know the answers. Several routers of `ours`
    get a front of their own, in their colour. Of many routers, only those of `_to_name` have their name
    beside the point; the others are pale, and a browser shows their name at the pointer.
    """
    with _figure(name, width=5.4, height=4.8) as (figure, drawn):
        axes = figure.subplots()
        points = {entry.router: (1000 * entry.cost_usd.mean, entry.em.mean) for entry in routers}
        hull = front(point for router, point in points.items() if router not in BOUNDS)
        named = _to_name(points, hull, ours)
        whiskers: list[tuple[list[float], list[float]]] = []
        kinds: dict[str, tuple[str, str, bool]] = {}
        for entry in routers:
            router, (x, y) = entry.router, points[entry.router]
            big, pale = router in ours, 1.0 if router in named else 0.45
            kind, colour = _kind(router, ours)
            axes.plot(
                x, y, "D" if big else "o", markersize=8 if big else 5.5 if router in named else 4.5,
                color=colour, alpha=pale, mfc="none" if router in BOUNDS else None, zorder=4 if big else 3,
                gid=f"{name}-{router}",
            )  # fmt: skip
            kinds.setdefault(kind, (colour, "D" if big else "o", router in BOUNDS))
            own: list[tuple[list[float], list[float]]] = []
            if entry.cost_usd.low is not None and entry.cost_usd.high is not None:
                own.append(([1000 * entry.cost_usd.low, 1000 * entry.cost_usd.high], [y, y]))
            if entry.em.low is not None and entry.em.high is not None:
                own.append(([x, x], [entry.em.low, entry.em.high]))
            for across, along in own:
                axes.plot(across, along, color=colour, lw=0.9, alpha=0.6 * pale, zorder=2)
            whiskers += own if router in named else []
        most = max((x for x, _ in points.values()), default=1.0)
        line = ([*(x for x, _ in hull), most], [*(y for _, y in hull), hull[-1][1]])
        axes.plot(*line, color=_TEXT, lw=0.9, ls=(0, (4, 3)), zorder=2)
        if len(ours) > 1:
            mine = front(points[router] for router in ours)
            axes.plot([x for x, _ in mine], [y for _, y in mine], color=PALETTE[1], zorder=2)
        axes.set(xlabel="USD per 1,000 questions", ylabel="exact match (EM)", ylim=(-0.03, 1.06))
        axes.set_xlim(left=-0.03 * most)
        for kind, (colour, mark, hollow) in kinds.items():
            axes.plot([], [], mark, color=colour, mfc="none" if hollow else None, ms=6, label=kind)
        _legend(figure, len(kinds), handle=1.0)
        _label(figure, axes, points, named, [*whiskers, line])
    texts = {f"{name}-{router}": label(router) for router in points}
    return _with_titles(drawn[0], texts)


def _to_name(points: Mapping[str, Point], hull: Sequence[Point], ours: Sequence[str]) -> set[str]:
    """The routers whose names a plot shows: all of a few, else ours, landmarks, the front and the best."""
    if len(points) <= MANY:
        return set(points)
    honest = [router for router in points if router not in BOUNDS]
    best = sorted(honest, key=lambda router: (-points[router][1], router))[:_BEST]
    on_front = [router for router in honest if points[router] in hull and points[router][1] > 0]
    landmarks = [router for router in _LANDMARKS if router in points]
    return {*ours, *landmarks, *on_front, *best}


def _with_titles(svg: str, texts: Mapping[str, str]) -> str:
    """The plot with a name for each element whose id is a key of `texts`; a browser shows it at the pointer."""

    def titled(found: re.Match[str]) -> str:
        text = texts.get(html.unescape(found[1]))
        return found[0] if text is None else f"<g><title>{html.escape(text)}</title>"

    return re.sub(r'<g id="([^"]*)">', titled, svg)


def curves(
    name: str,
    title: str,
    lines: Mapping[str, Sequence[Mapping[float, float]]],
    *,
    share: bool = False,
) -> str:
    """Means over training seeds, by step, with the range of the seeds around them.

    Args:
        lines: label -> step -> value, one mapping for each seed. Lines of many steps are drawn as
            running means of nine, since single steps are noise.
        share: the values lie in [0, 1], and the axis shows all of it.
    """
    from matplotlib.ticker import MaxNLocator

    with _figure(name, width=4.4, height=2.8) as (figure, drawn):
        axes = figure.subplots()
        for place, (caption, seeds) in enumerate(lines.items()):
            colour = PALETTE[place % len(PALETTE)]
            smooth = [_running_mean(seed) for seed in seeds]
            steps = sorted(set.intersection(*(set(seed) for seed in smooth)))
            values = [[seed[step] for seed in smooth] for step in steps]
            axes.plot(
                steps, [sum(each) / len(each) for each in values],
                color=colour, label=caption, marker="o" if len(steps) < 12 else None, markersize=3.5,
            )  # fmt: skip
            if len(seeds) > 1:
                low, high = [min(each) for each in values], [max(each) for each in values]
                axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        if share:
            axes.set_ylim(-0.03, 1.03)
        if len(lines) > 1:
            _legend(figure, len(lines), handle=2.0)
    return drawn[0]


def _running_mean(line: Mapping[float, float], reach: int = 4) -> dict[float, float]:
    """Each value averaged with up to `reach` neighbours on both sides, if there are many."""
    steps = sorted(line)
    if len(steps) < 12:
        return dict(line)
    return {
        step: statistics.fmean(
            line[near] for near in steps[max(0, place - reach) : place + reach + 1]
        )
        for place, step in enumerate(steps)
    }


def shares(name: str, title: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """One stacked bar for each key of `rows`: the share of calls to each candidate."""
    models = sorted({model for share in rows.values() for model in share})
    with _figure(name, width=5.2, height=0.9 + 0.34 * max(1, len(rows))) as (figure, drawn):
        axes = figure.subplots()
        for place, row in enumerate(reversed(list(rows))):
            left = 0.0
            for number, model in enumerate(models):
                width = rows[row].get(model, 0.0)
                axes.barh(
                    place, width, left=left, height=0.66, color=PALETTE[number % len(PALETTE)],
                    label=model if place == 0 else None,
                )  # fmt: skip
                if width > 0.07:
                    axes.text(
                        left + width / 2, place, f"{width:.0%}", ha="center", va="center",
                        color="#ffffff", fontsize=8,
                    )  # fmt: skip
                left += width
        axes.set_yticks(range(len(rows)), list(reversed(list(rows))))
        axes.set(xlim=(0, 1), xticks=[])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_title(title, pad=8)
        _legend(figure, len(models), handle=1.0)
    return drawn[0]


def differences(name: str, title: str, entries: Sequence[tuple[str, Comparison]]) -> str:
    """Differences with their intervals around zero, one line for each entry."""
    with _figure(name, width=5.2, height=0.9 + 0.3 * max(1, len(entries))) as (figure, drawn):
        axes = figure.subplots()
        axes.axvline(0, color=_TEXT, lw=0.9)
        for place, (_, gap) in enumerate(reversed(entries)):
            clear = gap.is_clear
            colour = PALETTE[2 if gap.mean > 0 else 7] if clear else PALETTE[0]
            if gap.low is not None and gap.high is not None:
                axes.plot([gap.low, gap.high], [place, place], color=colour, lw=2.2)
            axes.plot(gap.mean, place, "o", color=colour, ms=6, mfc=colour if clear else "none")
        axes.set_yticks(range(len(entries)), [name for name, _ in reversed(entries)])
        axes.set_title(title)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    return drawn[0]


def _legend(figure: "Figure", names: int, *, handle: float) -> None:
    """Put `names` names under the plot, in as many columns as fit; further lines make the plot higher.

    Args:
        handle: width of the mark before a name, in font sizes.
    """
    for columns in range(names, 0, -1):
        legend = figure.legend(
            loc="outside lower center", ncols=columns, handlelength=handle, columnspacing=1.2
        )
        box = legend.get_window_extent()
        if box.width <= figure.bbox.width or columns == 1:
            lines = math.ceil(names / columns)
            further = box.height * (lines - 1) / lines / figure.dpi
            figure.set_figheight(figure.get_figheight() + further)
            return
        legend.remove()


def _kind(router: str, ours: Sequence[str]) -> tuple[str, str]:
    """The group of a router in the legend, and its colour."""
    if router in ours:
        return ("Policies" if len(ours) > 1 else label(router)), PALETTE[1]
    if router in BOUNDS:
        return "Knows the answers", PALETTE[4]
    if router == BEST_SINGLE or RouterId.parse(router).kind == "fixed":
        return "One model for all", PALETTE[0]
    return "Other routers", PALETTE[2]


def _label(
    figure: "Figure",
    axes: "Axes",
    points: Mapping[str, Point],
    named: Collection[str],
    lines: Sequence[tuple[Sequence[float], Sequence[float]]],
) -> None:
    """Names beside the points of `named` without overlap; a thin line leads to a distant name.

    Args:
        points: router -> its point; no name lies on one of them.
        lines: what the names avoid besides, each as its x and y values.
    """
    import textalloc

    # Points that look the same share a label, in which those of `named` come first.
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    at: dict[Point, list[str]] = {}
    for router in sorted(
        points, key=lambda router: (router not in named, -points[router][1], points[router], router)
    ):
        x, y = points[router]
        near = (
            p
            for p in at
            if abs(p[0] - x) < 0.006 * (right - left) and abs(p[1] - y) < 0.006 * (high - low)
        )
        place = next(near, (x, y) if router in named else None)
        if place is not None:
            at.setdefault(place, []).append(label(router))
    figure.draw_without_rendering()  # settles the layout, in which names are measured
    figure.set_layout_engine("none")
    textalloc.allocate(
        axes, [x for x, _ in at], [y for _, y in at], [_joined(names) for names in at.values()],
        x_scatter=[x for x, _ in points.values()], y_scatter=[y for _, y in points.values()],
        x_lines=[list(x) for x, _ in lines], y_lines=[list(y) for _, y in lines],
        textsize=8, textcolor=_TEXT, linecolor=_TEXT, linewidth=0.5,
        min_distance=0.012, max_distance=0.3, margin=0.004, nbr_candidates=200,
        avoid_label_lines_overlap=True, avoid_crossing_label_lines=True,
    )  # fmt: skip


def _joined(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@contextmanager
def _figure(name: str, *, width: float, height: float) -> "Iterator[tuple[Figure, list[str]]]":
    """A figure in the house style; afterwards the list holds its SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    drawn: list[str] = []
    # The name salts the ids, so that two plots of one page never share a clip path.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, drawn
        drawn.append(_svg(figure))


def _svg(figure: "Figure") -> str:
    stream = io.StringIO()
    metadata: dict[str, str | None] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(stream, format="svg", transparent=True, metadata=metadata)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    for stand_in, colour in _THEMED.items():
        text = text.replace(stand_in, colour)
    return text
