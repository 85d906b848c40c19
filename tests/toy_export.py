"""A run of `toy_cascade`, and image files to try exported models on."""

import io
import pathlib

import numpy as np
import toy_cascade
from PIL import Image

from deeppose_tf import stage
from deeppose_tf.skeleton import LSP


def save_run(folder, stages=3):
    """Writes the run, and returns its cascade."""
    cascade = toy_cascade.make(LSP, toy_cascade.CONFIGS[:stages])
    for number, one in enumerate(cascade.stages, start=1):
        stage.save_stage(one, str(pathlib.Path(folder) / f"stage_{number}"))
    cascade.save_index(str(folder))
    return cascade


def encode(pixels, form, **settings):
    """[H, W, 3] or [H, W] uint8, or an image of Pillow, -> the bytes of a file."""
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()
