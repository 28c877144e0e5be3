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
        self._began = time.monotonic()
        self._told = self._began

    def update(self, done: int | None = None, total: int | None = None, note: str = "") -> None:
        """Set what is done (one more by default), and a short note such as the current reward."""
        self.done = self.done + 1 if done is None else done
        self.total = self.total if total is None else total
        self._show(note)

    def _show(self, note: str) -> None:
        now = time.monotonic()
        if now - self._told < _LINE_EVERY_S and self.done < self.total:
            return
        self._told = now
        elapsed = now - self._began
        rate = self.done / elapsed if elapsed else 0.0
        left = (self.total - self.done) / rate if rate else 0.0
        _log.info(
            "%s: %d of %d, %.1f/s, %.0f s left%s",
            self.label, self.done, self.total, rate, left, f", {note}" if note else "",
        )  # fmt: skip


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
        self._task = self.bars.add_task(label, total=total, rate="", note="")

    def _show(self, note: str) -> None:
        elapsed = time.monotonic() - self._began
        rate = f"{self.done / elapsed:.1f}/s" if elapsed > 0 else ""
        self.bars.update(self._task, completed=self.done, total=self.total, rate=rate, note=note)


@contextmanager
def track(label: str, total: int) -> Iterator[Progress]:
    """Show progress on standard error for the duration of a block."""
    if not sys.stderr.isatty():
        yield Progress(label, total)
        return
    bar = _Bar(label, total)
    with bar.bars:
        yield bar
