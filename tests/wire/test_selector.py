"""Selectors: what they say, what they match, what they refuse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.wire import selector
from kcore.wire.errors import ApiError, Reason


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("", {}, True),
        ("app=web", {"app": "web"}, True),
        ("app==web", {"app": "web"}, True),
        ("app = web", {"app": "db"}, False),
        ("app=web", {}, False),
        ("app!=web", {"app": "db"}, True),
        ("app!=web", {}, True),
        ("app!=web", {"app": "web"}, False),
        ("app in (web, db)", {"app": "db"}, True),
        ("app in (web,db)", {}, False),
        ("app notin (web,db)", {}, True),
        ("app notin (web,db)", {"app": "db"}, False),
        ("app", {"app": ""}, True),
        ("app", {}, False),
        ("!app", {}, True),
        ("! app", {"app": "x"}, False),
        ("app=", {"app": ""}, True),
        ("app=", {}, False),
        ("app=,tier=a", {"app": "", "tier": "a"}, True),
        ("app in (,a)", {"app": ""}, True),
        ("in in (in)", {"in": "in"}, True),
        ("example.com/app=web,!x,y notin (a)", {"example.com/app": "web"}, True),
        ("a=1,a=2", {"a": "1"}, False),
    ],
)
def test_label_selectors(text: str, labels: dict[str, str], matches: bool) -> None:
    assert selector.parse_labels(text).matches(labels) is matches


@pytest.mark.parametrize(
    "text",
    [
        "app in web",
        "app in (web",
        "app in ()",
        "app notin ()",
        ",app",
        "app,",
        "app web",
        "=web",
        "!",
        "app > 3",
        "-app=web",
        "app=-web",
        "A.com/app=1",
        "a/b/c",
        "app in (a b)",
        "x" * 64,
        "app=" + "x" * 64,
    ],
)
def test_what_cannot_be_understood_is_invalid(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        selector.parse_labels(text)
    assert caught.value.reason is Reason.INVALID
    assert caught.value.violations


def test_equality_is_what_an_index_can_use() -> None:
    parsed = selector.parse_labels("app=web,tier in (a),zone in (a,b),!old")
    assert parsed.equality == {"app": "web", "tier": "a"}


def test_a_message_says_the_same_as_text() -> None:
    message = meta_pb2.LabelSelector(match_labels={"app": "web"})
    message.match_expressions.add(key="tier", operator="In", values=["b", "a"])
    message.match_expressions.add(key="old", operator="DoesNotExist")
    assert selector.from_message(message) == selector.parse_labels("app=web,tier in (a,b),!old")
    assert selector.from_labels({"app": "web"}) == selector.parse_labels("app=web")


def test_all_faults_of_a_message_are_told_at_once() -> None:
    message = meta_pb2.LabelSelector()
    message.match_expressions.add(key="tier", operator="Near")
    message.match_expressions.add(key="tier", operator="In")
    message.match_expressions.add(key="tier", operator="Exists", values=["a"])
    with pytest.raises(ApiError) as caught:
        selector.from_message(message)
    assert len(caught.value.violations) == 3


_KEYS = st.sampled_from(["app", "tier", "example.com/zone"])
_VALUES = st.sampled_from(["", "a", "b", "c.d"])
_REQUIREMENTS = st.lists(
    st.one_of(
        st.builds(
            selector.Requirement,
            _KEYS,
            st.sampled_from([selector.Operator.IN, selector.Operator.NOT_IN]),
            st.lists(_VALUES, min_size=1, max_size=3, unique=True).map(sorted).map(tuple),
        ),
        st.builds(
            selector.Requirement,
            _KEYS,
            st.sampled_from([selector.Operator.EXISTS, selector.Operator.ABSENT]),
        ),
    ),
    max_size=4,
)


@given(_REQUIREMENTS, st.dictionaries(_KEYS, _VALUES))
def test_text_and_selector_are_the_same(
    requirements: list[selector.Requirement], labels: dict[str, str]
) -> None:
    made = selector.LabelSelector(tuple(requirements))
    assert selector.parse_labels(str(made)) == made
    assert made.matches(labels) is all(one.matches(labels) for one in requirements)


@given(st.text(alphabet="ab=!(), inot\\/.<>\n", max_size=20))
def test_no_text_kills_the_parsers(text: str) -> None:
    for parse in (selector.parse_labels, lambda said: selector.parse_fields(said, ("a", "b"))):
        try:
            parse(text)
        except ApiError as error:
            assert error.reason is Reason.INVALID


@pytest.mark.parametrize(
    ("text", "fields", "matches"),
    [
        ("", {}, True),
        ("spec.nodeName=n1", {"spec.nodeName": "n1"}, True),
        ("spec.nodeName==n1", {"spec.nodeName": "n2"}, False),
        ("spec.nodeName=", {}, True),
        ("spec.nodeName!=", {}, False),
        ("spec.nodeName!=n1", {}, True),
        ("metadata.name=web,metadata.namespace=default", {}, True),
        ("metadata.name=db", {}, False),
        ("spec.nodeName=a\\,b\\=c", {"spec.nodeName": "a,b=c"}, True),
        ("spec.nodeName=a,spec.nodeName=b", {"spec.nodeName": "a"}, False),
        ("spec.nodeName=a,spec.nodeName=b", {"spec.nodeName": "b"}, False),
    ],
)
def test_field_selectors(text: str, fields: dict[str, str], matches: bool) -> None:
    parsed = selector.parse_fields(text, ["spec.nodeName"])
    assert parsed.matches(fields, "default", "web") is matches
    assert selector.parse_fields(str(parsed), ["spec.nodeName"]) == parsed or parsed.impossible


def test_unknown_fields_are_told_as_kubernetes_does() -> None:
    with pytest.raises(ApiError, match=r"field label not supported: spec\.color") as caught:
        selector.parse_fields("spec.color=red,spec.nodeName", ["spec.nodeName"])
    assert caught.value.reason is Reason.INVALID
    assert len(caught.value.violations) == 2
