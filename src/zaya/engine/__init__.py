"""Text from a model, many sequences at a time, behind one way of asking for it: `engine.types`."""
