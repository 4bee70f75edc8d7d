"""`--mode=report`."""
