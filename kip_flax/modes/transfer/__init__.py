"""`--mode=transfer`."""
