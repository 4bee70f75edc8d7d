"""`--mode=figures`."""
