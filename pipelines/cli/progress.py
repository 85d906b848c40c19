"""Progress bars of long work, each under its title and with the time left."""

from __future__ import annotations

from collections.abc import Callable

from tensorflow import keras


def bar(title: str, total: int) -> Callable[[int], None]:
    """A bar with the time left, under its title."""
    print(title, flush=True)
    return keras.utils.Progbar(total, unit_name="item", interval=0.5).update


def drawing() -> Callable[[int, int], None]:
    """One bar after the other: the pictures of each split are counted anew."""
    bars = {}

    def update(done: int, total: int) -> None:
        if done == 1:
            bars["now"] = bar(f"Drawing {total} pictures", total)
        bars["now"](done)

    return update
