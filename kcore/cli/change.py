"""Objects changed as plain values: read, changed by a function, sent back as what is different.

Only what was changed is sent, and only where it still is as it was read (`client/difference.py`).
`Stale` says that it is not; `changed` reads again and repeats, since its function can.
"""

import copy
import json
import re
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli import objects
from kcore.cli.session import Session
from kcore.client import codec, difference
from kcore.client.kinds import Kind
from kcore.client.problem import text
from kcore.wire.errors import ApiError, Reason

_REPEATS: Final = 5
_NTH: Final = re.compile(r"patch\[([0-9]+)\]")


class Stale(Exception):
    """Somebody else has changed the same; the text names it."""


def plain(message: Message) -> dict[str, Any]:
    """The object as it can be edited: without who set which field."""
    shown = codec.to_plain(message)
    shown.get("metadata", {}).pop("managedFields", None)
    return shown


async def commit(
    session: Session,
    kind: Kind,
    message: Message,
    after: dict[str, Any],
    *,
    dry_run: bool = False,
    manager: str = objects.MANAGER,
    subresource: str = "",
) -> tuple[Message, bool]:
    """Makes the object, read as `message`, be `after`; as it is now, and whether that is new."""
    operations = difference.operations(plain(message), after)
    if not operations:
        return message, False
    uid = objects.metadata(message).uid
    result = None
    try:
        result = await objects.change(
            session,
            pb.Operation(
                ref=objects.ref(kind, message),
                subresource=subresource,
                patch=pb.Patch(json=json.dumps(operations)),
            ),
            [pb.Guard(ref=objects.ref(kind, message), uid=uid)] if uid else [],
            dry_run=dry_run,
            manager=manager,
        )
    except ApiError as error:
        stale = _stale(error, operations)
        if stale is None:
            raise
        raise Stale(f"{stale} has been changed by somebody else meanwhile") from None
    return kind.parse(result.object), result.changed


async def changed(
    session: Session,
    kind: Kind,
    message: Message,
    function: Callable[[dict[str, Any]], None],
    *,
    dry_run: bool = False,
    manager: str = objects.MANAGER,
    subresource: str = "",
) -> tuple[Message, bool]:
    """Changes an object by a function, also when others change the same at the same time."""
    for _ in range(_REPEATS):
        after = copy.deepcopy(plain(message))
        function(after)
        try:
            return await commit(
                session,
                kind,
                message,
                after,
                dry_run=dry_run,
                manager=manager,
                subresource=subresource,
            )
        except Stale:
            metadata = objects.metadata(message)
            message = await objects.get(session, kind, metadata.namespace, metadata.name)
    raise ApiError(Reason.CONFLICT, "others change the same all the time")


def _stale(error: ApiError, operations: list[difference.Operation]) -> str | None:
    """The field whose test failed, if that was it."""
    for violation in error.violations:
        found = _NTH.fullmatch(violation.path)
        if found and int(found[1]) < len(operations):
            return text(difference.path(operations[int(found[1])]["path"]))
    return None
