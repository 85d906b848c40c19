"""The data and training pipelines, and the absl scripts that run them."""

import os

# TensorFlow greets on stderr, and one line of ours about a wrong flag drowns in it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
