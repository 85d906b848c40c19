"""A run directory of `toy_cascade`, and pictures to try exported models on."""

import io
import pathlib

import cv2
import numpy as np
import toy_cascade
from PIL import Image

from deeppose_tf import stage
from deeppose_tf.skeleton import LSP


def save_run(folder):
    """Writes the run directory, and returns its cascade."""
    cascade = toy_cascade.make(LSP)
    for number, one in enumerate(cascade.stages, start=1):
        stage.save_stage(one, str(pathlib.Path(folder) / f"stage_{number}"))
    cascade.save_index(str(folder))
    return cascade


def picture(height, width, seed=0):
    """[H, W, 3] uint8: patches of smooth colour."""
    patches = np.random.default_rng(seed).uniform(0, 255, (6, 5, 3)).astype(np.float32)
    large = cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(large, 0, 255).astype(np.uint8)


def encode(pixels, form, **settings):
    """[H, W, 3] or [H, W] uint8, or an image of Pillow, -> the bytes of a file."""
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()
