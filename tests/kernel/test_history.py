"""The past: at any revision it is what a watcher saw then, while kinds come, change and go."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import pool_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.chance import Chance
from kcore.kernel import frame
from kcore.kernel.store.memory import MemoryStore
from kcore.wire.errors import ApiError, Reason
from tests import budget
from tests.kernel import uploads
from tests.kernel import world as worlds
from tests.kernel.uploads import PROTO_TEXT, SCHEMA, WIDGET, widget
from tests.kernel.world import CONFIG_MAP, POOL, World

# Each can follow each; the last two say other things of the kind.
VERSIONS = (
    PROTO_TEXT,
    PROTO_TEXT.replace("notes = 6;", "notes = 6; optional string motto = 8;"),
    PROTO_TEXT.replace('selectable: "spec.color"', 'selectable: "spec.size"'),
)
_NAMES = st.sampled_from("abc")
_ACTS = st.one_of(
    st.tuples(st.just("widget"), _NAMES, st.sampled_from(["red", "green", "blue"])),
    st.tuples(st.just("config"), _NAMES, st.sampled_from("xyz")),
    st.tuples(st.just("delete"), st.sampled_from([WIDGET, CONFIG_MAP]), _NAMES),
    st.tuples(st.just("schema"), st.sampled_from(range(len(VERSIONS))), st.none()),
    st.tuples(st.just("drop"), st.none(), st.none()),
    st.tuples(st.just("restart"), st.none(), st.none()),
)

# (kind, namespace, name) -> the object's bytes.
Objects = dict[tuple[str, str, str], bytes]


class Watcher:
    """Follows all kinds, and keeps what was there at each revision."""

    def __init__(self) -> None:
        self.seen: dict[int, Objects] = {0: {}}
        self.mark = 0

    async def follow(self, w: World) -> None:
        """Reads on until nothing is missing."""
        selection = pb.Selection(kind="*", from_revision=self.mark)
        request = pb.WatchRequest(selections=[selection], progress_ms=10)
        async with contextlib.aclosing(w.kernel.watch(request)) as stream:
            async for data in stream:
                response = pb.WatchResponse.FromString(data)
                self._note(response)
                if response.synced:
                    return

    def _note(self, response: pb.WatchResponse) -> None:
        objects = dict(self.seen[self.mark])
        for event in response.events:
            _, start, end = frame.metadata_of(event.object)
            metadata = meta_pb2.ObjectMeta.FromString(event.object[start:end])
            key = event.kind, metadata.namespace, metadata.name
            if event.type == pb.Event.DELETED:
                assert key in objects, f"{key} was deleted, and never there"
                del objects[key]
            else:
                assert (event.type == pb.Event.ADDED) == (key not in objects), key
                objects[key] = event.object
            self.seen[event.revision] = dict(objects)
        self.mark = max(self.mark, response.revision)
        self.seen[self.mark] = objects

    def at(self, revision: int) -> Objects:
        return self.seen[max(one for one in self.seen if one <= revision)]


async def act(w: World, what: tuple[str, Any, Any]) -> None:
    """Does it, as far as the kernel lets one."""
    verb, first, second = what
    if verb == "widget":
        await w.run(worlds.apply(WIDGET, widget(first, color=second), force=True))
    elif verb == "config":
        await w.run(worlds.apply(CONFIG_MAP, worlds.config_map(first, key=second), force=True))
    elif verb == "delete":
        await w.delete(first, second)
    elif verb == "schema":
        await w.run(worlds.apply(SCHEMA, uploads.schema(VERSIONS[first]), force=True))
    elif verb == "drop":
        await w.run(worlds.delete(SCHEMA, "acme"))


async def listed(w: World, kind: str, revision: int) -> Objects:
    """What a list of the past shows, page by page."""
    request = pb.ListRequest(
        selection=pb.Selection(kind=kind), at=pb.At(revision=revision), page_size=2
    )
    found: Objects = {}
    while True:
        response = pb.ListResponse.FromString(await w.kernel.list(request, "me"))
        for body in response.items:
            _, start, end = frame.metadata_of(body)
            metadata = meta_pb2.ObjectMeta.FromString(body[start:end])
            found[kind, metadata.namespace, metadata.name] = body
        request.page_token = getattr(response.metadata, "continue")
        if not request.page_token:
            return found


async def check(w: World, watcher: Watcher, first: int) -> None:
    for kind in (CONFIG_MAP, SCHEMA, WIDGET):
        known = w.kernel.schema.kinds.get(kind)
        if known is None:
            continue
        for revision in range(first, w.head + 1):
            expected = {key: body for key, body in watcher.at(revision).items() if key[0] == kind}
            try:
                assert await listed(w, kind, revision) == expected, (kind, revision)
            except ApiError as error:
                # What is older was of another kind of this name.
                assert error.reason is Reason.GONE and revision < known.since
                continue
            assert revision >= known.since
            for key, body in expected.items():
                ref = pb.Ref(kind=key[0], namespace=key[1], name=key[2])
                request = pb.GetRequest(ref=ref, at=pb.At(revision=revision))
                assert pb.GetResponse.FromString(await w.kernel.get(request)).object == body


async def run(history: Sequence[tuple[str, Any, Any]]) -> None:
    store, watcher, first = MemoryStore(Chance(1)), Watcher(), 0
    rest = list(history)
    while rest:
        async with worlds.world(store) as w:
            if not first:
                pool = pool_pb2.Pool(metadata={"name": "serials"}, spec={"first": 1, "last": 99})
                await w.create(POOL, pool)
                first = w.head
            await watcher.follow(w)
            while rest and (what := rest.pop(0))[0] != "restart":
                with contextlib.suppress(ApiError):
                    await act(w, what)
                if len(rest) % 2:
                    await watcher.follow(w)
            await watcher.follow(w)
            assert watcher.mark == w.head
            await check(w, watcher, first)


@settings(deadline=None, max_examples=budget.examples(60))
@given(st.lists(_ACTS, min_size=4, max_size=16).map(lambda acts: [("schema", 0, None), *acts]))
def test_at_any_revision_is_what_a_watcher_saw_then(
    history: list[tuple[str, Any, Any]],
) -> None:
    asyncio.run(run(history))
