"""Cost against quality: which routers are worth their price, and what equal quality costs elsewhere.

A point is (cost, quality). A random choice between two routers per question reaches every point on the
line between them. So the front is the upper convex hull of the points. It starts at zero cost and zero
quality, as RouterBench's zero router does (arXiv 2403.12031).
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from routerr1.evaluate.results import Figure, Result

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


class EqualPoint(Result):
    """Another router beside our front.

    Attributes:
        our_cost_usd: what our front costs at its quality; None if we do not reach it.
        our_em: the quality of our front at its cost.
    """

    router: str
    cost_usd: Figure
    em: Figure
    our_cost_usd: Figure | None
    our_em: Figure


class Fronts(Result):
    """Areas under the front up to the most expensive router, and every other router beside ours.

    Attributes:
        area: mean quality over costs with all routers, in [0, 1].
        area_without_us: of the other routers.
        area_of_us_alone: of ours.
    """

    max_cost_usd: Figure
    area: Figure
    area_without_us: Figure
    area_of_us_alone: Figure
    equal: tuple[EqualPoint, ...]


def at_equal(ours: Sequence[Point], others: Mapping[str, Point]) -> tuple[EqualPoint, ...]:
    """Our front against every other router, at its quality and at its cost.

    >>> at_equal([(1.0, 0.8)], {"other": (2.0, 0.4)})[0].our_cost_usd
    0.5
    """
    return tuple(
        EqualPoint(
            router=name,
            cost_usd=cost,
            em=quality,
            our_cost_usd=cost_at(ours, quality),
            our_em=quality_at(ours, cost),
        )
        for name, (cost, quality) in others.items()
    )


def fronts(ours: Sequence[Point], others: Mapping[str, Point]) -> Fronts:
    """Areas under the front, with us and without, up to the most expensive router; and `at_equal`."""
    most = max(cost for cost, _ in (*ours, *others.values()))
    together, without, alone = (
        area(points, most) if most > 0 else 0.0
        for points in ((*ours, *others.values()), list(others.values()), ours)
    )
    return Fronts(
        max_cost_usd=most,
        area=together,
        area_without_us=without,
        area_of_us_alone=alone,
        equal=at_equal(ours, others),
    )
