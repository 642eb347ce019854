"""Holding the garbage collector back, and giving it back as it was."""

import gc

import pytest

from intelligentscan._collector import paused_collector


@pytest.fixture(autouse=True)
def given_back():
    yield
    gc.enable()


def test_the_collector_runs_again_after_the_pause_even_if_that_failed():
    with pytest.raises(ValueError, match="x"), paused_collector():
        assert not gc.isenabled()
        raise ValueError("x")
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    with paused_collector():
        pass
    assert not gc.isenabled()


def test_two_pauses_at_once_end_with_the_collector_on():
    first, second = paused_collector(), paused_collector()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert gc.isenabled()


def test_what_a_pause_leaves_behind_is_collected_later():
    class Node:
        alive = 0

        def __init__(self) -> None:
            Node.alive += 1
            self.self = self

        def __del__(self) -> None:
            Node.alive -= 1

    with paused_collector():
        for _ in range(1000):
            Node()
    assert Node.alive == 1000
    gc.collect()
    assert Node.alive == 0
