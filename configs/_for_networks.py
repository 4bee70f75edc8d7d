"""What the experiments of FRePo and BPTT share: the settings of ten images per class."""


def are_ten(images_per_class: str) -> bool:
    """Whether a set has ten images per class, not one.

    Args:
        images_per_class: what follows the colon of `--config`.

    Raises:
        ValueError: no settings were tried for so many.
    """
    if images_per_class not in ("1", "10"):
        raise ValueError(
            f"{images_per_class} images per class have not been tried: write 1 or 10 after the "
            f"colon, or set config.support.size and config.num_steps."
        )
    return images_per_class == "10"
