"""The data and training pipelines, and the commands that run them."""
