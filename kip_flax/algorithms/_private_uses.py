"""What a private run must not use: training images but for the noisy sums, and a used budget."""

from collections.abc import Collection

from ml_collections import ConfigDict

from kip_flax.preprocess import CONSTANT
from kip_flax.runtime.errors import UserError


def check(config: ConfigDict) -> None:
    """Raises UserError on `augment`, or if more than the noisy sums would use training images."""
    if config.augment:
        raise UserError(f"augment is {config.augment!r} and dp_kip augments nothing: take ''.")
    constant = " or ".join(map(repr, CONSTANT))
    others = config.dataset.preprocess_from not in ("", config.dataset.name)
    fitted = config.preprocess not in CONSTANT and not others
    secret = config.privacy.noise_seed < 0
    for name, wrong, advice in (
        ("support.init", config.support.init != "noise", "take 'noise'"),
        ("preprocess", fitted, f"take {constant}, or fit it on others (dataset.preprocess_from)"),
        ("report.num_train", config.report.num_train, "take 0: neighbours are training images"),
        (
            "eval.networks",
            config.eval.networks,
            "take (), and --mode=transfer afterwards, which is not private",
        ),
        (
            "dataset.validation",
            config.dataset.validation and secret,
            "take 0, or an experiment that is not private (privacy.noise_seed=0)",
        ),
    ):
        if wrong:
            raise UserError(f"{name} must not use training images in dp_kip: {advice}.")


def check_beginning(config: ConfigDict, earlier: Collection[int]) -> None:
    """Raises UserError if a run would release steps again of which the folder has results."""
    if config.privacy.noise_seed < 0 and max(earlier, default=0) > 0:
        raise UserError(
            "the folder has results of steps whose checkpoints are gone: the epsilon of steps in "
            "their place would add to theirs: take another --workdir, and count both."
        )
