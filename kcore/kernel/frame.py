"""Protobuf as bytes: answers are put together from objects' bytes without decoding them.

The kernel keeps objects as bytes; a list or a watch message is those bytes with tags and lengths
before them. What is made here is exactly what the generated classes of kcore.api.v1 would make.
Pure; knows the numbers of api.proto's messages and that an object's field 1 is its metadata.
"""

import functools
from collections.abc import Iterable

from kcore_api.kcore.meta.v1 import meta_pb2

ADDED = 1
MODIFIED = 2
DELETED = 3


def varint(number: int) -> bytes:
    """A number that is not negative, as protobuf writes it."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def event(kind: int, body: bytes, revision: int, selection: int, object_kind: str = "") -> bytes:
    """One element of WatchResponse.events, with its tag; `kind` is ADDED, MODIFIED or DELETED.

    `object_kind` is said only where the selection does not say it.
    """
    tail = b"\x18" + varint(revision)
    if selection:
        tail += b"\x20" + varint(selection)
    if object_kind:
        name = object_kind.encode()
        tail += b"\x2a" + varint(len(name)) + name
    head = bytes((0x08, kind, 0x12)) + varint(len(body))
    return b"".join((b"\x12", varint(len(head) + len(body) + len(tail)), head, body, tail))


def watch_response(revision: int, events: Iterable[bytes], synced: bool) -> bytes:
    """A WatchResponse; `events` are made by `event`."""
    parts = [b"\x08" + varint(revision)] if revision else []
    parts += events
    if synced:
        parts.append(b"\x18\x01")
    return b"".join(parts)


def events_in(response: bytes) -> int:
    """How many events a WatchResponse has that was made by `watch_response`."""
    at = count = 0
    while at < len(response):
        tag = response[at]
        length, at = _read_varint(response, at + 1)
        if tag == 0x12:
            count += 1
            at += length
    return count


@functools.lru_cache(maxsize=4096)
def item_head(length: int) -> bytes:
    """What stands before an element of ListResponse.items that has so many bytes."""
    return b"\x12" + varint(length)


def list_response(metadata: meta_pb2.ListMeta, items: Iterable[bytes]) -> bytes:
    """A ListResponse; `items` are heads and bodies in turn."""
    head = metadata.SerializeToString(deterministic=True)
    return b"".join((b"\x0a", varint(len(head)), head, *items))


def get_response(body: bytes, revision: int) -> bytes:
    """A GetResponse."""
    return b"".join((b"\x0a", varint(len(body)), body, b"\x10", varint(revision)))


def metadata_of(body: bytes) -> tuple[int, int, int]:
    """Where an object's metadata is: start of its tag, of its bytes, and its end.

    (0, 0, 0) where it has none. Objects are written by this kernel, metadata once and first; bytes
    of another order are found all the same.
    """
    at = 0
    while at < len(body):
        start = at
        tag, at = _read_varint(body, at)
        wire = tag & 7
        if wire == 2:
            length, at = _read_varint(body, at)
            if tag == 0x0A:
                return start, at, at + length
            at += length
        elif wire == 0:
            _, at = _read_varint(body, at)
        elif wire == 1:
            at += 8
        elif wire == 5:
            at += 4
        else:
            raise ValueError(f"wire type {wire} in an object")
    return 0, 0, 0


def with_revision(body: bytes, revision: int) -> bytes:
    """The object with another metadata.resourceVersion, all else as it is."""
    start, inner, end = metadata_of(body)
    metadata = meta_pb2.ObjectMeta.FromString(body[inner:end])
    metadata.resource_version = str(revision)
    data = metadata.SerializeToString(deterministic=True)
    return b"".join((body[:start], b"\x0a", varint(len(data)), data, body[end:]))


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
