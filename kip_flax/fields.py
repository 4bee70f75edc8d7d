"""The names of a configuration's fields, their types and what they may say.

The defaults and what each is for are in `configs/default.py`.
"""

from collections.abc import Sequence

from kip_flax import kernels, preprocess
from kip_flax.algorithms import _matching_fields as matching_fields
from kip_flax.networks import fields as transfer_fields

OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("constant", "cosine")
SUPPORT_DRAWS = ("real", "noise")

FIELDS: dict[str, type] = {
    "algorithm": str,
    "seed": int,
    "dataset.name": str,
    "dataset.data_dir": str,
    "dataset.image_size": int,
    "dataset.test_fraction": float,
    "dataset.validation": float,
    "preprocess": str,
    "augment": str,
    "kernel.architecture": str,
    "kernel.depth": int,
    "kernel.parameterization": str,
    "kernel.width": int,
    "kernel.w_std": float,
    "kernel.b_std": float,
    "kernel.kind": str,
    "kernel.implementation": str,
    "support.size": int,
    "support.init": str,
    "support.learn_labels": bool,
    "optimizer.name": str,
    "optimizer.learning_rate": float,
    "optimizer.schedule": str,
    "optimizer.warmup_steps": int,
    "optimizer.momentum": float,
    "batch_size": int,
    "num_steps": int,
    "reg": float,
    "mesh.data": int,
    "mesh.support": int,
    "mesh.cpu_devices": int,
    "checkpoint.every_steps": int,
    "checkpoint.keep": int,
    "eval.steps": tuple,
    "eval.num_test": int,
    "eval.batch_size": int,
    "eval.label_targets": int,
    "log.every_steps": int,
    **matching_fields.FIELDS,
    "newton.damping": float,
    "newton.iterations": int,
    "report.num_train": int,
    **transfer_fields.FIELDS,
}

CHOICES: dict[str, Sequence[str]] = {
    "preprocess": preprocess.PREPROCESSES,
    "kernel.parameterization": kernels.PARAMETERIZATIONS,
    "kernel.kind": kernels.GETS,
    "kernel.implementation": kernels.IMPLEMENTATIONS,
    "optimizer.name": OPTIMIZERS,
    "optimizer.schedule": SCHEDULES,
    **matching_fields.CHOICES,
    **transfer_fields.CHOICES,
}

# The smallest value allowed.
MINIMA: dict[str, int] = {
    "seed": 0,
    "dataset.image_size": 1,
    "kernel.width": 1,
    "support.size": 1,
    "optimizer.warmup_steps": 0,
    "batch_size": 1,
    "num_steps": 0,
    "reg": 0,
    "kernel.b_std": 0,
    "optimizer.momentum": 0,
    "mesh.cpu_devices": 0,
    "checkpoint.every_steps": 1,
    "checkpoint.keep": 1,
    "eval.num_test": 0,
    "eval.batch_size": 1,
    "eval.label_targets": 0,
    "log.every_steps": 1,
    **matching_fields.MINIMA,
    "newton.iterations": 1,
    "report.num_train": 0,
    **transfer_fields.MINIMA,
}
ABOVE_ZERO = (
    *("kernel.w_std", "optimizer.learning_rate", "newton.damping"),
    *matching_fields.ABOVE_ZERO,
)
