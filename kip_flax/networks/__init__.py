"""Finite networks: built from descriptions, the published ones, their training and kernel."""
