"""The cascade as a SavedModel that loops over its stages."""
