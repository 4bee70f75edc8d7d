"""Contenders in turns, on a clock that the test sets."""

import statistics

import pytest

from benchmarks import turns


@pytest.mark.parametrize(("repeats", "counted"), [(3, slice(1, None)), (0, slice(None))])
def test_medians_are_of_the_turns_after_the_first(repeats, counted, monkeypatch):
    now, order, first, rests = [0.0], [], {}, []
    takes = {"a": iter([100, 1, 5, 2]), "b": iter([50, 7, 9, 8])}
    spent = {"a": [], "b": []}

    def run(name):
        def call():
            order.append(name)
            spent[name].append(next(takes[name]))
            now[0] += spent[name][-1]

        return call

    monkeypatch.setattr(turns.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(turns.time, "sleep", rests.append)
    found = turns.medians({n: run(n) for n in takes}, repeats, 0.5, first.__setitem__)
    assert order == ["a", "b"] * (1 + repeats)
    assert found == {name: statistics.median(spent[name][counted]) for name in takes}
    assert first == {"a": 100, "b": 50}
    assert sum(rests) == 0.5 * 2 * repeats
