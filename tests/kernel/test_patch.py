"""Patches: tables of cases for each of the four sorts, and what they leave alone."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.client import codec
from kcore.kernel import patch
from kcore.wire.errors import ApiError, Reason
from tests.kernel import things
from tests.kernel.test_apply import KIND


def make(spec: dict[str, Any], **metadata: Any) -> Any:
    plain = {"metadata": {"name": "a"} | metadata, "spec": spec}
    return codec.from_plain(things.thing_class().DESCRIPTOR, plain)


def patched(spec: dict[str, Any], sort: str, given_: Any, **metadata: Any) -> Any:
    text = given_ if isinstance(given_, str) else json.dumps(given_)
    live = make(spec, **metadata)
    before = live.SerializeToString(deterministic=True)
    new = patch.patch(KIND, live, pb.Patch(**{sort: text}), codec)
    assert live.SerializeToString(deterministic=True) == before
    return new


def shown(message: Any) -> dict[str, Any]:
    spec: dict[str, Any] = codec.to_plain(message.spec)
    return spec


FULL = {
    "color": "red",
    "replicas": 1,
    "parts": [{"name": "p", "image": "1"}, {"name": "q", "size": 2}],
    "tags": ["a", "b"],
    "words": ["x", "y"],
    "notes": {"a": "1", "b/c": "2"},
    "inner": {"name": "i", "parts": [{"name": "z"}]},
    "amount": "1",
    "exec": {"name": "e", "size": 1},
    "shelf": {"s": {"name": "s", "size": 1}},
}


def test_merge_makes_the_masked_fields_so() -> None:
    values = things.thing(color="blue", notes={"a": "9"}, parts=[{"name": "n"}])
    paths = ["spec.color", "spec.replicas", "spec.notes.a", "spec.notes.b/c", "spec.inner.parts"]
    request = pb.Patch(merge={"object": values.SerializeToString(), "mask": {"paths": paths}})
    new = patch.patch(KIND, make(FULL), request)
    expected = FULL | {"color": "blue", "notes": {"a": "9"}, "inner": {"name": "i"}}
    del expected["replicas"]
    assert shown(new) == expected


@pytest.mark.parametrize("paths", [[], ["spec.colour"], ["spec.parts.image"]])
def test_a_merge_says_which_fields(paths: list[str]) -> None:
    request = pb.Patch(merge={"object": b"", "mask": {"paths": paths}})
    with pytest.raises(ApiError) as caught:
        patch.patch(KIND, make(FULL), request)
    assert caught.value.reason is Reason.INVALID


# (patch, what becomes of FULL, with None where a field goes)
MERGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "values": ({"color": "blue", "replicas": None}, {"color": "blue", "replicas": None}),
    "messages go on": ({"inner": {"size": 3}}, {"inner": FULL["inner"] | {"size": 3}}),
    "below": ({"inner": {"parts": None}}, {"inner": {"name": "i"}}),
    "lists are replaced": ({"parts": [{"name": "n"}]}, {"parts": [{"name": "n"}]}),
    "an empty list": ({"words": []}, {"words": None}),
    "maps go on": ({"notes": {"a": None, "n": "3"}}, {"notes": {"b/c": "2", "n": "3"}}),
    "a message for one that was not there": (
        {"shape": {"form": "round", "size": None}},
        {"shape": {"form": "round"}},
    ),
    "plain messages": ({"amount": 2}, {"amount": "2"}),
    "inline messages": ({"exec": {"size": None}}, {"exec": {"name": "e"}}),
    "inline messages go": ({"exec": None}, {"exec": None}),
    "messages in maps": (
        {"shelf": {"s": {"size": None}, "t": {"name": "t"}}},
        {"shelf": {"s": {"name": "s"}, "t": {"name": "t"}}},
    ),
    "an empty message": ({"shape": {}}, {"shape": {}}),
    "what is not there goes quietly": ({"shape": None}, {}),
}


@pytest.mark.parametrize("case", sorted(MERGES))
def test_json_merge(case: str) -> None:
    changes, outcome = MERGES[case]
    expected = {name: value for name, value in (FULL | outcome).items() if value is not None}
    assert shown(patched(FULL, "json_merge", {"spec": changes})) == expected


def test_a_field_is_named_if_it_is_unknown() -> None:
    with pytest.raises(ApiError) as caught:
        patched(FULL, "json_merge", {"spec": {"colour": "red", "inner": {"sise": 1}}})
    assert [one.path for one in caught.value.violations] == ["spec.colour", "spec.inner.sise"]


@pytest.mark.parametrize(
    ("sort", "given_"),
    [
        ("json_merge", "{"),
        ("json_merge", "[]"),
        ("json_merge", '{"spec": {"color": "a", "color": "b"}}'),
        ("json_merge", '{"spec": {"replicas": NaN}}'),
        ("json_merge", {"kind": None}),
        ("json_merge", {"kind": "Other"}),
        ("json_merge", {"spec": {"replicas": "many"}}),
        ("json", "{}"),
        ("json", [{"op": "jump", "path": "/spec"}]),
        ("json", [{"op": "add", "path": "spec", "value": 1}]),
        ("json", [{"op": "add", "path": "/spec/color"}]),
        ("json", [{"op": "remove", "path": "/spec/shape"}]),
        ("json", [{"op": "replace", "path": "/spec/words/2", "value": "z"}]),
        ("json", [{"op": "replace", "path": "/spec/words/01", "value": "z"}]),
        ("json", [{"op": "add", "path": "/spec/words/9", "value": "z"}]),
        ("json", [{"op": "test", "path": "/spec/replicas", "value": True}]),
        ("json", [{"op": "move", "from": "/spec", "path": "/spec/inner"}]),
        ("json", [{"op": "remove", "path": ""}]),
        ("strategic", "[]"),
        ("strategic", {"spec": {"$patch": "burn"}}),
        ("strategic", {"spec": {"parts": ["p"]}}),
    ],
)
def test_what_is_not_well_said_is_refused(sort: str, given_: Any) -> None:
    with pytest.raises(ApiError) as caught:
        patched(FULL, sort, given_)
    assert caught.value.reason is Reason.INVALID
    assert caught.value.violations


def test_json_patch() -> None:
    new = patched(
        FULL,
        "json",
        [
            {"op": "test", "path": "/spec/color", "value": "red"},
            {"op": "replace", "path": "/spec/color", "value": "blue"},
            {"op": "remove", "path": "/spec/replicas"},
            {"op": "add", "path": "/spec/parts/0", "value": {"name": "n"}},
            {"op": "add", "path": "/spec/words/-", "value": "z"},
            {"op": "remove", "path": "/spec/notes/b~1c"},
            {"op": "copy", "from": "/spec/inner", "path": "/spec/shelf/i"},
            {"op": "move", "from": "/spec/tags/0", "path": "/spec/tags/1"},
            {"op": "add", "path": "/metadata/labels", "value": {"app": "web"}},
        ],
    )
    expected = FULL | {
        "color": "blue",
        "parts": [{"name": "n"}, *FULL["parts"]],
        "words": ["x", "y", "z"],
        "notes": {"a": "1"},
        "shelf": FULL["shelf"] | {"i": FULL["inner"]},
        "tags": ["b", "a"],
    }
    del expected["replicas"]
    assert shown(new) == expected
    assert dict(new.metadata.labels) == {"app": "web"}


STRATEGIC: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "elements merge by key": (
        {"parts": [{"name": "q", "image": "9"}, {"name": "n"}]},
        {
            "parts": [
                {"name": "p", "image": "1"},
                {"name": "q", "size": 2, "image": "9"},
                {"name": "n"},
            ]
        },
    ),
    "elements go": (
        {"parts": [{"name": "p", "$patch": "delete"}, {"name": "no", "$patch": "delete"}]},
        {"parts": [{"name": "q", "size": 2}]},
    ),
    "a list is replaced": (
        {"parts": [{"$patch": "replace"}, {"name": "n"}]},
        {"parts": [{"name": "n"}]},
    ),
    "an order": (
        {
            "parts": [{"name": "n"}],
            "$setElementOrder/parts": [{"name": "n"}, {"name": "q"}, {"name": "p"}],
        },
        {"parts": [{"name": "n"}, {"name": "q", "size": 2}, {"name": "p", "image": "1"}]},
    ),
    "values of a set": (
        {"tags": ["c", "a"], "$deleteFromPrimitiveList/tags": ["b"]},
        {"tags": ["a", "c"]},
    ),
    "plain lists are replaced": ({"words": ["z"]}, {"words": ["z"]}),
    "a message is replaced": ({"inner": {"$patch": "replace", "size": 1}}, {"inner": {"size": 1}}),
    "a message is emptied": ({"notes": {"$patch": "delete"}}, {"notes": None}),
    "keys are retained": (
        {"inner": {"$retainKeys": ["name"], "name": "i"}},
        {"inner": {"name": "i"}},
    ),
    "nulls": ({"color": None, "notes": {"a": None}}, {"color": None, "notes": {"b/c": "2"}}),
    "below a list": (
        {"inner": {"parts": [{"name": "z", "image": "7"}]}},
        {"inner": {"name": "i", "parts": [{"name": "z", "image": "7"}]}},
    ),
    "keys with defaults": (
        {"doors": [{"number": 80, "name": "a"}]},
        {"doors": [{"number": 80, "name": "a"}]},
    ),
}


@pytest.mark.parametrize("case", sorted(STRATEGIC))
def test_strategic(case: str) -> None:
    changes, outcome = STRATEGIC[case]
    expected = {name: value for name, value in (FULL | outcome).items() if value is not None}
    assert shown(patched(FULL, "strategic", {"spec": changes})) == expected


@pytest.mark.parametrize(
    ("sort", "given_"),
    [
        ("json_merge", {"spec": {"color": "blue"}}),
        ("json", [{"op": "replace", "path": "/spec/color", "value": "blue"}]),
        ("strategic", {"spec": {"color": "blue"}}),
    ],
)
def test_what_json_cannot_show_survives(sort: str, given_: Any) -> None:
    live = make(FULL)
    live.metadata.creation_timestamp.seconds = 1
    live.metadata.creation_timestamp.nanos = 123
    body = live.SerializeToString() + b"\xf8\x07\x05"
    live = things.thing_class().FromString(body)
    new = patch.patch(KIND, live, pb.Patch(**{sort: json.dumps(given_)}), codec)
    assert new.metadata.creation_timestamp.nanos == 123
    assert new.SerializeToString().endswith(b"\xf8\x07\x05")
    assert new.spec.color == "blue"


def test_without_a_codec_json_is_not_served() -> None:
    with pytest.raises(ApiError) as caught:
        patch.patch(KIND, make(FULL), pb.Patch(json_merge="{}"))
    assert caught.value.reason is Reason.UNIMPLEMENTED


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "name", "-"]),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "spec",
                    "parts",
                    "name",
                    "notes",
                    "a",
                    "$patch",
                    "$retainKeys",
                    "inner",
                    "words",
                    "op",
                    "path",
                    "value",
                    "$setElementOrder/parts",
                    "$deleteFromPrimitiveList/tags",
                    "tags",
                ]
            ),
            below,
            max_size=4,
        )
    ),
    max_leaves=12,
)
_POINTERS = st.lists(
    st.sampled_from(["spec", "parts", "0", "-", "name", "notes", "a", ""]), max_size=4
).map(lambda parts: "".join(f"/{part}" for part in parts))
_OPERATIONS = st.lists(
    st.fixed_dictionaries(
        {
            "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
            "path": _POINTERS,
        },
        optional={"from": _POINTERS, "value": _JSON},
    ),
    max_size=4,
)


@given(st.sampled_from(["json_merge", "json", "strategic"]), _JSON | _OPERATIONS)
def test_no_patch_kills_the_door(sort: str, given_: Any) -> None:
    try:
        patched(FULL, sort, given_)
    except ApiError as error:
        assert error.reason is Reason.INVALID
