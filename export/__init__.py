"""Trained cascades as SavedModel and TFLite."""
