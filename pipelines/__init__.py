"""The data and training pipelines, and the absl scripts that run them."""
