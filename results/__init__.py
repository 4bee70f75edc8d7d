"""Measured results: experiments, the script that runs them, and the table."""
