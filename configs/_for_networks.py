"""What the experiments of FRePo and BPTT share: the settings of ten images per class."""


def are_ten(setting: str, *others: str) -> bool:
    """Whether a set has ten images per class, not one.

    Args:
        setting: what follows the colon of `--config`.
        others: settings that are allowed beside '1' and '10' images per class.

    Raises:
        ValueError: no settings were tried for so many.
    """
    if setting not in ("1", "10", *others):
        raise ValueError(
            f"{setting} images per class have not been tried: write "
            f"{' or '.join(('1', '10', *others))} after the colon, or set config.support.size and "
            f"config.num_steps."
        )
    return setting == "10"
