"""The ruleset as data: golden scripts, slots that stay, and changes as small as they can be."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcore.proxy import ruleset
from kcore.proxy.frontend import NODE, Backend, Behind, Frontend, Served
from kcore.proxy.rules import Name, Rules
from kcore.proxy.ruleset import Table

WEB = ("default", "web")
FRONT = Frontend("10.96.0.7", "tcp", 80)
DOOR = Frontend(NODE, "tcp", 30080)


def backend(number: int) -> Backend:
    return Backend(f"10.244.{number // 250}.{number % 250 + 1}", 8080)


def served(*numbers: int, front: Frontend = FRONT, seconds: int = 0, hide: bool = False) -> Served:
    behind = Behind(frozenset(backend(one) for one in numbers), hide, seconds)
    return Served({front: behind}, frozenset())


def started(wanted: dict[Name, Served] | None = None) -> Rules:
    """Rules whose table is right."""
    made = Rules("10.96.0.0/12")
    made.update(wanted or {})
    changes = made.repair(Table())
    made.table.carry_out(changes)
    return made


def lines(rules: Rules, changed: dict[Name, Served]) -> list[str]:
    """What is told to nft for a change; it is done then."""
    changes = rules.update(changed)
    rules.table.carry_out(changes)
    return [
        line.partition(" comment ")[0].replace("ip kcore ", "")
        for line in ruleset.script(changes).splitlines()
    ]


def test_a_service_comes_changes_and_goes() -> None:
    rules = started()
    assert lines(rules, {WEB: served(0, 1)}) == [
        "add chain tcp-to-2",
        "flush chain tcp-to-2",
        "add rule tcp-to-2 dnat ip to ip daddr . tcp dport . numgen random mod 2 map "
        "@tcp-endpoints",
        "add element tcp-services { 10.96.0.7 . 80 : goto tcp-to-2 }",
        "add element tcp-endpoints { 10.96.0.7 . 80 . 0 : 10.244.0.1 . 8080, "
        "10.96.0.7 . 80 . 1 : 10.244.0.2 . 8080 }",
    ]
    assert lines(rules, {WEB: served(1, 2)}) == [
        "delete element tcp-endpoints { 10.96.0.7 . 80 . 0 }",
        "add element tcp-endpoints { 10.96.0.7 . 80 . 0 : 10.244.0.3 . 8080 }",
    ]
    assert lines(rules, {WEB: served()}) == [
        "delete element tcp-services { 10.96.0.7 . 80 }",
        "delete element tcp-endpoints { 10.96.0.7 . 80 . 0, 10.96.0.7 . 80 . 1 }",
        "add element tcp-unserved { 10.96.0.7 . 80 }",
    ]
    assert lines(rules, {WEB: Served({}, frozenset())}) == [
        "delete element tcp-unserved { 10.96.0.7 . 80 }"
    ]
    assert lines(rules, {WEB: Served({}, frozenset())}) == []


def test_a_node_port_with_affinity_hides_its_clients() -> None:
    rules = started()
    assert lines(rules, {WEB: served(0, front=DOOR, seconds=60, hide=True)})[-5:] == [
        "add element tcp-node-services { 30080 : goto tcp-node-to-1 }",
        "add element tcp-node-endpoints { 30080 . 0 : 10.244.0.1 . 8080 }",
        "add element tcp-node-hidden { 30080 }",
        "add element tcp-node-affine { 30080 : jump node-stay-60 }",
        "add element remember { 0x001e2000 : goto node-remember-60 }",
    ]
    assert "node-stay-60" in rules.table.chains and "node-remember-60" in rules.table.chains


def test_own_endpoints_may_reach_themselves_for_as_long_as_anybody_wants() -> None:
    rules = started()
    both = Served({}, frozenset(["10.244.0.1"]))
    assert lines(rules, {WEB: both}) == ["add element hairpin { 10.244.0.1 . 10.244.0.1 }"]
    assert lines(rules, {("default", "api"): both}) == []
    assert lines(rules, {WEB: Served({}, frozenset())}) == []
    assert lines(rules, {("default", "api"): Served({}, frozenset())}) == [
        "delete element hairpin { 10.244.0.1 . 10.244.0.1 }"
    ]


def test_two_who_want_one_address() -> None:
    rules = started()
    first, second = ("a", "z"), ("b", "a")
    lines(rules, {second: served(2)})
    assert lines(rules, {first: served(1)})[-1].endswith("0 : 10.244.0.2 . 8080 }")
    assert [names for _, names in rules.clashes()] == [[first, second]]
    assert lines(rules, {first: Served({}, frozenset())})[-1].endswith("0 : 10.244.0.3 . 8080 }")
    assert not list(rules.clashes())


def test_a_swap_in_one_batch_loses_nothing() -> None:
    rules = started()
    lines(rules, {("a", "a"): served(1)})
    # The same frontend with the same endpoint passes from one to the other.
    assert lines(rules, {("a", "a"): Served({}, frozenset()), ("b", "b"): served(1)}) == []
    assert ruleset.slots_of(rules.table, FRONT) == (backend(1),)


NUMBERS = st.lists(st.integers(0, 12), unique=True, max_size=9)


@given(NUMBERS, NUMBERS)
def test_whoever_stays_keeps_his_slot(before: list[int], after: list[int]) -> None:
    old = tuple(backend(one) for one in before)
    new = ruleset.place(old, [backend(one) for one in after])
    assert sorted(new) == sorted(backend(one) for one in after)
    moved = [one for at, one in enumerate(new) if one in old and old.index(one) != at]
    gone = len(set(before) - set(after))
    assert len(moved) <= max(0, gone)
    assert all(old.index(one) >= len(new) for one in moved)


def everything(rules: Rules) -> dict[ruleset.Key, str]:
    """What a table made anew would hold."""
    changes = rules.repair(Table())
    return changes.added


STEPS = st.lists(
    st.dictionaries(
        st.sampled_from([WEB, ("default", "api"), ("kube-system", "dns")]),
        st.builds(
            lambda numbers, front, seconds, hide: served(
                *numbers, front=front, seconds=seconds, hide=hide
            ),
            NUMBERS,
            st.sampled_from([FRONT, DOOR, Frontend("10.96.0.8", "udp", 53)]),
            st.sampled_from([0, 60, 10800]),
            st.booleans(),
        ),
        max_size=3,
    ),
    max_size=6,
)


@given(STEPS)
def test_step_by_step_is_as_at_once(steps: Sequence[dict[Name, Served]]) -> None:
    rules = started()
    for step in steps:
        rules.table.carry_out(rules.update(step))
    table = rules.table
    wanted = everything(rules)

    # Slots may be others; and what is remembered of times that nobody wants any more may stay.
    def shape(found: dict[ruleset.Key, str]) -> set[tuple[str, str]]:
        return {key for key in found if key[0] != "remember"}

    assert shape(table.elements) == shape(wanted)
    # Against itself there is nothing to mend, but for such leftovers.
    left = rules.repair(table)
    assert not left.added and not left.chains
    assert {key[0] for key in left.removed} <= {"remember"}


@given(st.integers(0, 60), st.integers(0, 11))
def test_a_change_is_small_however_much_there_is(others: int, gone: int) -> None:
    wanted = {
        ("default", f"s{one}"): served(
            one, front=Frontend(f"10.97.{one // 250}.{one % 250}", "tcp", 1)
        )
        for one in range(others)
    }
    rules = started(wanted | {WEB: served(*range(12))})
    changes = rules.update({WEB: served(*(one for one in range(12) if one != gone))})
    # The verdict, the gap, and the last slot that fills it.
    assert len(changes.removed) <= 3 and len(changes.added) <= 2


@pytest.mark.parametrize("name", ["to-3", "tcp-to-0", "tcp-stay-3", "x", "tcp-to-3 ; flush", ""])
def test_chains_that_are_none_of_ours(name: str) -> None:
    assert ruleset.chain(name) is None
