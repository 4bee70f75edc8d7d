"""Distilled sets in the forms that other tools read, and other people's sets in ours."""
