"""What changed, as a JSON patch: applied to what was, it gives what is."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcore.client import difference

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab/~", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~"), inner, max_size=3),
    max_leaves=8,
)


def applied(value: Any, operations: list[difference.Operation]) -> Any:
    """The value with the patch, by the letter of RFC 6902."""
    for one in operations:
        *above, last = difference.path(one["path"]) or ("",)
        if one["path"] == "":
            assert one["op"] in ("test", "replace")
            value = one["value"] if one["op"] == "replace" else value
            continue
        holder = value
        for part in above:
            holder = holder[part]
        if one["op"] == "test":
            assert holder[last] == one["value"]
        elif one["op"] == "remove":
            del holder[last]
        else:
            assert (last in holder) == (one["op"] == "replace")
            holder[last] = one["value"]
    return value


@given(VALUES, VALUES)
def test_a_patch_makes_what_was_into_what_is(before: Any, after: Any) -> None:
    import copy

    made = applied(copy.deepcopy(before), difference.operations(before, after))
    assert made == after


@pytest.mark.parametrize("value", [{"a": 1}, [], None, {"a": {"b": [1]}}])
def test_nothing_changed(value: Any) -> None:
    assert difference.operations(value, value) == []


def test_what_is_replaced_is_tested_first() -> None:
    assert difference.operations({"a/b": {"c": 1, "d": 2}}, {"a/b": {"c": True}}) == [
        {"op": "test", "path": "/a~1b/d", "value": 2},
        {"op": "remove", "path": "/a~1b/d"},
        {"op": "test", "path": "/a~1b/c", "value": 1},
        {"op": "replace", "path": "/a~1b/c", "value": True},
    ]
