import pytest

from mecoq_index import _progress
from mecoq_index._progress import reported, shown, silent


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(_progress, "time", clock)
    return clock


def test_lines_come_every_few_seconds_where_there_is_no_terminal(clock, capsys):
    with shown("training") as update:
        for done in range(1, 13):
            clock.now += 2
            update(f"epoch {done}", done, 12)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "training:  25% after 6 s, about 18 s left  epoch 3",
        "training:  50% after 12 s, about 12 s left  epoch 6",
        "training:  75% after 18 s, about 6 s left  epoch 9",
        "training: 100% after 24 s  epoch 12",
    ]


def test_short_work_prints_nothing(clock, capsys):
    with shown("encoding") as update:
        clock.now += 4
        update("", 1, 1)
    assert capsys.readouterr().err == ""


def test_long_work_is_told_in_hours_and_minutes(clock, capsys):
    with shown("building") as update:
        clock.now += 4000
        update("", 1, 2)
    assert "after 1 h 6 min, about 1 h 6 min left" in capsys.readouterr().err


def test_progress_may_be_a_function_true_or_false(clock, capsys):
    seen = []
    with reported(lambda *told: seen.append(told), "x") as update:
        update("a", 1, 2)
    assert seen == [("a", 1, 2)]
    with reported(False, "x") as update:
        assert update is silent
    with reported(True, "x") as update:
        clock.now += 9
        update("a", 1, 2)
    assert "x:  50%" in capsys.readouterr().err
