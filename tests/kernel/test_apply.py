"""Server-side apply and the owners of fields: tables of cases, and laws."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from kcore.kernel import apply, fieldset
from kcore.kernel.layout import layout_of
from kcore.wire.errors import ApiError, Reason
from tests import budget
from tests.kernel import things


@dataclass(frozen=True)
class ThingKind:
    """What apply needs to know of things."""

    api_version: str = "test/v1"
    has_status: bool = True

    @property
    def message(self) -> Any:
        return things.thing_class()

    def subject(self, name: str) -> str:
        return f'Thing.test "{name}"'


KIND = ThingKind()


def make(plain: dict[str, Any], **top: Any) -> Any:
    """A thing with this spec, in JSON names."""
    document = {"metadata": {"name": "a", "namespace": "default"}} | top
    if plain:
        document["spec"] = plain
    return json_format.ParseDict(document, things.thing_class()())


def spec(message: Any) -> dict[str, Any]:
    shown: dict[str, Any] = json_format.MessageToDict(message.spec)
    return shown


def owners(message: Any) -> dict[str, Any]:
    """By "manager/operation/subresource": the fields, as a tree."""
    return {
        f"{entry.manager}/{entry.operation}/{entry.subresource}".rstrip("/"): json.loads(
            entry.fields_v1.raw
        )
        for entry in message.metadata.managed_fields
    }


def applied(live: Any, plain: dict[str, Any], manager: str = "m", **more: Any) -> Any:
    given_ = {"force": False, "time": 1.0} | more
    return apply.apply(KIND, live, make(plain), manager, **given_)


def updated(live: Any, plain: dict[str, Any], manager: str = "u", subresource: str = "") -> Any:
    """An ordinary write: the whole spec is as given."""
    new = make(plain)
    if live is not None and live.metadata.labels:
        new.metadata.labels.update(live.metadata.labels)
    apply.track(KIND, live, new, manager, apply.UPDATE, subresource, 5.0)
    return new


def test_applying_makes_the_object_and_owns_what_was_sent() -> None:
    new = applied(
        None,
        {
            "color": "red",
            "parts": [{"name": "p", "image": "i"}],
            "tags": ["t"],
            "words": ["w"],
            "notes": {"a.b/c": "1"},
            "shape": {"form": "round"},
            "inner": {},
            "amount": {"string": "1"},
            "doors": [{"number": 80}],
            "handler": {"exec": {"name": "e"}},
            "shelf": {"x": {"size": 1}},
        },
    )
    entry = new.metadata.managed_fields[0]
    assert (entry.manager, entry.operation, entry.subresource) == ("m", "Apply", "")
    assert (entry.api_version, entry.fields_type, entry.time.seconds) == ("test/v1", "FieldsV1", 1)
    assert owners(new)["m/Apply"] == {
        "f:spec": {
            "f:color": {},
            "f:parts": {'k:{"name":"p"}': {".": {}, "f:name": {}, "f:image": {}}},
            "f:tags": {'v:"t"': {}},
            "f:words": {},
            "f:notes": {"f:a.b/c": {}},
            "f:shape": {},
            "f:inner": {},
            "f:amount": {},
            "f:doors": {'k:{"number":80,"protocol":"TCP"}': {".": {}, "f:number": {}}},
            "f:exec": {"f:name": {}},
            "f:shelf": {"f:x": {"f:size": {}}},
        }
    }


PARTS = [{"name": "p", "image": "1"}, {"name": "q", "image": "1"}]

# (what one manager applied before, what is there now, what he applies) -> what is there then.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "a field that is no longer applied goes": (
        {"color": "red", "replicas": 1},
        {"color": "red", "replicas": 1},
        {"replicas": 1},
        {"replicas": 1},
    ),
    "a field that others set stays": (
        {"color": "red"},
        {"color": "red", "replicas": 5},
        {"color": "blue"},
        {"color": "blue", "replicas": 5},
    ),
    "a field that others have taken stays": (
        {"color": "red", "replicas": 1},
        {"color": "red", "replicas": 5},
        {"color": "red"},
        {"color": "red", "replicas": 5},
    ),
    "zero and empty are values": (
        {"replicas": 1, "color": "red"},
        {"replicas": 1, "color": "red"},
        {"replicas": 0, "color": ""},
        {"replicas": 0, "color": ""},
    ),
    "elements merge by key": (
        {"parts": [{"name": "p", "image": "1"}]},
        {"parts": [{"name": "p", "image": "1", "size": 3}, {"name": "x"}]},
        {"parts": [{"name": "p", "image": "2"}]},
        {"parts": [{"name": "p", "image": "2", "size": 3}, {"name": "x"}]},
    ),
    "an element that is no longer applied goes, with what was filled in": (
        {"parts": PARTS},
        {"parts": [{"name": "p", "image": "1"}, {"name": "q", "image": "1"}]},
        {"parts": [{"name": "q", "image": "1"}]},
        {"parts": [{"name": "q", "image": "1"}]},
    ),
    "an element in which others own a field loses the rest but its key": (
        {"parts": [{"name": "p", "image": "1"}]},
        {"parts": [{"name": "p", "image": "1", "size": 3}]},
        {},
        {"parts": [{"name": "p", "size": 3}]},
    ),
    "elements come in the order that is applied": (
        {"parts": PARTS},
        {"parts": [{"name": "x"}, *PARTS, {"name": "y"}]},
        {"parts": [PARTS[1], {"name": "n"}, PARTS[0]]},
        {"parts": [{"name": "x"}, PARTS[1], {"name": "n"}, PARTS[0], {"name": "y"}]},
    ),
    "a key's default is its value": (
        {"doors": [{"number": 80, "name": "a"}]},
        {
            "doors": [
                {"number": 80, "protocol": "TCP", "name": "a"},
                {"number": 80, "protocol": "UDP"},
            ]
        },
        {"doors": [{"number": 80, "name": "b"}]},
        {
            "doors": [
                {"number": 80, "protocol": "TCP", "name": "b"},
                {"number": 80, "protocol": "UDP"},
            ]
        },
    ),
    "sets unite, and lose what is no longer applied": (
        {"tags": ["a", "b"]},
        {"tags": ["a", "b", "x"]},
        {"tags": ["b", "c"]},
        {"tags": ["b", "x", "c"]},
    ),
    "lists without key are values": (
        {"words": ["a", "b"]},
        {"words": ["a", "b"]},
        {"words": ["b"]},
        {"words": ["b"]},
    ),
    "atomic messages are values": (
        {"shape": {"form": "round", "size": "big"}},
        {"shape": {"form": "round", "size": "big"}},
        {"shape": {"form": "flat"}},
        {"shape": {"form": "flat"}},
    ),
    "maps merge by key": (
        {"notes": {"a": "1", "b": "1"}},
        {"notes": {"a": "1", "b": "1", "x": "1"}},
        {"notes": {"a": "2"}},
        {"notes": {"a": "2", "x": "1"}},
    ),
    "a message that is no longer applied goes with its defaults": (
        {"color": "red", "inner": {"image": "1"}},
        {"color": "red", "inner": {"image": "1", "size": 3}},
        {"color": "red"},
        {"color": "red"},
    ),
    "inline messages too": (
        {"color": "red", "handler": {"exec": {"image": "1"}}},
        {"color": "red", "handler": {"exec": {"image": "1"}}},
        {"color": "red"},
        {"color": "red"},
    ),
    "an empty message stays as long as it is applied": (
        {"inner": {"image": "1"}},
        {"inner": {"image": "1"}},
        {"inner": {}},
        {"inner": {}},
    ),
    "another word for the same amount changes nothing": (
        {"amount": {"string": "1"}},
        {"amount": {"string": "1"}},
        {"amount": {"string": "1000m"}},
        {"amount": {"string": "1"}},
    ),
    "messages in maps": (
        {"shelf": {"a": {"image": "1"}, "b": {"image": "1"}}},
        {"shelf": {"a": {"image": "1", "size": 1}, "b": {"image": "1"}, "c": {"size": 1}}},
        {"shelf": {"a": {"image": "2"}}},
        {"shelf": {"a": {"image": "2", "size": 1}, "c": {"size": 1}}},
    ),
}

# In these, what is there now was filled in by the server and is nobody's.
_DEFAULTS = {"a message that is no longer applied goes with its defaults"}


@pytest.mark.parametrize("case", sorted(CASES))
def test_applying_again(case: str) -> None:
    before, now, wanted, expected = CASES[case]
    live = applied(None, before)
    if case in _DEFAULTS:
        live.spec.CopyFrom(make(now).spec)
    else:
        live = updated(live, now)
    new = applied(live, wanted, time=9.0)
    # Against JSON, since dicts of maps have no order.
    assert spec(new) == expected
    again = applied(new, wanted, time=99.0)
    assert again == new, "applying twice is applying once"


def test_a_conflict_names_the_manager_and_the_fields() -> None:
    live = applied(None, {"color": "red", "parts": [{"name": "p", "image": "1"}]}, "first")
    live = updated(live, {"color": "red", "parts": [{"name": "p", "image": "1"}], "replicas": 3})
    wanted = {"color": "blue", "parts": [{"name": "p", "image": "2"}], "replicas": 4}
    with pytest.raises(ApiError) as caught:
        applied(live, wanted, "second")
    error = caught.value
    assert error.reason is Reason.CONFLICT
    assert [(one.path, one.message) for one in error.violations] == [
        ("spec.color", 'conflict with "first" using test/v1'),
        ('spec.parts[name="p"].image', 'conflict with "first" using test/v1'),
        ("spec.replicas", 'conflict with "u" using test/v1'),
    ]
    assert "Apply failed with 3 conflicts" in error.message
    assert 'conflict with "first" using test/v1: .spec.color' in error.message
    new = applied(live, wanted, "second", force=True)
    assert owners(new) == {
        "first/Apply": {"f:spec": {"f:parts": {'k:{"name":"p"}': {".": {}, "f:name": {}}}}},
        "second/Apply": {
            "f:spec": {
                "f:color": {},
                "f:replicas": {},
                "f:parts": {'k:{"name":"p"}': {".": {}, "f:name": {}, "f:image": {}}},
            }
        },
    }


def test_the_same_value_is_shared_and_stays_until_the_last_lets_go() -> None:
    live = applied(None, {"color": "red", "replicas": 1}, "first")
    live = applied(live, {"color": "red"}, "second")
    assert owners(live)["first/Apply"]["f:spec"] == {"f:color": {}, "f:replicas": {}}
    live = applied(live, {"replicas": 1}, "first")
    assert spec(live) == {"color": "red", "replicas": 1}
    live = applied(live, {}, "second")
    assert spec(live) == {"replicas": 1}
    assert list(owners(live)) == ["first/Apply"]


def test_another_word_for_anothers_amount_is_no_conflict() -> None:
    live = applied(None, {"amount": {"string": "0.5"}}, "first")
    assert spec(applied(live, {"amount": {"string": "500m"}}, "second"))
    with pytest.raises(ApiError):
        applied(live, {"amount": {"string": "501m"}}, "second")


def test_what_is_created_then_applied_by_one_manager_is_one_story() -> None:
    live = updated(None, {"color": "red", "replicas": 1}, "m")
    live = applied(live, {"color": "red", "replicas": 2})
    assert list(owners(live)) == ["m/Apply"]
    # Dropped from the file, it goes, though the manager also created it.
    live = applied(live, {"replicas": 2})
    assert spec(live) == {"replicas": 2}


def test_what_was_never_applied_is_not_removed() -> None:
    live = updated(None, {"color": "red", "replicas": 1}, "m")
    live = applied(live, {"color": "red"})
    assert spec(live) == {"color": "red", "replicas": 1}
    # Scaled by the same manager, outside of the file: kept.
    live = updated(live, {"color": "red", "replicas": 7}, "m")
    live = applied(live, {"color": "red"})
    assert spec(live) == {"color": "red", "replicas": 7}


def test_what_client_side_apply_applied_counts() -> None:
    live = updated(None, {"color": "red", "replicas": 1, "parts": PARTS}, "kubectl")
    before = {"spec": {"color": "red", "parts": PARTS}, "status": {"phase": "x"}}
    live.metadata.annotations[apply.LAST_APPLIED] = json.dumps(before)
    # It is the same manager's write, as it is for whoever takes a cluster's manifests over.
    new = apply.apply(KIND, live, make({"parts": PARTS[:1]}), "kubectl", True, 1.0)
    assert spec(new) == {"color": "red", "replicas": 1, "parts": [PARTS[0], PARTS[1]]}
    live.metadata.ClearField("managed_fields")
    new = apply.apply(KIND, live, make({"parts": PARTS[:1]}), "kubectl", True, 1.0)
    assert spec(new) == {"replicas": 1, "parts": PARTS[:1]}
    live.metadata.annotations[apply.LAST_APPLIED] = "not json"
    assert spec(apply.apply(KIND, live, make({}), "kubectl", True, 1.0))["color"] == "red"


def test_doubles_in_what_is_applied_are_refused() -> None:
    with pytest.raises(ApiError, match="duplicate entries for key") as caught:
        applied(None, {"parts": [{"name": "p"}, {"name": "p", "parts": [{"name": "x"}] * 2}]})
    assert [one.path for one in caught.value.violations] == [
        "spec.parts[1]",
        "spec.parts[1].parts[1]",
    ]


def test_generated_names_cannot_be_applied() -> None:
    wanted = things.thing_class()(metadata={"generate_name": "a-"})
    with pytest.raises(ApiError, match="cannot use generate name with apply"):
        apply.apply(KIND, None, wanted, "m", False, 1.0)


def test_status_is_applied_through_its_own_door() -> None:
    wanted = make({"color": "red"}, status={"phase": "Good"})
    live = apply.apply(KIND, None, wanted, "m", False, 1.0)
    assert not live.HasField("status")
    new = apply.apply(KIND, live, wanted, "c", False, 2.0, subresource="status")
    assert (new.spec.color, new.status.phase) == ("red", "Good")
    assert owners(new)["c/Apply/status"] == {"f:status": {"f:phase": {}}}


def test_nobody_owns_what_the_server_sets() -> None:
    new = make({})
    new.metadata.uid, new.metadata.resource_version, new.metadata.generation = "u", "5", 3
    new.metadata.labels["a"] = "b"
    new.metadata.finalizers.append("x/y")
    apply.track(KIND, None, new, "u", apply.UPDATE, "", 1.0)
    assert owners(new)["u/Update"]["f:metadata"] == {
        "f:labels": {"f:a": {}},
        "f:finalizers": {'v:"x/y"': {}},
    }
    bare = make({})
    apply.track(KIND, None, bare, "u", apply.UPDATE, "", 1.0)
    assert not bare.metadata.managed_fields


def test_an_ordinary_write_takes_what_it_changes_and_forgets_what_it_removes() -> None:
    live = applied(None, {"color": "red", "replicas": 1, "tags": ["a"]})
    new = updated(live, {"color": "blue", "replicas": 1})
    assert owners(new) == {
        "m/Apply": {"f:spec": {"f:replicas": {}}},
        "u/Update": {"f:spec": {"f:color": {}}},
    }


def test_a_write_that_changes_no_set_leaves_the_entry_as_it_was() -> None:
    live = updated(None, {"color": "red"})
    stamp = live.metadata.managed_fields[0].time.seconds
    new = make({"color": "blue"})
    apply.track(KIND, live, new, "u", apply.UPDATE, "", stamp + 50.0)
    assert new.metadata.managed_fields == live.metadata.managed_fields


def test_owners_that_a_writer_sends_along_are_forgotten() -> None:
    live = updated(None, {"color": "red"})
    new = make({"color": "red"})
    new.metadata.managed_fields.add(manager="liar")
    apply.track(KIND, live, new, "u", apply.UPDATE, "", 7.0)
    assert new.metadata.managed_fields == live.metadata.managed_fields


def test_writers_with_many_names_do_not_fill_the_object() -> None:
    live = updated(None, {"color": "red"})
    for number in range(50):
        live = updated(
            live, {"color": "red", "notes": {f"n{n}": "1" for n in range(number)}}, f"u{number}"
        )
    assert len(live.metadata.managed_fields) == apply.MOST_WRITERS
    every: fieldset.Tree = {}
    for tree in owners(live).values():
        every = fieldset.union(every, tree)
    everything = fieldset.gather(layout_of(KIND.message.DESCRIPTOR), live)
    assert fieldset.includes(every, {"f:spec": everything["f:spec"]})


# Laws.

_NAMES = st.sampled_from(["p", "q", "r"])
_WORDS = st.sampled_from(["", "1", "2"])
_PART = st.fixed_dictionaries({}, optional={"image": _WORDS, "size": st.integers(0, 2)})


def _keyed(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name} | value for name, value in values.items()]


SPECS = st.fixed_dictionaries(
    {},
    optional={
        "color": _WORDS,
        "replicas": st.integers(0, 3),
        "parts": st.dictionaries(_NAMES, _PART, max_size=3).map(_keyed).filter(bool),
        "words": st.lists(_WORDS, min_size=1, max_size=3),
        "tags": st.lists(_NAMES, min_size=1, max_size=3, unique=True),
        "notes": st.dictionaries(_NAMES, _WORDS, min_size=1, max_size=3),
        "shape": st.fixed_dictionaries({}, optional={"form": _WORDS}),
        "inner": _PART,
        "doors": st.lists(
            st.fixed_dictionaries(
                {"number": st.integers(1, 2)}, optional={"protocol": st.just("UDP")}
            ),
            min_size=1,
            max_size=3,
            unique_by=lambda door: (door["number"], door.get("protocol", "TCP")),
        ),
        "handler": st.fixed_dictionaries({"exec": _PART}),
        "shelf": st.dictionaries(_NAMES, _PART, min_size=1, max_size=2),
    },
)


def fields(message: Any) -> fieldset.Tree:
    tree = fieldset.gather(layout_of(KIND.message.DESCRIPTOR), message)
    tree.pop("f:metadata", None)
    return tree


def canonical(plain: Any) -> Any:
    """With the lists whose order is not looked at in one order."""
    if isinstance(plain, dict):
        shown = {key: canonical(value) for key, value in plain.items()}
        for key, by in (("parts", "name"), ("doors", "number")):
            if key in shown:
                shown[key] = sorted(shown[key], key=lambda one: (one[by], str(one)))
        if "tags" in shown:
            shown["tags"] = sorted(shown["tags"])
        return shown
    return [canonical(one) for one in plain] if isinstance(plain, list) else plain


@settings(deadline=None, max_examples=budget.examples(200))
@given(SPECS, SPECS)
def test_of_one_manager_the_last_apply_is_what_is_there(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    live = applied(None, first)
    new = applied(live, second, time=2.0)
    assert canonical(spec(new)) == canonical(spec(make(second)))
    assert owners(new).get("m/Apply", {}) == fields(make(second))
    assert applied(new, second, time=3.0) == new


@settings(deadline=None, max_examples=budget.examples(200))
@given(SPECS, SPECS, SPECS)
def test_of_two_managers_each_leaves_the_others_fields(
    theirs: dict[str, Any], first: dict[str, Any], second: dict[str, Any]
) -> None:
    live = applied(None, theirs, "other")
    live = applied(live, first, force=True)
    kept = owners(live).get("other/Apply", {})
    new = applied(live, second, force=True)
    mine = fields(make(second))
    assert owners(new).get("m/Apply", {}) == mine
    # All that is owned is there, all that he applied is as he did, and all else is the other's.
    owned = members(mine) | members(owners(new).get("other/Apply", {}))
    there = members(fields(new))
    above = {path[:length] for path in there for length in range(1, len(path))}
    assert owned <= there | above
    assert applied(new, second, force=True) == new
    assert members(owners(new).get("other/Apply", {})) <= members(kept)
    left = {path for path in there - owned if not any(one[: len(path)] == path for one in owned)}
    assert not left, "what nobody owns was left behind"


@settings(deadline=None, max_examples=budget.examples(200))
@given(SPECS, SPECS)
def test_without_force_nothing_of_another_manager_changes(
    theirs: dict[str, Any], mine: dict[str, Any]
) -> None:
    live = applied(None, theirs, "other")
    try:
        new = applied(live, mine)
    except ApiError as error:
        assert error.reason is Reason.CONFLICT and error.violations
        return
    before = owners(live).get("other/Apply", {})
    assert owners(new).get("other/Apply", {}) == before
    changed, removed = fieldset.compare(layout_of(KIND.message.DESCRIPTOR), live, new)
    assert not fieldset.meets(before, changed)
    assert not removed


@settings(deadline=None, max_examples=budget.examples(200))
@given(SPECS, SPECS)
def test_a_write_owns_just_what_it_changed(first: dict[str, Any], second: dict[str, Any]) -> None:
    live = updated(None, first, "a")
    new = updated(live, second, "b")
    of_a, of_b = owners(new).get("a/Update", {}), owners(new).get("b/Update", {})
    assert not fieldset.meets(of_a, of_b)
    assert fieldset.includes(fields(new), of_b)
    assert fieldset.includes(fields(live), of_a)


_TREES = st.recursive(
    st.just({}),
    lambda below: st.dictionaries(
        st.sampled_from(["f:a", "f:b", "f:c"]), below, min_size=1, max_size=3
    ).flatmap(lambda tree: st.sampled_from([tree, {".": {}, **tree}])),
    max_leaves=8,
).map(lambda tree: {key: below for key, below in tree.items() if key != "."})


def members(tree: fieldset.Tree, before: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    found = set()
    for key, below in tree.items():
        if key == ".":
            continue
        path = (*before, key)
        if not below or "." in below:
            found.add(path)
        found |= members(below, path)
    return found


@given(_TREES, _TREES)
def test_field_sets_are_sets(one: fieldset.Tree, other: fieldset.Tree) -> None:
    a, b = members(one), members(other)
    assert members(fieldset.union(one, other)) == a | b
    assert members(fieldset.difference(one, other)) == a - b
    assert members(fieldset.intersection(one, other)) == a & b
    assert fieldset.includes(one, other) == (a >= b)
    assert fieldset.meets(one, other) == bool(a & b)
    assert fieldset.parse(fieldset.dump(one)) == one
