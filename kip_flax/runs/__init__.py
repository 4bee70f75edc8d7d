"""One run: its setup, loop, checkpoints, evaluations, and the files in its folder."""
