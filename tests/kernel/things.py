"""The tests' own kind, compiled from thing.proto, and a plain log of such things.

`PlainLog` is a Source of the simplest sort: a list of records and a dict.
"""

import functools
import pathlib
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any

import kcore_api
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc
from kcore_api.kcore.meta.v1 import meta_pb2, options_pb2

from kcore.kernel.feed import Feed
from kcore.kernel.record import Change, Key, Record, Stored, Verb
from kcore.wire.errors import ApiError, Reason

KIND = "test.v1.Thing"
HERE = pathlib.Path(__file__).parent
PROTO = HERE.parent.parent / "proto"


@functools.cache
def _file() -> bytes:
    """A FileDescriptorSet of thing.proto alone."""
    with tempfile.NamedTemporaryFile() as out:
        arguments = ["protoc", f"-I{HERE}", f"-I{PROTO}", "-I" + _google()]
        assert protoc.main([*arguments, f"--descriptor_set_out={out.name}", "thing.proto"]) == 0
        return pathlib.Path(out.name).read_bytes()


@functools.cache
def _classes() -> dict[str, Any]:
    # The imports put these files into the default pool, where ours finds them.
    assert meta_pb2.DESCRIPTOR.name and options_pb2.DESCRIPTOR.name
    pool = descriptor_pool.Default()
    for file in descriptor_pb2.FileDescriptorSet.FromString(_file()).file:
        pool.Add(file)
    return message_factory.GetMessageClassesForFiles(["thing.proto"], pool)


def descriptors() -> bytes:
    """The kinds that kcore ships, and things."""
    return kcore_api.KINDS.read_bytes() + _file()


def _google() -> str:
    import grpc_tools

    return str(pathlib.Path(grpc_tools.__file__).parent / "_proto")


def thing_class() -> Any:
    """The generated class of things."""
    return _classes()[KIND]


def thing(name: str = "a", namespace: str = "default", **spec: Any) -> Any:
    """A thing; keyword arguments are its spec's fields, `labels` its labels."""
    labels = spec.pop("labels", {})
    return thing_class()(
        metadata={"name": name, "namespace": namespace, "labels": labels}, spec=spec
    )


def read(key: Key, revision: int, body: bytes) -> Stored:
    """A thing as memory keeps it."""
    message = thing_class().FromString(body)
    return Stored(
        key=key,
        uid=message.metadata.uid,
        revision=revision,
        body=body,
        labels=dict(message.metadata.labels),
        fields={"spec.color": message.spec.color},
    )


class PlainLog:
    """A log of things, with the state that it leaves; publishes to its feed, if it has one."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.state: dict[Key, Stored] = {}
        self.head = 0
        self.compacted = 0
        self.feed: Feed | None = None
        # Of each object only the last record is kept.
        self.forgetful = False
        self._uids = 0

    # What tests do to it: one operation each, in a transaction of `commit`.

    def commit(self, *operations: tuple[str, Any]) -> int:
        """One transaction of ("put" | "delete", thing) operations."""
        changes = self.apply(*operations)
        self.publish(changes)
        return self.head

    def publish(self, changes: list[Change]) -> None:
        if self.feed is not None:
            self.feed.publish(changes, self.head, 0.0)

    def apply(self, *operations: tuple[str, Any]) -> list[Change]:
        """As `commit`, but its changes are still to be published."""
        self.head += 1
        changes = []
        for verb, message in operations:
            key = Key(KIND, message.metadata.namespace, message.metadata.name)
            before = self.state.get(key)
            message = type(message).FromString(message.SerializeToString())
            message.metadata.resource_version = str(self.head)
            if before is None:
                self._uids += 1
                message.metadata.uid = f"uid-{self._uids}"
            else:
                message.metadata.uid = before.uid
            if verb == "delete":
                assert before is not None
                message = thing_class().FromString(before.body)
                message.metadata.resource_version = str(self.head)
            body = message.SerializeToString(deterministic=True)
            after = None if verb == "delete" else read(key, self.head, body)
            done = Verb.DELETE if after is None else Verb.CREATE if before is None else Verb.UPDATE
            if self.forgetful:
                self.records = [one for one in self.records if one.key != key]
            record = Record(self.head, key, message.metadata.uid, done, body, "test", 0, 0.0)
            self.records.append(record)
            if after is None:
                del self.state[key]
            else:
                self.state[key] = after
            changes.append(Change(record, before, after))
        return changes

    def compact(self, revision: int) -> None:
        """Forgets what was before `revision`, but for what was there then."""
        self.compacted = max(self.compacted, revision)
        last = {record.key: record for record in self.records if record.revision <= revision}
        kept = {id(record) for record in last.values() if record.verb is not Verb.DELETE}
        self.records = [
            record for record in self.records if record.revision > revision or id(record) in kept
        ]

    # Source.

    def kinds(self) -> Iterable[str]:
        return [KIND]

    def plural(self, kind: str) -> str:
        return "things"

    def selectable(self, kind: str) -> tuple[str, ...]:
        self._known(kind)
        return ("spec.color",)

    def served_since(self, kind: str) -> int:
        self._known(kind)
        return 0

    def remembers(self, kind: str) -> bool:
        self._known(kind)
        return not self.forgetful

    def message(self, kind: str) -> Any:
        self._known(kind)
        return thing_class()

    def get(self, key: Key) -> Stored | None:
        return self.state.get(key)

    def objects(self, kind: str, namespace: str) -> Iterable[Stored]:
        self._known(kind)
        return [one for key, one in self.state.items() if namespace in ("", key.namespace)]

    def labelled(self, kind: str, label: str, value: str) -> Iterable[Stored]:
        return [one for one in self.objects(kind, "") if one.labels.get(label) == value]

    def selected(self, kind: str, path: str, value: str) -> Iterable[Stored]:
        return [one for one in self.objects(kind, "") if one.fields.get(path, "") == value]

    def read(self, key: Key, revision: int, body: bytes) -> Stored:
        return read(key, revision, body)

    async def at(self, key: Key, revision: int) -> bytes | None:
        assert revision >= self.compacted
        for record in reversed(self.records):
            if record.key == key and record.revision <= revision:
                return None if record.verb is Verb.DELETE else record.body
        return None

    async def state_at(self, revision: int, kind: str, namespace: str) -> AsyncIterator[Record]:
        assert revision >= self.compacted
        last: dict[Key, Record] = {}
        for record in self.records:
            if record.revision <= revision and namespace in ("", record.key.namespace):
                last[record.key] = record
        for one in last.values():
            if one.verb is not Verb.DELETE:
                yield one

    async def since(self, revision: int) -> AsyncGenerator[Record, None]:
        assert revision >= self.compacted
        for record in [one for one in self.records if one.revision > revision]:
            yield record

    async def revision_at(self, time: float) -> int:
        return max((one.revision for one in self.records if one.time <= time), default=0)

    def _known(self, kind: str) -> None:
        if kind != KIND:
            raise ApiError(Reason.NOT_FOUND, f"no matches for kind {kind}")
