"""Whether an evaluation was made while candidates were out of reach."""

from collections.abc import Sequence

from routerr1.evaluate.rows import Row

_MANY = 0.05  # share of failed calls from which on the figures are those of an outage


def outage(rows: Sequence[Row]) -> str | None:
    """What to do about an evaluation in which many calls failed; None for few.

    DVC does not evaluate again by itself: nothing that it sees has changed when the candidates are back.
    """
    calls, failed = sum(row.calls for row in rows), sum(row.failures for row in rows)
    if failed <= _MANY * calls:
        return None
    return (
        f"{failed:,} of {calls:,} calls of the evaluation failed, so its figures are those of an outage. When the "
        "candidates answer (`routerr1 pool check FILE`), evaluate again: `dvc repro --force --single-item evaluate "
        "generalize`, then `dvc repro`."
    )
