"""Files of distilled sets: ours and those of others."""

from kip_flax.export.sets import (
    FIRST_CLASSES,
    INDEX_COLUMNS,
    Description,
    Distilled,
    check_fits,
    check_is_free,
    distilled_name,
    load_distilled,
    update_index,
    write_distilled,
)

__all__ = [
    "FIRST_CLASSES",
    "INDEX_COLUMNS",
    "Description",
    "Distilled",
    "check_fits",
    "check_is_free",
    "distilled_name",
    "load_distilled",
    "update_index",
    "write_distilled",
]
