"""What Orbax logs of errors that it also raises is dropped; what others log is not."""

import asyncio
import logging

import pytest

from kip_flax.runtime import disk


async def failing():
    raise OSError("no room")


def log(loop, coroutine):
    """As asyncio does for a task whose error nobody asked for."""
    with pytest.raises(OSError, match="no room") as caught:
        loop.run_until_complete(coroutine())
    loop.call_exception_handler({"message": "never retrieved", "exception": caught.value})


def of_orbax():
    names = {}
    exec(
        compile("async def failing():\n    raise OSError('no room')", "/x/orbax/y.py", "exec"),
        names,
    )
    return names["failing"]


def test_only_the_tasks_of_orbax_are_silent_and_nothing_else_is_after_an_error(caplog):
    level = logging.getLogger("asyncio").level
    with pytest.raises(ZeroDivisionError), disk.quiet():
        raise ZeroDivisionError
    assert logging.getLogger("asyncio").level == level
    loop = asyncio.new_event_loop()
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        log(loop, of_orbax())
        assert caplog.records == []
        log(loop, failing)
        assert [record.name for record in caplog.records] == ["asyncio"]
    loop.close()
