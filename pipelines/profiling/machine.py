"""What a program computes on."""

from __future__ import annotations

import os

import tensorflow as tf


def cores() -> int | None:
    """Processor cores that this process may use, where the system tells."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count()


def device() -> str:
    """The name of the first GPU, or that there is none."""
    found = tf.config.list_physical_devices("GPU")
    if not found:
        return "no GPU"
    return tf.config.experimental.get_device_details(found[0])["device_name"]
