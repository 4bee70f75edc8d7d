"""The exact convolutional kernel compiled by numba for CPUs; `kernel.py` is the entry point."""
