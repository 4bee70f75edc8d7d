"""Errors, files, devices, processes and metrics: independent of any experiment."""
