"""When a process is taken for hanging."""

from __future__ import annotations

import time

import pytest

from vaco.runs import silence
from vaco.runs.silence import SILENCE, STARTING, Silence


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def looks(self, watched: Silence, seconds: float, sign: bool = False) -> bool:
        """Ask every second, for so long; whether it was ever taken for hanging."""
        found = False
        for _ in range(int(seconds)):
            self.now += 1.0
            found |= watched.too_long(sign)
        return found


def test_one_that_has_begun_is_waited_for_as_long_as_it_gives_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    watched = Silence()
    assert not clock.looks(watched, 1000, sign=True)
    assert not clock.looks(watched, SILENCE) and clock.looks(watched, 1)


def test_one_that_has_not_begun_has_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    watched = Silence()
    assert not clock.looks(watched, STARTING) and clock.looks(watched, 1)


def test_after_a_long_time_without_a_look_it_has_another_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    watched = Silence()
    assert not watched.too_long(True)
    clock.now += 3600.0
    assert not watched.too_long(False), "the machine slept, or the learner was busy"
    clock.now += 0.9
    assert not watched.too_long(False)
    clock.now += 0.2
    assert watched.too_long(False)


def test_the_time_is_read_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    watched = Silence()
    assert not watched.too_long(True)
    monkeypatch.setattr(silence, "SILENCE", 2.0)
    assert clock.looks(watched, 3)
