"""Reads one variable of a MATLAB file; the border where those files can be bad."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Sequence

import numpy as np
import scipy.io

from deeppose_tf.datasets import Missing


def load(path: pathlib.Path, name: str) -> np.ndarray:
    """The variable `name` of a MAT-file, as float64; beyond float32 is infinite.

    Raises:
      ValueError: the file is missing, empty, damaged, or has no such array of
        numbers; names the file and what to do.
      OSError: it cannot be read: no permission, for one.
    """
    array = np.asarray(_variable(path, name))
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path}: {name!r} holds {array.dtype}, expected numbers")
    array = array.astype(np.float64)
    return np.where(np.abs(array) > np.finfo(np.float32).max, np.inf, array)


def load_structs(path: pathlib.Path, name: str, fields: Sequence[str]) -> list[dict]:
    """The struct array `name` of a MAT-file: a dict for each of its elements.

    Inside, structs are dicts, struct arrays lists of them, and axes of length one are
    gone: an array of one struct is that struct, see `listed`.

    Args:
      fields: that every element must have.

    Raises:
      ValueError: as `load`, or it is no struct or lacks a field.
      OSError: as `load`.
    """
    structs = listed(_variable(path, name, simplify_cells=True))
    if not structs:
        raise ValueError(f"{path}: {name!r} holds no structs. Is it the official file?")
    for field in fields:
        if field not in structs[0]:
            found = ", ".join(structs[0])
            raise ValueError(f"{path}: {name!r} has no field {field!r}, only: {found}")
    return structs


def listed(value) -> list[dict]:
    """A simplified struct array as a list, also where it has one element, or none."""
    values = value if isinstance(value, list) else [value]
    return [value for value in values if isinstance(value, dict)]


def _variable(path: pathlib.Path, name: str, **how):
    if not path.is_file():
        raise Missing(f"{path}: no such file. {_advice(path)}")
    stored = path.read_bytes()  # scipy would tell no permission from damage.
    try:
        content = scipy.io.loadmat(io.BytesIO(stored), **how)
    except NotImplementedError as error:
        raise ValueError(
            f"{path}: saved by MATLAB as version 7.3, which is not read here. In "
            "MATLAB, save it again with '-v7'"
        ) from error
    except Exception as error:  # Damage surfaces in scipy as nearly any exception.
        raise ValueError(
            f"{path}: empty, damaged or not a MATLAB file ({error}). Get it again"
        ) from error
    if name not in content:
        found = ", ".join(sorted(k for k in content if not k.startswith("__")))
        raise ValueError(f"{path}: has no variable {name!r}, only: {found or 'none'}")
    return content[name]


def _advice(path: pathlib.Path) -> str:
    """What to do about a missing file; people often name a folder too high."""
    if path.parent.is_file():
        return f"{path.parent} is a file: give the folder that holds {path.name}"
    nested = sorted(path.parent.glob(f"*/{path.name}"))
    if nested:
        return f"There is one in {nested[0].parent}: give that folder"
    return f"Give the folder of the official release, with {path.name} and images"
