"""What the loop says; what it does is in `resume_test`, and in the tests of `modes.train`."""

import re

from kip_flax.runs.loop import Training
from kip_flax.runtime.console import Console


def test_the_end_is_announced_once_where_it_is_far(capsys):
    training = Training(None, None, None, None, Console(), log_every=1)
    for seconds in (59, 3700):
        training._announce_end(seconds)
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"expected to end at (.{10} )?\d\d:\d\d, in 1 h 01 min", line)


def test_slow_steps_have_a_line_every_ten_seconds():
    training = Training(None, None, None, None, Console(), log_every=10)
    found = [training._log_every(seconds) for seconds in (0.0, 0.9, 1.1, 4.0, 11.5, 100.0)]
    assert found == [10, 10, 9, 2, 1, 1]
