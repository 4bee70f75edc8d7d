"""Writes what `torch.load` reads, without torch: a zip archive of a pickle and raw storages.

The form is that of `torch.save` since PyTorch 1.6. The pickle names nothing beyond what
`torch.load(weights_only=True)` allows.
"""

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kip_flax.runtime.files import write_bytes_atomic

STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # The same content gives the same bytes.


def write(path: str | os.PathLike[str], content: Any) -> None:
    """Writes `content` atomically; see `file_bytes`. UserError if the file cannot be written."""
    write_bytes_atomic(path, file_bytes(content))


def file_bytes(content: Any) -> bytes:
    """A file of `torch.save`, in which every array is a tensor.

    Args:
        content: arrays of the types of `STORAGES`, str, int, float, and dicts, lists and tuples of
            such.

    Raises:
        TypeError: anything else.
    """
    storages: list[np.ndarray] = []
    pickled = b"\x80\x02" + _pickled(content, storages) + pickle.STOP
    entries = {"data.pkl": pickled, "byteorder": b"little"}
    for number, array in enumerate(storages):
        entries[f"data/{number}"] = array.astype(array.dtype.newbyteorder("<")).tobytes()
    entries["version"] = b"3\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}", _EPOCH), data)
    return buffer.getvalue()


def _pickled(value: Any, storages: list[np.ndarray]) -> bytes:
    """The pickle's opcodes (protocol 2) that put `value` on its stack; arrays join `storages`."""
    if isinstance(value, np.ndarray):
        storages.append(np.ascontiguousarray(value))
        return _tensor(value, len(storages) - 1)
    if isinstance(value, Mapping):
        items = b"".join(_pickled(part, storages) for item in value.items() for part in item)
        return pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS
    if isinstance(value, tuple):
        return pickle.MARK + b"".join(_pickled(v, storages) for v in value) + pickle.TUPLE
    if isinstance(value, list):
        items = b"".join(_pickled(v, storages) for v in value)
        return pickle.EMPTY_LIST + pickle.MARK + items + pickle.APPENDS
    return _scalar(value)


def _scalar(value: Any) -> bytes:
    if isinstance(value, bool):
        return pickle.NEWTRUE if value else pickle.NEWFALSE
    if isinstance(value, int):
        data = pickle.encode_long(value)
        return pickle.LONG1 + bytes([len(data)]) + data
    if isinstance(value, float):
        return pickle.BINFLOAT + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode()
        return pickle.BINUNICODE + struct.pack("<I", len(data)) + data
    raise TypeError(f"a file of torch.save is written of arrays, str and numbers, not {value!r}")


def _tensor(array: np.ndarray, number: int) -> bytes:
    """`torch._utils._rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict())`."""
    kind = STORAGES.get(array.dtype.name)
    if kind is None:
        raise TypeError(f"an array of {array.dtype} has no place in a file of torch.save")
    strides = np.cumprod((1, *array.shape[:0:-1]))[::-1] if array.ndim else ()
    return (
        _name("torch._utils", "_rebuild_tensor_v2")
        + pickle.MARK
        + _storage(kind, number, array.size)
        + _scalar(0)
        + _ints(array.shape)
        + _ints([int(stride) for stride in strides])
        + pickle.NEWFALSE
        + _name("collections", "OrderedDict")
        + pickle.EMPTY_TUPLE
        + pickle.REDUCE
        + pickle.TUPLE
        + pickle.REDUCE
    )


def _storage(kind: str, number: int, size: int) -> bytes:
    """The persistent id by which the archive's entry `data/number` is meant."""
    parts = (_scalar("storage"), _name("torch", kind), _scalar(str(number)), _scalar("cpu"))
    return pickle.MARK + b"".join(parts) + _scalar(size) + pickle.TUPLE + pickle.BINPERSID


def _ints(values: Sequence[int]) -> bytes:
    return pickle.MARK + b"".join(_scalar(value) for value in values) + pickle.TUPLE


def _name(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()
