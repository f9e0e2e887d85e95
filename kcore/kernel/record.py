"""The log's records, and what is kept in memory of each object.

A `Record` is one operation at one revision, as the store keeps it. A `Stored` is an object as the
state keeps it: its bytes, and what indexes need, read off once when it was written. A `Change` is
what a commit did to one object; the feed turns changes into events. Pure values.
"""

import zlib
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

# Tuples are made several times as fast as frozen dataclasses, and every write makes these.
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Key(NamedTuple):
    """Names one object; `namespace` is "" for cluster-scoped kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return "/".join(part for part in self if part)


class Verb(StrEnum):
    """What an operation did to its object."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


class Record(NamedTuple):
    """One operation of one transaction, as it is stored.

    Several records may share a revision: they are one transaction. `body` is the object as it is
    after the operation (before it, for a deletion, with the revision of the deletion in its
    metadata). Every record has a checksum of its own; the store's head accounts for their sum, so
    that a record that is missing is found, too.
    """

    revision: int
    key: Key
    uid: str
    verb: Verb
    body: bytes
    actor: str
    because: int
    time: float
    request_id: str = ""
    manager: str = ""
    subresource: str = ""
    # Which operation of the transaction; what the kernel does besides counts on from the last.
    ordinal: int = 0

    @property
    def position(self) -> int:
        """Place in the log: revisions in order, operations in order within."""
        return self.revision << 10 | self.ordinal

    def checksum(self) -> int:
        """CRC-32 over everything."""
        (revision, key, uid, verb, body, actor, because, time, request_id, manager, subresource,
         ordinal) = self  # fmt: skip
        head = "\x00".join(
            (
                str(revision),
                str(ordinal),
                *key,
                uid,
                verb,
                actor,
                str(because),
                repr(time),
                request_id,
                manager,
                subresource,
            )
        )
        return zlib.crc32(body, zlib.crc32(head.encode()))


class Request(NamedTuple):
    """A transaction that was asked for by an id, and the revision that it made."""

    actor: str
    request_id: str
    revision: int
    time: float

    def checksum(self) -> int:
        """CRC-32 over everything."""
        text = "\x00".join((self.actor, self.request_id, str(self.revision), repr(self.time)))
        return zlib.crc32(text.encode())


class Stored(NamedTuple):
    """An object in memory."""

    key: Key
    uid: str
    revision: int
    body: bytes
    labels: Mapping[str, str] = _NOTHING
    # Values of selectable paths, as text, by JSON path; of unset ones as the type's zero.
    fields: Mapping[str, str] = _NOTHING
    # Uids of its owners.
    owners: tuple[str, ...] = ()
    # (pool, value) pairs that it claims.
    claims: tuple[tuple[str, str], ...] = ()
    deleting: bool = False


class Change(NamedTuple):
    """What one operation did: `before` None: created; `after` None: deleted.

    For a deletion `record.body` is the last state, with the deletion's revision.
    """

    record: Record
    before: Stored | None
    after: Stored | None
