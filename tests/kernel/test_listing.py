"""Listing: pages of one revision, the past, masks, tokens."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.kernel import listing
from kcore.kernel.listing import Listing
from kcore.wire.errors import ApiError, Reason
from tests.kernel import things
from tests.kernel.things import KIND, PlainLog, thing


def make() -> tuple[PlainLog, Listing]:
    log = PlainLog()
    return log, Listing(log, b"secret")


def page(lists: Listing, user: str = "", **asked: Any) -> pb.ListResponse:
    selection = pb.Selection(**({"kind": KIND} | asked.pop("selection", {})))
    request = pb.ListRequest(selection=selection, **asked)
    return pb.ListResponse.FromString(asyncio.run(lists.list_page(request, user)))


def names(response: pb.ListResponse) -> list[str]:
    found = [things.thing_class().FromString(item).metadata for item in response.items]
    return [f"{one.namespace}/{one.name}" for one in found]


def token(response: pb.ListResponse) -> str:
    return str(getattr(response.metadata, "continue"))


def refused(reason: Reason, lists: Listing, **asked: Any) -> None:
    with pytest.raises(ApiError) as caught:
        page(lists, **asked)
    assert caught.value.reason is reason


def test_by_namespace_and_name_at_the_lists_revision() -> None:
    log, lists = make()
    for name, namespace in (("b", "y"), ("c", "x"), ("a", "y")):
        log.commit(("put", thing(name, namespace)))
    response = page(lists)
    assert names(response) == ["x/c", "y/a", "y/b"]
    assert response.metadata.resource_version == "3"
    assert not token(response)
    assert names(page(lists, selection={"namespace": "y"})) == ["y/a", "y/b"]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"names": ["a", "nobody"], "namespace": "x"}, ["x/a"]),
        ({"names": ["a"]}, ["x/a", "y/a"]),
        ({"labels": "app=web"}, ["x/a", "y/b"]),
        ({"labels": "app!=web"}, ["x/b", "y/a"]),
        ({"labels": "app=web", "namespace": "y"}, ["y/b"]),
        ({"fields": "spec.color=red"}, ["x/a", "x/b"]),
        ({"fields": "spec.color=red,metadata.name!=a"}, ["x/b"]),
        ({"fields": "metadata.name=a,metadata.namespace=y"}, ["y/a"]),
        ({"fields": "spec.color="}, ["y/b"]),
    ],
)
def test_selections(selection: dict[str, Any], expected: list[str]) -> None:
    log, lists = make()
    log.commit(("put", thing("a", "x", color="red", labels={"app": "web"})))
    log.commit(("put", thing("b", "x", color="red")))
    log.commit(("put", thing("a", "y", color="blue", labels={"app": "db"})))
    log.commit(("put", thing("b", "y", labels={"app": "web"})))
    assert names(page(lists, selection=selection)) == expected
    # The past is selected from just as the present is.
    log.commit(("delete", thing("a", "x")))
    log.commit(("put", thing("b", "y", color="pink")))
    assert names(page(lists, selection=selection, at={"revision": 4})) == expected


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 20)), max_size=30),
    st.integers(1, 7),
    st.booleans(),
)
def test_pages_show_one_revision_whatever_happens_between(
    keys: list[tuple[str, int]], size: int, forgetful: bool
) -> None:
    log, lists = make()
    for namespace, number in keys:
        log.commit(("put", thing(f"n{number}", namespace, replicas=1)))
    expected = [f"{namespace}/{name}" for _, namespace, name in sorted(log.state)]
    revision = log.head
    seen: list[str] = []
    following = ""
    while True:
        response = page(lists, page_size=size, page_token=following)
        assert response.metadata.resource_version == str(revision)
        seen += names(response)
        assert response.metadata.remaining_item_count == len(expected) - len(seen)
        following = token(response)
        if not following:
            break
        assert len(response.items) == size
        for key in sorted(log.state)[:2]:
            log.commit(("delete", thing(key.name, key.namespace)))
        log.commit(("put", thing("new", "y")))
        if forgetful:
            # Another server, or too many lists since: the rest is read from the log.
            lists = Listing(log, b"secret")
    assert seen == expected


def test_a_page_without_size_fits_into_a_message() -> None:
    log, lists = make()
    for number in range(30):
        log.commit(("put", thing(f"a{number:02}", color="x" * 300_000)))
    count, following = 0, ""
    while True:
        response = page(lists, page_token=following)
        assert response.ByteSize() <= 4 << 20
        count += len(response.items)
        following = token(response)
        if not following:
            break
        assert response.ByteSize() > 3 << 20
    assert count == 30


def test_tokens_are_bound_and_expire() -> None:
    log, lists = make()
    for number in range(4):
        log.commit(("put", thing(f"a{number}")))
    given_token = token(page(lists, user="u", page_size=1))
    assert names(page(lists, user="u", page_size=3, page_token=given_token))
    asked = {"user": "u", "page_token": given_token}
    refused(Reason.INVALID, lists, **asked | {"user": "other"})
    refused(Reason.INVALID, lists, **asked, selection={"namespace": "x"})
    refused(Reason.INVALID, lists, **asked, mask={"paths": ["spec"]})
    refused(Reason.INVALID, lists, user="u", page_token="nonsense")
    refused(Reason.GONE, Listing(log, b"other"), **asked)
    log.commit(("put", thing("b")))
    log.compact(log.head)
    refused(Reason.GONE, lists, **asked)


def test_the_past() -> None:
    log, lists = make()
    log.commit(("put", thing("a", color="red")))
    log.commit(("put", thing("a", color="blue")))
    log.commit(("delete", thing("a")))
    reference = pb.Ref(kind=KIND, namespace="default", name="a")

    def color(**at: Any) -> str:
        answer = asyncio.run(
            lists.get(pb.GetRequest(ref=reference, at=pb.At(**at) if at else None))
        )
        body = pb.GetResponse.FromString(answer).object
        return str(things.thing_class().FromString(body).spec.color)

    assert [color(revision=1), color(revision=2)] == ["red", "blue"]
    for at in ({}, {"revision": 3}):
        with pytest.raises(ApiError, match='things "a" not found') as caught:
            color(**at)
        assert caught.value.reason is Reason.NOT_FOUND
    refused(Reason.INVALID, lists, at={"revision": 4})
    refused(Reason.INVALID, lists, at={"revision": 0})
    log.compact(2)
    assert color(revision=2) == "blue"
    refused(Reason.GONE, lists, at={"revision": 1})


def test_of_kinds_without_history_there_is_no_past() -> None:
    log, lists = make()
    log.forgetful = True
    log.commit(("put", thing("a")))
    log.commit(("put", thing("b")))
    following = token(page(lists, page_size=1))
    log.commit(("put", thing("b", color="red")))
    refused(Reason.GONE, lists, at={"revision": 1})
    assert names(page(lists, page_size=1, page_token=following)) == ["default/b"]
    refused(Reason.GONE, Listing(log, b"secret"), page_size=1, page_token=following)
    assert names(page(lists, at={"revision": 3})) == ["default/a", "default/b"]


def test_masks() -> None:
    log, lists = make()
    inner = {"parts": [{"name": "p", "image": "i"}]}
    log.commit(("put", thing("a", color="red", notes={"a.b": "1", "c": "2"}, **inner)))
    mask = {"paths": ["spec.parts.image", "spec.notes.a.b"]}
    reference = pb.Ref(kind=KIND, namespace="default", name="a")
    answer = asyncio.run(lists.get(pb.GetRequest(ref=reference, mask=mask)))
    expected = thing("a", parts=[{"image": "i"}], notes={"a.b": "1"})
    expected.metadata.uid, expected.metadata.resource_version = "uid-1", "1"
    for body in (pb.GetResponse.FromString(answer).object, page(lists, mask=mask).items[0]):
        assert things.thing_class().FromString(body) == expected
    refused(Reason.INVALID, lists, mask={"paths": ["spec.colour"]})


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"selection": {"kind": "test.v1.Nothing"}}, Reason.NOT_FOUND),
        ({"selection": {"kind": "*"}}, Reason.INVALID),
        ({"selection": {"from_revision": 1}}, Reason.INVALID),
        ({"selection": {"fields": "spec.replicas=1"}}, Reason.INVALID),
        ({"page_size": -1}, Reason.INVALID),
    ],
)
def test_what_is_not_well_said_is_refused(asked: dict[str, Any], reason: Reason) -> None:
    refused(reason, make()[1], **asked)


def test_few_lists_are_kept() -> None:
    log, lists = make()
    log.commit(("put", thing("a")))
    log.commit(("put", thing("b")))
    for number in range(100):
        log.commit(("put", thing("a", replicas=number)))
        assert token(page(lists, page_size=1))
    assert len(lists._cuts) == listing.KEPT_CUTS
