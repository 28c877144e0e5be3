"""Cost against quality: who is worth its price, and what the same quality costs elsewhere.

A point is (cost, quality). Mixing two routers by a coin per question reaches every point on the line
between them, so the front is the upper convex hull of the points, starting from paying nothing for
nothing, as in RouterBench's zero router (arXiv 2403.12031).
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

Point = tuple[float, float]
"""(cost per question in US dollars, quality in [0, 1])."""


def front(points: Iterable[Point]) -> list[Point]:
    """The upper hull from (0, 0) to the best quality, in rising cost; dominated points are left out.

    >>> front([(1.0, 0.5), (2.0, 0.6), (2.0, 0.8), (3.0, 0.7)])
    [(0.0, 0.0), (1.0, 0.5), (2.0, 0.8)]
    """
    hull: list[Point] = []
    best_quality = -1.0
    for cost, quality in sorted({(0.0, 0.0), *points}, key=lambda point: (point[0], -point[1])):
        if quality <= best_quality:
            continue
        best_quality = quality
        if hull and hull[-1][0] == cost:
            hull.pop()
        while len(hull) > 1 and not _turns_right(hull[-2], hull[-1], (cost, quality)):
            hull.pop()
        hull.append((cost, quality))
    return hull


def area(points: Iterable[Point], max_cost: float) -> float:
    """Mean quality of the front over costs from 0 to `max_cost`, in [0, 1]; beyond its end it is flat.

    Raises: ValueError if `max_cost` is not above 0.
    """
    if max_cost <= 0:
        raise ValueError(f"max_cost is {max_cost}, must be above 0")
    hull = front(points)
    corners = [point for point in hull if point[0] < max_cost]
    corners.append((max_cost, quality_at(hull, max_cost)))
    total = 0.0
    for (cost, quality), (next_cost, next_quality) in pairwise(corners):
        total += (next_cost - cost) * (quality + next_quality) / 2
    return total / max_cost


def quality_at(points: Iterable[Point], cost: float) -> float:
    """The best quality a mix of these routers reaches for at most `cost`."""
    hull = front(points)
    for (low, quality), (high, next_quality) in pairwise(hull):
        if low <= cost < high:
            return quality + (next_quality - quality) * (cost - low) / (high - low)
    return hull[-1][1]


def cost_at(points: Iterable[Point], quality: float) -> float | None:
    """The least a mix of these routers costs at `quality`; None if they do not reach it."""
    hull = front(points)
    for (cost, low), (next_cost, high) in pairwise(hull):
        if low <= quality <= high:
            return cost + (next_cost - cost) * (quality - low) / (high - low)
    return hull[0][0] if quality <= hull[0][1] else None


def _turns_right(one: Point, two: Point, three: Point) -> bool:
    return (two[0] - one[0]) * (three[1] - one[1]) < (two[1] - one[1]) * (three[0] - one[0])


def at_equal(
    ours: Sequence[Point], others: Mapping[str, Point]
) -> list[dict[str, float | str | None]]:
    """Our front against every other router, at its quality and at its cost.

    Returns: for each: `router`, its `cost_usd` and `em`, `our_cost_usd` at its quality (None if we do not
        reach it) and `our_em` at its cost.

    >>> at_equal([(1.0, 0.8)], {"other": (2.0, 0.4)})[0]["our_cost_usd"]
    0.5
    """
    return [
        {
            "router": name,
            "cost_usd": cost,
            "em": quality,
            "our_cost_usd": cost_at(ours, quality),
            "our_em": quality_at(ours, cost),
        }
        for name, (cost, quality) in others.items()
    ]


def fronts(ours: Sequence[Point], others: Mapping[str, Point]) -> dict[str, Any]:
    """Areas under the front, with us and without, up to the dearest router; and `at_equal`."""
    dearest = max(cost for cost, _ in (*ours, *others.values()))
    areas = (area(points, dearest) if dearest > 0 else 0.0 for points in (
        (*ours, *others.values()), list(others.values()), ours
    ))  # fmt: skip
    together, without, alone = areas
    return {
        "max_cost_usd": dearest,
        "area": together,
        "area_without_us": without,
        "area_of_us_alone": alone,
        "equal": at_equal(ours, others),
    }


def fronts_markdown(found: Mapping[str, Any]) -> str:
    """The comparison for people; dollars for a thousand questions."""
    lines = [
        f"Area under the front up to {1000 * found['max_cost_usd']:.4f} dollars per 1000 questions "
        f"(mean EM over costs): {found['area']:.3f} with our points, {found['area_without_us']:.3f} "
        f"without, {found['area_of_us_alone']:.3f} of ours alone. A mix of ours is a coin per question "
        "between two of our points, or between one and answering nothing for nothing.",
        "",
        "| router | EM | USD per 1000 | our USD at its EM | our EM at its USD |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in found["equal"]:
        mine = row["our_cost_usd"]
        price = "not reached" if mine is None else f"{1000 * mine:.4f}"
        lines.append(
            f"| {row['router']} | {row['em']:.3f} | {1000 * row['cost_usd']:.4f} | {price} "
            f"| {row['our_em']:.3f} |"
        )
    return "\n".join(lines) + "\n"
