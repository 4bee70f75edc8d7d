"""Parquet in the Hugging Face layout of image data sets, so that `datasets` shows the pictures.

The schema's metadata under `huggingface` describes the columns to `datasets`. Other readers see a
struct of PNG bytes, a number and lists.
"""

import io
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from kip_flax.export.pictures import file_names, png_bytes
from kip_flax.runtime.files import write_bytes_atomic


def write(
    path: str | os.PathLike[str],
    images: np.ndarray,
    labels: np.ndarray,
    pictures: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Writes one row for each image, atomically.

    Columns: `image` (a PNG, to look at), `label` (class of the largest label), `soft_label` (the
    label as learned, C floats) and `array` (the image as learned, float32 (H, W, channels)).

    Args:
        path: the file, ending in .parquet.
        images: (S, H, W, channels) as learned.
        labels: (S, C).
        pictures: uint8 (S, H, W, channels).
        class_names: C names.

    Raises:
        UserError: the file cannot be written.
    """
    classes = labels.argmax(axis=1)
    pngs = [
        {"bytes": png_bytes(picture), "path": name.replace("/", "_")}
        for picture, name in zip(pictures, file_names(classes, class_names), strict=True)
    ]
    columns = {
        "image": pa.array(pngs, pa.struct({"bytes": pa.binary(), "path": pa.string()})),
        "label": pa.array(classes, pa.int64()),
        "soft_label": _lists(np.asarray(labels, np.float32)),
        "array": _lists(np.asarray(images, np.float32)),
    }
    metadata = {"info": {"features": _features(class_names)}}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(metadata)})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    write_bytes_atomic(path, buffer.getvalue())


def _features(class_names: Sequence[str]) -> dict[str, Any]:
    """The columns as `datasets` describes them, with names that all of its versions know."""
    value: dict[str, Any] = {"dtype": "float32", "_type": "Value"}
    row = {"feature": value, "_type": "Sequence"}
    picture = {"feature": {"feature": row, "_type": "Sequence"}, "_type": "Sequence"}
    return {
        "image": {"_type": "Image"},
        "label": {"names": list(class_names), "_type": "ClassLabel"},
        "soft_label": row,
        "array": picture,
    }


def _lists(array: np.ndarray) -> pa.Array:
    """An array (n, a, b ...) as n lists of lists."""
    values = pa.array(array.ravel())
    for size in reversed(array.shape[1:]):
        offsets = pa.array(np.arange(0, len(values) + 1, size, dtype=np.int32))
        values = pa.ListArray.from_arrays(offsets, values)
    return values
