"""Trained cascades that ship inside the package, by name. No TensorFlow."""

from __future__ import annotations

import pathlib

from deeppose_tf.config import INDEX

FOLDER = pathlib.Path(__file__).parent / "presets"


def list_presets() -> list[str]:
    """The names that `Cascade.from_preset` takes. This version ships none."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{INDEX}"))


def preset_run(name: str) -> str:
    """The run directory of a preset.

    Raises:
      ValueError: there is none of this name; says which there are.
    """
    names = list_presets()
    if name in names:
        return str(FOLDER / name)
    there = f"there are {', '.join(names)}" if names else "this version ships none"
    raise ValueError(
        f"no preset {name!r}: {there}. Cascade.load takes a folder that deeppose-train "
        "wrote"
    )
