"""Class-incremental learning from a memory of real or distilled images."""
