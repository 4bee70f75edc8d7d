"""Experiments: `default` holds every field, every other file says only what differs."""
