"""A first signal is noted, a second one acts."""

import os
import signal
import threading

import pytest

from kip_flax.runtime.signals import stop_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_first_signal_is_noted(number):
    before = signal.getsignal(number)
    with stop_signals() as stopped:
        assert not stopped()
        os.kill(os.getpid(), number)
        assert stopped()
    assert signal.getsignal(number) is before


def test_a_second_one_acts_as_ever():
    with stop_signals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_another_thread_is_left_without_signals():
    """Python lets the main thread alone handle them."""
    seen = []

    def work():
        with stop_signals() as stopping:
            seen.append(stopping())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
