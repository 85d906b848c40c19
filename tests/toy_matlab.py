"""Struct arrays as MATLAB writes them, from lists of dicts."""

import numpy as np
import scipy.io


def structs(values):
    """A 1 x N struct array; values may themselves be struct arrays."""
    names = list(values[0]) if values else ["empty"]
    array = np.empty((1, len(values)), [(name, object) for name in names])
    for i, value in enumerate(values):
        array[0, i] = tuple(value[name] for name in names)
    return array


def save(path, name, values):
    scipy.io.savemat(path, {name: structs(values)})
