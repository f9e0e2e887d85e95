"""The numbers of rollouts, as Kubernetes has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcore.controllers import rollout
from kcore.controllers.rollout import Bounds, Set


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable"), [(1, 1, 0), (3, 1, 0), (4, 1, 1), (10, 3, 2)]
)
def test_a_quarter_more_rounded_up_a_quarter_fewer_rounded_down(
    replicas: int, surge: int, unavailable: int
) -> None:
    assert rollout.bounds(replicas, "25%", "25%") == Bounds(replicas, surge, unavailable)


def test_where_both_come_to_nothing_one_may_be_unavailable() -> None:
    assert rollout.bounds(3, "0%", "10%") == Bounds(3, 0, 1)
    assert rollout.bounds(3, 0, 1) == Bounds(3, 0, 1)


def test_ten_replicas_begin_with_three_more_and_two_fewer() -> None:
    limits = rollout.bounds(10, "25%", "25%")
    old = [Set("old", 1.0, 10, 10, 10)]
    new = Set("new", 2.0, 0)
    assert rollout.grow(limits, new, old) == 3
    assert rollout.shrink(limits, new, old) == {"old": 8}


def test_scaling_in_the_middle_is_shared() -> None:
    limits = rollout.bounds(30, 3, 2)
    old = Set("old", 1.0, 8, 8, 8, before_scale=13, desired=10)
    new = Set("new", 2.0, 5, 5, 0, before_scale=13, desired=10)
    assert rollout.needs_scaling(30, [old, new])
    assert rollout.scale(limits, new, [old], rolling=True) == {"old": 20, "new": 13}


def test_scaling_to_nothing_takes_all() -> None:
    limits = rollout.bounds(0, "25%", "25%")
    old = Set("old", 1.0, 8, 8, 8, before_scale=13, desired=10)
    new = Set("new", 2.0, 5, 5, 0, before_scale=13, desired=10)
    assert rollout.scale(limits, new, [old], rolling=True) == {"old": 0, "new": 0}


def test_one_set_alone_takes_the_whole_size() -> None:
    limits = rollout.bounds(7, "25%", "25%")
    assert rollout.scale(limits, None, [Set("a", 1.0, 3)], rolling=True) == {"a": 7}
    assert rollout.scale(limits, None, [Set("a", 1.0, 0), Set("b", 2.0, 0)], rolling=True) == {
        "b": 7
    }
    assert rollout.scale(limits, None, [], rolling=True) == {}


def test_those_that_do_not_serve_go_first() -> None:
    limits = rollout.bounds(10, "25%", "25%")
    sick = Set("sick", 2.0, 5, 5, 1)
    well = Set("well", 1.0, 5, 5, 5)
    new = Set("new", 3.0, 3, 3, 3)
    # 13 asked for, 8 must serve: five to spare; four of the sick, then one that serves.
    assert rollout.shrink(limits, new, [well, sick]) == {"sick": 1, "well": 4}


def test_what_the_new_set_does_not_serve_yet_holds_the_old_ones() -> None:
    limits = rollout.bounds(10, "25%", "25%")
    old = Set("old", 1.0, 8, 8, 6)
    assert rollout.shrink(limits, Set("new", 2.0, 5, 5, 0), [old]) == {}
    assert rollout.shrink(limits, Set("new", 2.0, 5, 5, 1), [old]) == {"old": 7}


def test_a_set_that_still_shrinks_leaves_no_room() -> None:
    limits = rollout.bounds(4, "25%", "25%")
    new = Set("new", 2.0, 1, 1, 1)
    assert rollout.grow(limits, new, [Set("old", 1.0, 2, 4, 2)]) == 1
    assert rollout.grow(limits, new, [Set("old", 1.0, 2, 2, 2)]) == 3


amount = st.one_of(st.integers(0, 20), st.integers(0, 100).map(lambda percent: f"{percent}%"))


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[Bounds, Set, list[Set]]:
    """Any state that a rollout can be in."""
    limits = rollout.bounds(draw(st.integers(0, 60)), draw(amount), draw(amount))
    room = limits.most
    sets = []
    for index in range(draw(st.integers(1, 4))):
        asked = draw(st.integers(0, room))
        room -= asked
        pods = draw(st.integers(0, asked))
        available = draw(st.integers(0, pods))
        sets.append(
            Set(f"s{index}", float(index), asked, pods, available, draw(st.integers(0, 80)))
        )
    return limits, sets[-1], sets[:-1]


@given(rollouts())
def test_never_more_than_replicas_and_surge_never_fewer_serve_than_must(
    state: tuple[Bounds, Set, list[Set]],
) -> None:
    limits, new, old = state
    grown = rollout.grow(limits, new, old)
    assert grown + sum(each.asked for each in old) <= max(
        limits.most, sum(each.asked for each in (new, *old))
    )
    assert grown <= limits.replicas
    sizes = rollout.shrink(limits, new, old)
    before = sum(min(each.available, each.asked) for each in (new, *old))
    # Of a set that shrinks, those go first that don't serve.
    after = min(new.available, new.asked) + sum(
        min(each.available, sizes.get(each.name, each.asked)) for each in old
    )
    assert all(size >= 0 for size in sizes.values())
    assert after >= min(before, limits.least_available)


@given(rollouts())
def test_a_share_adds_up(state: tuple[Bounds, Set, list[Set]]) -> None:
    limits, new, old = state
    sizes = rollout.scale(limits, new, old, rolling=True)
    active = [each for each in (*old, new) if each.asked]
    if len(active) > 1 and all(each.name in sizes for each in active):
        assert sum(sizes.values()) == (limits.most if limits.replicas else 0)
    assert all(size >= 0 for size in sizes.values())
