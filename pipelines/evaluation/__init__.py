"""Scores of a cascade, or of anyone's predictions, on prepared data."""
