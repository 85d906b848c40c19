"""Checkpoints of a training: written whole, the newest sound one read back."""

from __future__ import annotations

import pathlib
import time

import tensorflow as tf
from absl import logging

from deeppose_tf.pipelines.train import strategies
from deeppose_tf.pipelines.train.step import State

KEPT = 2
# TensorFlow would save into such a folder, but never find what is there.
PATTERNS = "*?[]\\"


class Checkpoints:
    """The checkpoints of one training, in a folder that all its workers see.

    Raises:
      ValueError: TensorFlow would take the folder's name for a pattern.
    """

    def __init__(self, state: State, folder: str, strategy: tf.distribute.Strategy):
        if any(letter in str(folder) for letter in PATTERNS):
            raise ValueError(
                f"{folder}: TensorFlow cannot read checkpoints below a name with any "
                f"of {' '.join(PATTERNS)}; give another --run"
            )
        self._folder = str(folder)
        self._checkpoint = tf.train.Checkpoint(**state._asdict())
        own = pathlib.Path(folder)
        if not strategies.is_chief(strategy):
            # Reading what is spread over the replicas takes all workers, so that all
            # of them save; what the others wrote is not read.
            own = own / strategies.worker(strategy)
        self._manager = tf.train.CheckpointManager(self._checkpoint, str(own), KEPT)
        self._saved = time.monotonic()

    def restore(self) -> None:
        """Reads the newest checkpoint into the state, or an older one if it is damaged.

        Raises:
          ValueError: there are checkpoints, and none can be read.
        """
        found = tf.train.get_checkpoint_state(self._folder)
        paths = list(found.all_model_checkpoint_paths) if found else []
        for path in reversed(paths):
            try:
                status = self._checkpoint.restore(path)
                # Not all need be read at once: optimizers of tensorflow-addons make
                # their state at the first step, and take it from here then.
                status.assert_existing_objects_matched()
                return
            except Exception as error:  # TensorFlow has many kinds for damaged files.
                logging.warning("%s cannot be read: %s", path, _first_line(error))
        if paths:
            raise ValueError(
                f"none of the checkpoints in {self._folder} can be read: they are "
                "damaged, or of another version. Remove that folder to start the "
                "stage again"
            )

    def save(self, step: int) -> None:
        """Writes a checkpoint; a killed call leaves those before."""
        self._manager.save(step)
        self._saved = time.monotonic()

    def age(self) -> float:
        """Seconds since the last one, or since the start."""
        return time.monotonic() - self._saved


def _first_line(error):
    return str(error).strip().partition("\n")[0]
