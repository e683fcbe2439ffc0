"""The single definition of the ZAYA1 model."""
