"""Errors, files, devices, processes and metrics: nothing here knows an experiment."""
