"""Server-side apply against a slow and plain one: histories of three managers."""

from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from kcore.wire.errors import ApiError, Reason
from tests import budget
from tests.kernel.test_apply import applied, spec

# A place in an object: names of fields, keys of maps and of elements.
Place = tuple[Any, ...]
Leaves = dict[Place, Any]

_KEYS = {"parts": ("name",), "doors": ("number", "protocol")}
_DEFAULTS = {"protocol": "TCP"}
_ATOMIC = ("words", "shape")


def leaves(plain: dict[str, Any]) -> Leaves:
    """What there is, place by place; an element of a list is a place of its own."""
    found: Leaves = {}

    def message(value: dict[str, Any], at: Place, but: tuple[str, ...] = ()) -> None:
        for name, below in value.items():
            place = (*at, name)
            if name in but:
                continue
            if name in _ATOMIC:
                found[place] = below
            elif name in _KEYS:
                for element in below:
                    key = tuple(element.get(one, _DEFAULTS.get(one)) for one in _KEYS[name])
                    found[(*place, key)] = None
                    message(element, (*place, key), _KEYS[name])
            elif name == "tags":
                for tag in below:
                    found[(*place, tag)] = None
            elif isinstance(below, dict):
                message(below, place)
            else:
                found[place] = below

    message(plain, ())
    return found


def _within(place: Place, above: Place) -> bool:
    return place[: len(above)] == above


@dataclass
class Plain:
    """An object, and what of it each manager wants."""

    there: Leaves = field(default_factory=dict)
    owned: dict[str, set[Place]] = field(default_factory=dict)

    def apply(self, manager: str, plain: dict[str, Any], force: bool) -> set[str] | None:
        """Those who stand against it; None: it is done."""
        wanted = leaves(plain)
        others = {name: own for name, own in self.owned.items() if name != manager}
        changed = {one for one in wanted if self.there.get(one, ...) != wanted[one]}
        against = {name for name, own in others.items() if own & changed & self.there.keys()}
        if against and not force:
            return against
        for own in others.values():
            own -= changed
        self.there |= wanted
        left = self.owned.get(manager, set()) - wanted.keys()
        kept = set(wanted).union(*others.values())
        for place in left:
            if not any(_within(one, place) for one in kept):
                for below in [one for one in self.there if _within(one, place)]:
                    del self.there[below]
        self.owned[manager] = set(wanted)
        return None


_NAMES = st.sampled_from(["p", "q"])
_WORDS = st.sampled_from(["", "1", "2"])
_PART = st.fixed_dictionaries({}, optional={"image": _WORDS, "size": st.integers(0, 2)})
_FULL = _PART.filter(bool)
_SPECS = st.fixed_dictionaries(
    {},
    optional={
        "color": _WORDS,
        "replicas": st.integers(0, 2),
        "parts": st.dictionaries(_NAMES, _PART, min_size=1, max_size=2).map(
            lambda parts: [{"name": name} | part for name, part in parts.items()]
        ),
        "words": st.lists(_WORDS, min_size=1, max_size=2),
        "tags": st.lists(_NAMES, min_size=1, max_size=2, unique=True),
        "notes": st.dictionaries(_NAMES, _WORDS, min_size=1, max_size=2),
        "shape": st.fixed_dictionaries({"form": _WORDS}),
        "inner": _FULL,
        "doors": st.lists(
            st.fixed_dictionaries(
                {"number": st.integers(1, 2)},
                optional={"protocol": st.just("UDP"), "name": _WORDS},
            ),
            min_size=1,
            max_size=2,
            unique_by=lambda door: (door["number"], door.get("protocol", "TCP")),
        ),
        "handler": st.fixed_dictionaries({"exec": _FULL}),
        "shelf": st.dictionaries(_NAMES, _FULL, min_size=1, max_size=2),
    },
)
_STEPS = st.tuples(st.sampled_from(["a", "b", "c"]), _SPECS, st.booleans())


@settings(deadline=None, max_examples=budget.examples(250))
@given(st.lists(_STEPS, min_size=2, max_size=7))
def test_three_managers_do_what_the_plain_apply_says(
    history: list[tuple[str, dict[str, Any], bool]],
) -> None:
    plain, live = Plain(), None
    for number, (manager, wanted, force) in enumerate(history):
        expected = plain.apply(manager, wanted, force)
        try:
            # In JSON, `exec` stands in the place of `handler`.
            live = applied(live, wanted, manager, force=force, time=float(number))
        except ApiError as error:
            assert error.reason is Reason.CONFLICT
            named = {one.message.split('"')[1] for one in error.violations}
            assert named == expected
            continue
        assert expected is None
        shown = spec(live)
        assert leaves(shown) == plain.there, json_format.MessageToJson(live)
