"""Progress of anything that takes more than a moment: a bar with rate and ETA, or lines where none can be drawn."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)
_LINE_EVERY_S = 15.0


class Progress:
    """Handed to whatever does the work; `update` may be called at any rate."""

    def __init__(self, label: str, total: int) -> None:
        self.label = label
        self.total = total
        self.done = 0
        self._told = time.monotonic()
        self._first: tuple[float, int] | None = None

    def update(self, done: int | None = None, total: int | None = None, note: str = "") -> None:
        """Set what is done (one more by default), and a short note such as the current reward."""
        self.done = self.done + 1 if done is None else done
        self.total = self.total if total is None else total
        # Resumed work starts with what was done before, which took no time now.
        self._first = self._first or (time.monotonic(), self.done)
        self._show(note)

    @property
    def rate(self) -> float:
        """Units a second since the first report; 0 where there was no other."""
        if self._first is None:
            return 0.0
        began, before = self._first
        elapsed = time.monotonic() - began
        return (self.done - before) / elapsed if elapsed > 0 else 0.0

    def _show(self, note: str) -> None:
        now = time.monotonic()
        if now - self._told < _LINE_EVERY_S and self.done < self.total:
            return
        self._told = now
        rate = self.rate
        pace = f", {rate:.1f}/s, {(self.total - self.done) / rate:.0f} s left" if rate else ""
        _log.info(
            "%s: %d of %d%s%s", self.label, self.done, self.total, pace, f", {note}" if note else ""
        )


class _Bar(Progress):
    """Draws with rich."""

    def __init__(self, label: str, total: int) -> None:
        super().__init__(label, total)
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        self.bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=Console(stderr=True),
        )
        # Nothing to do is a total that is not known yet: the bar then only moves.
        self._task = self.bars.add_task(label, total=total or None, rate="", note="")

    def _show(self, note: str) -> None:
        rate = f"{self.rate:.1f}/s" if self.rate else ""
        self.bars.update(
            self._task, completed=self.done, total=self.total or None, rate=rate, note=note
        )


@contextmanager
def working(label: str) -> Iterator[None]:
    """Around what has no parts to count: the seconds so far, on standard error, gone at the end."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        bars.add_task(label, total=None)
        yield


@contextmanager
def track(label: str, total: int) -> Iterator[Progress]:
    """Show progress on standard error for the duration of a block."""
    if not sys.stderr.isatty():
        yield Progress(label, total)
        return
    bar = _Bar(label, total)
    with bar.bars:
        yield bar
