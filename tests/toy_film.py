"""Folders of the form of FLIC and of Buffy, mostly without their images."""

import numpy as np
import scipy.io
from PIL import Image
from toy_matlab import save

from deeppose_tf.datasets import flic

# One frame of `sticks`, by hand: an upright body that faces the camera.
TORSO, HEAD = [(100, 60), (102, 160)], [(100, 58), (98, 20)]
LEFT_UPPER, LEFT_LOWER = [(70, 66), (60, 100)], [(62, 104), (40, 130)]
RIGHT_UPPER, RIGHT_LOWER = [(130, 66), (140, 100)], [(140, 104), (160, 90)]
STICKS = np.array(
    [TORSO, LEFT_UPPER, RIGHT_UPPER, LEFT_LOWER, RIGHT_LOWER, HEAD], float
)


def flic_example(number, **changes):
    """A person whose joint in column c is at (c + 1, number + 1), facing the camera."""
    coords = np.full((2, 29), np.nan)
    for column in (*flic.COLUMNS, 16):
        coords[:, column] = column + 1, number + 1
    coords[0, [0, 6]] = 90, 91  # The left shoulder and hip are at the image's right.
    return {
        "poselet_hit_idx": np.arange(3),
        "moviename": "film",
        "coords": coords,
        "filepath": f"film-{number:08d}.jpg",
        "imgdims": np.array([288, 432, 3]),
        "currframe": number,
        "torsobox": np.array([10, 20, 30, 50], np.float32),
        "istrain": 1,
        "istest": 0,
    } | changes


def make_flic(folder, examples):
    (folder / "images").mkdir(exist_ok=True)
    save(folder / "examples.mat", "examples", examples)
    return str(folder)


def flic_data(folder, **changes):
    """What prepares a FLIC, made with its images, of four people to train on and one to
    test on."""
    root = make_flic(
        folder,
        [flic_example(i, istest=int(i == 4), istrain=int(i < 4)) for i in range(5)],
    )
    for i in range(5):
        Image.new("RGB", (120, 80)).save(folder / "images" / f"film-{i:08d}.jpg")
    return {
        "dataset": ("flic",),
        "source": (root,),
        "output": str(folder / "out"),
        "validation": 1,
        "boxes": ("face", "torso"),
        "coverage": 0.99,
    } | changes


def flic_plus(folder, numbers):
    path = folder / "tr_plus_indices.mat"
    scipy.io.savemat(path, {"tr_plus_indices": np.array(numbers)[:, None]})
    return str(path)


def write_sticks(folder, episode, frames):
    """An episode in the official layout; `frames` are [6, 2, 2] by number."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "images" / f"buffy_s5e{episode}_original").mkdir(parents=True)
    lines = []
    for number, sticks in frames.items():
        lines += [str(number)] + [" ".join(map(str, s)) for s in sticks.reshape(6, 4)]
    path = folder / "data" / f"buffy_s5e{episode}_sticks.txt"
    path.write_text("\n".join(lines) + "\n")
    return path
