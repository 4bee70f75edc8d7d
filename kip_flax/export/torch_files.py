"""Files of `torch.save`, written and read without torch.

Reading runs no code of a file. Both forms are read: the zip archive (PyTorch 1.6 and later) and the
stream of pickles before it. The unpickler knows the few names that tensors need. It skips NumPy's
values, such as accuracies that some files keep beside their tensors, and refuses any other name.

Files are written as zip archives, with only names that `torch.load(weights_only=True)` allows.
"""

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kip_flax.runtime.errors import UserError
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
_DTYPES = {storage: np.dtype(name).newbyteorder("<") for name, storage in STORAGES.items()}
_MAGIC = 0x1950A86A20F9469CFC6C  # The first pickle of the older form.
_EPOCH = (1980, 1, 1, 0, 0, 0)  # A fixed date: the same content gives the same bytes.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError),
    *(ArithmeticError, MemoryError, RuntimeError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error),
)


class Skipped:
    """A value that is not read, such as a NumPy number beside the tensors."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


@dataclass(frozen=True)
class _Storage:
    dtype: np.dtype
    key: str
    size: int


@dataclass(frozen=True)
class _Tensor:
    """A tensor whose numbers are not read yet."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, read: Callable[[_Storage], bytes]) -> np.ndarray:
        """The tensor as an array; ValueError if it reaches beyond its storage."""
        flat = np.frombuffer(read(self.storage), self.storage.dtype, self.storage.size)
        if len(self.shape) != len(self.strides) or min((*self.shape, *self.strides, 0)) < 0:
            raise ValueError(f"a tensor of shape {self.shape} and strides {self.strides}")
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((size - 1) * step for size, step in steps)
        if not 0 <= self.offset <= len(flat) or (0 not in self.shape and last >= len(flat)):
            raise ValueError("a tensor larger than its storage")
        strides = [stride * flat.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides)
        return view.astype(self.storage.dtype.newbyteorder("="))


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Unpickler(pickle.Unpickler):
    _allowed: dict[tuple[str, str], Any] = {  # noqa: RUF012 (never changed)
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): Skipped,
        ("numpy", "dtype"): Skipped,
        ("numpy", "ndarray"): Skipped,
        ("numpy.core.multiarray", "scalar"): Skipped,
        ("numpy._core.multiarray", "scalar"): Skipped,
        ("numpy.core.multiarray", "_reconstruct"): Skipped,
        ("numpy._core.multiarray", "_reconstruct"): Skipped,
    }

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")
        return self._allowed[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size = pid[:5]
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError("a persistent object that is no storage")
        return _Storage(dtype, str(key), int(size))


def read(path: str | os.PathLike[str]) -> Any:
    """The content of a file of `torch.save`, with an array in place of every tensor.

    Returns:
        dicts, lists and tuples as they were saved; `Skipped` in place of NumPy's values.

    Raises:
        UserError: the file is missing or damaged, is no such file, or holds anything else.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        return _read_zip(data) if zipfile.is_zipfile(io.BytesIO(data)) else _read_stream(data)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: name a file that does.") from None
    except _UNREADABLE as error:
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path} is not a file of torch.save with tensors alone ({line}): save images and "
            f"labels anew with torch.save."
        ) from error


def _read_zip(data: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        (pickled,) = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
        root = pickled.removesuffix("data.pkl")
        if root + "byteorder" in names and archive.read(root + "byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        content = _Unpickler(io.BytesIO(archive.read(pickled))).load()
        return _resolved(content, lambda storage: archive.read(f"{root}data/{storage.key}"))


def _read_stream(data: bytes) -> Any:
    """Reads pickles of magic number, version, machine, content and keys, then the storages."""
    stream = io.BytesIO(data)
    if _Unpickler(stream).load() != _MAGIC:
        raise ValueError("it does not begin as one")
    for _ in ("version", "machine"):
        _Unpickler(stream).load()
    content = _Unpickler(stream).load()
    keys = _Unpickler(stream).load()
    sizes = {storage.key: storage.dtype.itemsize for storage in _storages(content)}
    blobs: dict[str, bytes] = {}
    for key in map(str, keys):
        (count,) = struct.unpack("<q", stream.read(8))
        blobs[key] = stream.read(count * sizes[key])
    return _resolved(content, lambda storage: blobs[storage.key])


def _storages(value: Any) -> list[_Storage]:
    if isinstance(value, _Tensor):
        return [value.storage]
    if isinstance(value, dict):
        value = list(value.values())
    return [s for part in value for s in _storages(part)] if isinstance(value, list | tuple) else []


def _resolved(value: Any, read: Callable[[_Storage], bytes]) -> Any:
    """`value` with the numbers of its tensors read."""
    if isinstance(value, _Tensor):
        return value.array(read)
    if isinstance(value, dict):
        return {key: _resolved(part, read) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_resolved(part, read) for part in value)
    return value


def write(path: str | os.PathLike[str], content: Any) -> None:
    """Writes `content` atomically; see `file_bytes`. UserError if the file cannot be written."""
    write_bytes_atomic(path, file_bytes(content))


def file_bytes(content: Any) -> bytes:
    """The bytes of a file of `torch.save`, in which every array becomes a tensor.

    Args:
        content: arrays of the types of `STORAGES`, str, int, float, bool, and dicts, lists and
            tuples of them.

    Raises:
        TypeError: `content` holds anything else.
    """
    storages: list[np.ndarray] = []
    pickled = b"\x80\x02" + _opcodes(content, storages) + pickle.STOP
    entries = {"data.pkl": pickled, "byteorder": b"little"}
    for number, array in enumerate(storages):
        entries[f"data/{number}"] = array.astype(array.dtype.newbyteorder("<")).tobytes()
    entries["version"] = b"3\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}", _EPOCH), data)
    return buffer.getvalue()


def _opcodes(value: Any, storages: list[np.ndarray]) -> bytes:
    """The opcodes (protocol 2) that put `value` on a pickle's stack; arrays join `storages`."""
    if isinstance(value, np.ndarray):
        storages.append(np.ascontiguousarray(value))
        return _tensor_opcodes(value, len(storages) - 1)
    if isinstance(value, Mapping):
        items = b"".join(_opcodes(part, storages) for item in value.items() for part in item)
        return pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS
    if isinstance(value, tuple):
        return pickle.MARK + b"".join(_opcodes(v, storages) for v in value) + pickle.TUPLE
    if isinstance(value, list):
        items = b"".join(_opcodes(v, storages) for v in value)
        return pickle.EMPTY_LIST + pickle.MARK + items + pickle.APPENDS
    return _scalar_opcodes(value)


def _scalar_opcodes(value: Any) -> bytes:
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


def _tensor_opcodes(array: np.ndarray, number: int) -> bytes:
    """`torch._utils._rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict())`."""
    kind = STORAGES.get(array.dtype.name)
    if kind is None:
        raise TypeError(f"an array of {array.dtype} has no place in a file of torch.save")
    strides = np.cumprod((1, *array.shape[:0:-1]))[::-1] if array.ndim else ()
    return (
        _name_opcodes("torch._utils", "_rebuild_tensor_v2")
        + pickle.MARK
        + _storage_opcodes(kind, number, array.size)
        + _scalar_opcodes(0)
        + _ints_opcodes(array.shape)
        + _ints_opcodes([int(stride) for stride in strides])
        + pickle.NEWFALSE
        + _name_opcodes("collections", "OrderedDict")
        + pickle.EMPTY_TUPLE
        + pickle.REDUCE
        + pickle.TUPLE
        + pickle.REDUCE
    )


def _storage_opcodes(kind: str, number: int, size: int) -> bytes:
    """The persistent id of the archive's entry `data/number`."""
    parts = (
        _scalar_opcodes("storage"),
        _name_opcodes("torch", kind),
        _scalar_opcodes(str(number)),
        _scalar_opcodes("cpu"),
    )
    return pickle.MARK + b"".join(parts) + _scalar_opcodes(size) + pickle.TUPLE + pickle.BINPERSID


def _ints_opcodes(values: Sequence[int]) -> bytes:
    return pickle.MARK + b"".join(_scalar_opcodes(value) for value in values) + pickle.TUPLE


def _name_opcodes(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()
