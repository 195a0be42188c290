"""Show how an audit goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar


class Progress:
    """Print a line for every finished item and, on a terminal, a bar with what is running."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(soft_wrap=True, highlight=False)
        self.total = 0
        self.count = 0
        self._running: list[str] = []
        self._bar = Bar(
            TextColumn("audit"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=self.console,
            transient=True,
        )
        self._task = self._bar.add_task("")

    def begin(self, total: int, done: int) -> None:
        """Start to show an audit of `total` items, `done` of which stand already."""
        self.total, self.count = total, done
        self._bar.update(self._task, total=total, completed=done)
        self.console.print(f"{total} items, {done} computed by this checkout before")
        if self.console.is_terminal:
            self._bar.start()

    def started(self, name: str) -> None:
        """Show that an item runs."""
        self._running.append(name)
        self._show()

    def finished(self, name: str, line: str, seconds: float) -> None:
        """Print how an item ended."""
        self._running.remove(name)
        self.count += 1
        width = len(str(self.total))
        self.console.print(
            f"[{self.count:>{width}}/{self.total}] {name}  {line}  ({seconds:.1f} s)", markup=False
        )
        self._show()

    def end(self) -> None:
        """Take the bar away."""
        if self._bar.live.is_started:
            self._bar.stop()

    def _show(self) -> None:
        self._bar.update(self._task, completed=self.count, description=escape(", ".join(self._running)))
