"""Listing: one object, or the objects that a selection holds, now or in the past, as bytes.

`get` and `list_page` answer with GetResponse and ListResponse already encoded: objects are not
decoded, unless a mask asks for a part of them. All pages of a list show one revision; the token of
the next page is bound to the user and to the selection, and says where the page before ended. The
list that later pages need is kept for the latest few tokens and read from the log for others, as
long as the log goes back that far; then the token has expired, and the list starts again.

Knows no kind and no permission: whoever calls has asked whether the user may.
"""

import base64
import binascii
import hashlib
import hmac
import itertools
import json
import operator
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.kernel import frame, interest, mask
from kcore.kernel.record import Key, Stored
from kcore.kernel.source import Source
from kcore.wire.errors import ApiError, Reason, Violation

# Bytes of items on a page: with tags, token and metadata it stays under 4 MiB.
PAGE_BYTES = (4 << 20) - (64 << 10)
# Lists kept for the pages still to come.
KEPT_CUTS = 32


class Listing:
    """Answers to Get and List."""

    def __init__(self, source: Source, secret: bytes) -> None:
        """`secret` signs page tokens; the same on all servers that answer for one another."""
        self._source = source
        self._secret = secret
        self._cuts: OrderedDict[tuple[int, interest.Want], list[Stored]] = OrderedDict()

    async def get(self, request: pb.GetRequest) -> bytes:
        """A GetResponse; NOT_FOUND where there is none."""
        key = Key(request.ref.kind, request.ref.namespace, request.ref.name)
        message_class = self._source.message(key.kind)
        paths = tuple(request.mask.paths)
        tree = _compile(message_class, paths) if paths else None
        revision = await self._revision(request.at, key.kind)
        if revision is None:
            revision = self._source.head
            stored = self._source.get(key)
            body = stored.body if stored is not None else None
        else:
            body = await self._source.at(key, revision)
        if body is None:
            said = f'{self._source.plural(key.kind)} "{key.name}" not found'
            raise ApiError(Reason.NOT_FOUND, said)
        if tree is not None:
            body = interest.masked(message_class, tree, body)
        return frame.get_response(body, revision)

    async def list_page(self, request: pb.ListRequest, user: str = "") -> bytes:
        """A ListResponse, at most 4 MiB of it; metadata.continue leads on."""
        want = self._compile(request)
        if request.page_size < 0:
            said = f"{request.page_size} is negative"
            raise ApiError(Reason.INVALID, f"page_size: {said}", [Violation("pageSize", said)])
        bound = _bound(request, user)
        after: tuple[str, str] | None = None
        if request.page_token:
            revision, after = self._read_token(request.page_token, bound)
            found = await self._kept(revision, want)
        else:
            asked = await self._revision(request.at, want.kind)
            revision = self._source.head if asked is None else asked
            found = self._now(want) if asked is None else await self._past(revision, want)
        return self._page(request.page_size, bound, revision, want, found, after)

    def _page(
        self,
        page_size: int,
        bound: str,
        revision: int,
        want: interest.Want,
        found: list[Stored],
        after: tuple[str, str] | None,
    ) -> bytes:
        start = _after(found, after) if after is not None else 0
        parts: list[bytes] = []
        size, end = 0, start
        for stored in itertools.islice(found, start, start + page_size if page_size else None):
            body = stored.body
            if want.paths:
                body = want.show(want.kind, body, self._source)
            length = len(body)
            if parts and size + length > PAGE_BYTES:
                break
            head = frame.item_head(length)
            parts.append(head)
            parts.append(body)
            size += length + len(head)
            end += 1
        metadata = meta_pb2.ListMeta(resource_version=str(revision))
        if end < len(found):
            last = found[end - 1].key
            # `continue` is a word of Python's.
            token = self._write_token(revision, last, bound)
            setattr(metadata, "continue", token)
            metadata.remaining_item_count = len(found) - end
            self._keep(revision, want, found)
        return frame.list_response(metadata, parts)

    def _compile(self, request: pb.ListRequest) -> interest.Want:
        selection = request.selection
        if selection.kind == interest.ANY_KIND:
            said = "a list is of one kind"
            raise ApiError(Reason.INVALID, said, [Violation("selection.kind", said)])
        if selection.from_revision:
            said = "from_revision is for watches; a list of the past is asked for with `at`"
            raise ApiError(Reason.INVALID, said, [Violation("selection.fromRevision", said)])
        if request.mask.paths:
            _compile(self._source.message(selection.kind), request.mask.paths)
        return interest.compile_selection(selection, request.mask.paths, self._source)

    async def _revision(self, at: pb.At, kind: str) -> int | None:
        """The revision that is meant; None: now."""
        which = at.WhichOneof("at")
        if which is None:
            return None
        if which == "time":
            revision = await self._source.revision_at(at.time.seconds + at.time.nanos / 1e9)
        else:
            revision = at.revision
            if not 0 < revision <= self._source.head:
                said = f"revision {revision} is not between 1 and {self._source.head}"
                raise ApiError(Reason.INVALID, f"at: {said}", [Violation("at.revision", said)])
        if revision < self._source.compacted:
            compacted = self._source.compacted
            said = f"revision {revision} is no longer kept; the oldest is {compacted}"
            raise ApiError(Reason.GONE, said)
        since = self._source.served_since(kind)
        if revision < since:
            said = f"{self._source.plural(kind)} are served since revision {since} only"
            raise ApiError(Reason.GONE, said)
        if revision < self._source.head and not self._source.remembers(kind):
            said = f"of {self._source.plural(kind)} no past is kept"
            raise ApiError(Reason.GONE, said)
        return revision

    def _now(self, want: interest.Want) -> list[Stored]:
        found = list(interest.candidates(want, self._source))
        if not want.plain:
            found = [one for one in found if want.matches(one)]
        found.sort(key=_key)
        return found

    async def _past(self, revision: int, want: interest.Want) -> list[Stored]:
        if revision == self._source.head:
            return self._now(want)
        records = self._source.state_at(revision, want.kind, want.namespace)
        past = [
            self._source.read(record.key, record.revision, record.body)
            async for record in records
            if want.may_concern(record.key)
        ]
        return sorted((one for one in past if want.matches(one)), key=_key)

    def _keep(self, revision: int, want: interest.Want, found: list[Stored]) -> None:
        self._cuts[revision, want] = found
        self._cuts.move_to_end((revision, want))
        while len(self._cuts) > KEPT_CUTS:
            self._cuts.popitem(last=False)

    async def _kept(self, revision: int, want: interest.Want) -> list[Stored]:
        if revision < self._source.compacted:
            raise _expired()
        found = self._cuts.get((revision, want))
        if found is None:
            if revision < self._source.head and not self._source.remembers(want.kind):
                raise _expired()
            found = await self._past(revision, want)
        return found

    def _write_token(self, revision: int, last: Key, bound: str) -> str:
        said = json.dumps([revision, last.namespace, last.name, bound], separators=(",", ":"))
        payload = said.encode()
        return base64.urlsafe_b64encode(self._sign(payload) + payload).decode()

    def _read_token(self, token: str, bound: str) -> tuple[int, tuple[str, str]]:
        try:
            data = base64.urlsafe_b64decode(token.encode())
        except (ValueError, binascii.Error):
            data = b""
        if len(data) <= 16:
            raise _not_a_token("it is not one that a server has made")
        signature, payload = data[:16], data[16:]
        if not hmac.compare_digest(signature, self._sign(payload)):
            # Another server's, or somebody's own: either way there is nothing to go on from.
            raise _expired()
        revision, namespace, name, bound_to = json.loads(payload)
        if bound_to != bound:
            raise _not_a_token("it belongs to another user or another selection")
        if revision > self._source.head:
            raise _expired()
        return revision, (namespace, name)

    def _sign(self, payload: bytes) -> bytes:
        return hmac.digest(self._secret, payload, "sha256")[:16]


def _bound(request: pb.ListRequest, user: str) -> str:
    """What a token is for: all that must be the same on every page."""
    asked = pb.ListRequest(selection=request.selection, mask=request.mask)
    if request.HasField("at"):
        asked.at.CopyFrom(request.at)
    digest = hashlib.sha256(asked.SerializeToString(deterministic=True) + b"\0" + user.encode())
    return digest.hexdigest()[:16]


def _compile(message_class: Any, paths: Sequence[str]) -> mask.Mask:
    return mask.compile_mask(message_class.DESCRIPTOR, paths, identity=True)


# Of one kind, so that they go by namespace and name.
_key = operator.attrgetter("key")


def _place(stored: Stored) -> tuple[str, str]:
    return stored.key.namespace, stored.key.name


def _after(found: list[Stored], last: tuple[str, str]) -> int:
    """Index of the first object after `last`."""
    low, high = 0, len(found)
    while low < high:
        middle = (low + high) // 2
        if _place(found[middle]) <= last:
            low = middle + 1
        else:
            high = middle
    return low


def _expired() -> ApiError:
    return ApiError(Reason.GONE, "the page token has expired: list again from the first page")


def _not_a_token(why: str) -> ApiError:
    return ApiError(Reason.INVALID, f"invalid page token: {why}", [Violation("pageToken", why)])
