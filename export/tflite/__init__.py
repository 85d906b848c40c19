"""The cascade as one TFLite file for phones."""
