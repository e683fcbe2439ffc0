"""Kernels of our own for the CPU, and the door to them. Where they are not built everything runs without them."""
