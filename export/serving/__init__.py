"""A client of TensorFlow Serving, for what `deeppose-export` wrote."""

from deeppose_tf.export.serving.client import Client, Refused, ServerError

__all__ = ["Client", "Refused", "ServerError"]
