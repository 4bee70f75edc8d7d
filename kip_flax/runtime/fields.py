"""The sections of a configuration, each described by the code that reads it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LARGEST_SEED = 2**32 - 1  # JAX takes 32 bits where float64 is off, as on a TPU.


@dataclass(frozen=True)
class Section:
    """The configuration fields that one module reads, and their allowed values.

    A field has a dotted name, such as 'kernel.depth'. `config` puts the sections together and
    checks them in the order of the attributes.

    Attributes:
        fields: types by name; float admits integers too.
        choices: the values that a field may take, where they can be listed.
        minima: the smallest value allowed.
        maxima: the largest.
        above_zero: numbers that must be above 0.
        optional: fields that may also be None; the code that reads them picks the value then.
        check: further checks, on all fields of the configuration by dotted name. Raises UserError.
    """

    fields: Mapping[str, type]
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    minima: Mapping[str, float] = field(default_factory=dict)
    maxima: Mapping[str, float] = field(default_factory=dict)
    above_zero: Sequence[str] = ()
    optional: Collection[str] = ()
    check: Callable[[Mapping[str, Any]], None] | None = None
