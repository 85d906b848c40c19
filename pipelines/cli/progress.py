"""Progress of long work: a bar with the time left; in a log file, a line now and then.

In a file lines come after 1, 2, 4, ... seconds and then every minute: soon enough to
see that it works, and few.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

# Between two lines in a file, at most.
LOG_SECONDS = 60.0
# How many are done comes first, for those who read a log by program.
DRAWN = "{n_fmt}/{total_fmt} {desc} {bar} {percentage:3.0f}% {elapsed}<{remaining}"
LOGGED = DRAWN.replace(" {bar}", "")
REST = ", {rate_fmt}{postfix}"


class _Bar(tqdm):
    """In a file each state of the bar is a line of its own."""

    def __init__(self, *args, **kwargs):
        self._begun, self._wait, self._last = time.monotonic(), 1.0, None
        super().__init__(*args, **kwargs)

    @staticmethod
    def format_meter(*numbers, **settings):
        # The unit begins with a space, for numbers before it: 4.05 s/image, too.
        return tqdm.format_meter(*numbers, **settings).replace("s/ ", " s/")

    def display(self, msg=None, pos=None):
        if self.fp.isatty():
            return super().display(msg, pos)
        passed = time.monotonic() - self._begun
        ends = self.total is not None and self.n >= self.total
        if self.n == self._last or (passed < self._wait and not ends):
            return True
        self._wait = max(passed, self._wait) + min(max(passed, 1.0), LOG_SECONDS)
        self._last = self.n
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
      unit: of what is counted, such as `image`.
      start: what is done already, which does not count for the time left.
    """
    drawn = sys.stdout.isatty()
    return _Bar(
        total=total,
        desc=title,
        unit=f" {unit}",
        initial=start,
        disable=not shown or total == 0,
        file=sys.stdout,
        mininterval=0.2,
        dynamic_ncols=drawn,
        bar_format=None if total is None else (DRAWN if drawn else LOGGED) + REST,
    )


def reporter(total: int, title: str, unit: str) -> Callable[[int], None]:
    """A bar as a function of how much is done, for those who take a callback."""
    shown = bar(total, title, unit)

    def update(done: int) -> None:
        shown.update(done - shown.n)
        if done >= total:
            shown.close()

    return update
