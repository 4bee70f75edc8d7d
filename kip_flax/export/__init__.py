"""Files of distilled sets: ours and those of others."""

from kip_flax.architectures import published_name as architecture_name
from kip_flax.export.sets import (
    INDEX_COLUMNS,
    Distilled,
    distilled_name,
    load_distilled,
    update_index,
    write_distilled,
)

__all__ = [
    "INDEX_COLUMNS",
    "Distilled",
    "architecture_name",
    "distilled_name",
    "load_distilled",
    "update_index",
    "write_distilled",
]
