"""What a data set that cannot be read must say."""

import pytest

from kip_flax.data import load_dataset
from kip_flax.runtime.errors import UserError


def fails(*words, name, data_dir="", **options):
    """Asserts that loading fails with one line that holds all `words`."""
    with pytest.raises(UserError) as caught:
        load_dataset(name, str(data_dir), **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
