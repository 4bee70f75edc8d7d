"""`--mode=compare`."""
