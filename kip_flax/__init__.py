"""Dataset distillation with infinitely wide networks: KIP and Label Solve."""

__version__ = "0.1.0"
