"""When a watch is behind: what was listed and not told for a whole round, whatever else was told meanwhile."""

from __future__ import annotations

import pytest

from inference_operator.reconcile.lag import Lag, is_older


@pytest.fixture
def lag() -> Lag:
    """The API server has version 5 of one object, the watch told 3."""
    found = Lag()
    assert found.listed({"one": "5"}, {"one": "3"}) == []
    return found


def test_what_is_told_until_the_next_list_was_not_late(lag: Lag) -> None:
    lag.told("one", "5")
    assert lag.listed({"one": "5"}, {"one": "5"}) == []


def test_a_newer_version_will_do(lag: Lag) -> None:
    lag.told("one", "7")
    assert lag.listed({"one": "7"}, {"one": "7"}) == []


def test_what_is_not_told_is_late_until_it_is(lag: Lag) -> None:
    lag.told("another", "9")
    assert lag.listed({"one": "5"}, {"one": "3"}) == ["one"]
    # It was taken from the list meanwhile. The watch still owes it.
    assert lag.listed({"one": "5"}, {"one": "5"}) == ["one"]
    lag.told("one", "5")
    assert lag.listed({"one": "5"}, {"one": "5"}) == []


def test_an_older_version_pays_nothing(lag: Lag) -> None:
    lag.told("one", "4")
    assert lag.listed({"one": "5"}, {"one": "4"}) == ["one"]


def test_an_object_that_changes_all_the_time_is_not_late(lag: Lag) -> None:
    """Each list finds a version that has not been told yet; the one of the list before was."""
    for version in range(6, 20):
        lag.told("one", str(version - 1))
        assert lag.listed({"one": str(version)}, {"one": str(version - 1)}) == []


def test_what_is_gone_is_owed_no_more(lag: Lag) -> None:
    assert lag.listed({}, {}) == []
    assert lag.listed({"one": "5"}, {"one": "5"}) == []


def test_what_was_never_told_is_owed(lag: Lag) -> None:
    lag.told("one", "5")
    assert lag.listed({"two": "6"}, {}) == []
    assert lag.listed({"two": "6"}, {}) == ["two"]


@pytest.mark.parametrize(
    ("one", "than", "older"),
    [
        ("9", "10", True),
        ("10", "9", False),
        ("9", "9", False),
        ("", "9", False),
        ("9", "", False),
        ("a", "b", False),
    ],
)
def test_versions_are_compared_as_numbers(one: str, than: str, older: bool) -> None:
    assert is_older(one, than) is older
