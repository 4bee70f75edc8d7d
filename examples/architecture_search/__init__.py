"""The best of many networks, found by training each on ten distilled images (see `__main__`)."""
