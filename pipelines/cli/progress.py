"""Progress of long work: a bar with the time left; in a log file, a line a minute."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tqdm import tqdm

# Between two lines where the bar cannot be drawn over.
LOG_SECONDS = 60.0


class _Bar(tqdm):
    """In a file each state of the bar is a line of its own."""

    def display(self, msg=None, pos=None):
        if self.fp.isatty():
            return super().display(msg, pos)
        self.fp.write(f"{msg or self}\n")
        self.fp.flush()
        return True


def bar(
    total: int | None, title: str, unit: str, start: int = 0, shown: bool = True
) -> tqdm:
    """A bar on standard output, to be used in a `with` statement.

    `update(n)` moves it by n, `set_postfix(loss=..., refresh=False)` shows numbers.

    Args:
      total: how much there is to do; None where that is not known.
      title: what is done.
      unit: of what is counted, such as `image`.
      start: what is done already, which does not count for the time left.
      shown: whether to show anything.
    """
    drawn = sys.stdout.isatty()
    return _Bar(
        total=total,
        desc=title,
        unit=f" {unit}",
        initial=start,
        disable=not shown,
        file=sys.stdout,
        mininterval=0.2 if drawn else LOG_SECONDS,
        maxinterval=10.0 if drawn else 2 * LOG_SECONDS,
        dynamic_ncols=drawn,
        ascii=not drawn,
    )


def reporter(total: int, title: str, unit: str) -> Callable[[int], None]:
    """A bar as a function of how much is done, for those who take a callback."""
    shown = bar(total, title, unit)

    def update(done: int) -> None:
        shown.update(done - shown.n)
        if done >= total:
            shown.close()

    return update
