"""One run: its folder, its loop, its checkpoints, and what is measured of it."""
