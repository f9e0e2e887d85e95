"""Objects on a server, as the commands want them: whole lists, helpful absences, one change each.

Everything goes through the Api's verbs. What isn't found is looked for elsewhere, so that the error
says where it is (`missing`).
"""

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli.session import Session
from kcore.client.kinds import Kind
from kcore.client.problem import nearest
from kcore.wire.errors import ApiError, Reason

PAGE: Final = 500
# A server that goes away in the middle of a command is back within seconds, or it isn't.
REPEATS: Final = 10
REPEAT_SECONDS: Final = 1.0
# Who owns the fields that the command line sets.
MANAGER: Final = "kcore"


@dataclass(frozen=True, slots=True)
class Listing:
    """Objects of one kind, and the revision that they were read at."""

    items: list[Message]
    revision: int


def namespace_of(kind: Kind, namespace: str) -> str:
    """The namespace in a reference: none for what lives in the cluster."""
    return namespace if kind.namespaced else ""


def ref(kind: Kind, message: Message) -> pb.Ref:
    """A reference to the object."""
    known = metadata(message)
    return pb.Ref(
        kind=kind.full_name, namespace=namespace_of(kind, known.namespace), name=known.name
    )


def metadata(message: Message) -> Any:
    """An object's metadata."""
    return getattr(message, "metadata")  # noqa: B009 - messages of run-time pools have no types


async def get(
    session: Session, kind: Kind, namespace: str, name: str, *, at: pb.At | None = None
) -> Message:
    """One object, now or `at` a point in the past; what isn't there is looked for elsewhere."""
    api = await session.api()
    ref = pb.Ref(kind=kind.full_name, namespace=namespace_of(kind, namespace), name=name)
    try:
        answer = await api.get(pb.GetRequest(ref=ref, at=at))
    except ApiError as error:
        if error.reason is Reason.NOT_FOUND:
            if at is not None:
                where = f' in namespace "{namespace}"' if kind.namespaced else ""
                said = f'{kind.singular_resource} "{name}" was not there{where} at that time'
                raise ApiError(Reason.NOT_FOUND, said) from None
            raise await missing(session, kind, namespace, name) from None
        raise
    return kind.parse(answer.object)


async def find(session: Session, kind: Kind, namespace: str, name: str) -> Message | None:
    """One object, or None."""
    api = await session.api()
    ref = pb.Ref(kind=kind.full_name, namespace=namespace_of(kind, namespace), name=name)
    try:
        return kind.parse((await api.get(pb.GetRequest(ref=ref))).object)
    except ApiError as error:
        if error.reason is Reason.NOT_FOUND:
            return None
        raise


async def listing(
    session: Session,
    kind: Kind,
    namespace: str,
    *,
    labels: str = "",
    fields: str = "",
    names: Iterable[str] = (),
    at: pb.At | None = None,
    page_size: int = PAGE,
) -> Listing:
    """All objects of a selection, page by page at one revision. No namespace: all of them."""
    api = await session.api()
    selection = pb.Selection(
        kind=kind.full_name,
        namespace=namespace_of(kind, namespace),
        names=names,
        labels=labels,
        fields=fields,
    )
    found: list[Message] = []
    token = ""
    while True:
        answer = await api.list(
            pb.ListRequest(selection=selection, page_size=page_size, page_token=token, at=at)
        )
        make = kind.message.FromString
        found += [make(item) for item in answer.items]
        token = getattr(answer.metadata, "continue")
        if not token:
            return Listing(found, int(answer.metadata.resource_version or 0))


async def missing(session: Session, kind: Kind, namespace: str, name: str) -> ApiError:
    """NOT_FOUND in words that help: where else the name is, or which name is like it."""
    word = kind.singular_resource
    if not kind.namespaced:
        names = await _names(session, kind, "")
        hint = nearest(name, (n for _, n in names))
        more = f', did you mean "{hint}"?' if hint else ""
        return ApiError(Reason.NOT_FOUND, f'{word} "{name}" not found{more}')
    said = f'{word} "{name}" not found in namespace "{namespace}"'
    names = await _names(session, kind, "")
    elsewhere = sorted(space for space, known in names if known == name)
    if elsewhere:
        spaces = ", ".join(f'"{space}"' for space in elsewhere)
        return ApiError(
            Reason.NOT_FOUND, f"{said}; found in {spaces}: {_typed(session, elsewhere[0])}"
        )
    hint = nearest(name, (known for space, known in names if space == namespace))
    if hint:
        return ApiError(Reason.NOT_FOUND, f'{said}, did you mean "{hint}"?')
    absent = await absent_namespace(session, namespace)
    return ApiError(Reason.NOT_FOUND, f"{said}{f': {absent}' if absent else ''}")


def _typed(session: Session, namespace: str) -> str:
    """The command line as it had better been, in another namespace."""
    # What may destroy is not put into anybody's mouth.
    if not session.line or "delete" in session.line:
        return f"add -n {namespace}"
    kept: list[str] = []
    words = list(session.line)
    end = words.index("--") if "--" in words else len(words)
    at = 0
    while at < end:
        word = words[at]
        if word in ("-n", "--namespace"):
            at += 1
        elif not word.startswith(("--namespace=", "-n=")):
            kept.append(word)
        at += 1
    return shlex.join(["kcore", *kept, "-n", namespace, *words[end:]])


async def absent_namespace(session: Session, namespace: str) -> str:
    """A sentence where there is no such namespace; else nothing."""
    catalogue = await session.kinds()
    parents = [k for k in catalogue.kinds if k.api_version == "v1" and k.name == "Namespace"]
    if not parents or not namespace:
        return ""
    known = [name for _, name in await _names(session, parents[0], "")]
    if not known or namespace in known:
        return ""
    hint = nearest(namespace, known)
    return f'there is no namespace "{namespace}"' + (f', did you mean "{hint}"?' if hint else "")


async def _names(session: Session, kind: Kind, namespace: str) -> list[tuple[str, str]]:
    """Namespace and name of all objects; none where the caller may not list them."""
    try:
        found = await listing(session, kind, namespace)
    except ApiError:
        return []
    return [(metadata(m).namespace, metadata(m).name) for m in found.items]


def transaction(
    session: Session,
    operations: Sequence[pb.Operation],
    guards: Sequence[pb.Guard] = (),
    *,
    manager: str = MANAGER,
) -> pb.Transaction:
    """Operations as one transaction of the command line's."""
    return pb.Transaction(
        request_id=session.chance.uid(), manager=manager, operations=operations, guards=guards
    )


async def commit(session: Session, request: pb.CommitRequest) -> pb.CommitResponse:
    """Commits. When the answer is lost the same is asked again: it is done once all the same."""
    api = await session.api()
    for _ in range(REPEATS):
        try:
            return await api.commit(request)
        except ApiError as error:
            if error.reason is not Reason.UNAVAILABLE:
                raise
        await session.clock.sleep(REPEAT_SECONDS)
    return await api.commit(request)


async def change(
    session: Session,
    operation: pb.Operation,
    guards: Sequence[pb.Guard] = (),
    *,
    dry_run: bool = False,
    manager: str = MANAGER,
) -> pb.OperationResult:
    """One operation alone; its warnings are said, its object comes back."""
    answer = await commit(
        session,
        pb.CommitRequest(
            transactions=[transaction(session, [operation], guards, manager=manager)],
            dry_run=dry_run,
            want=pb.WANT_OBJECTS,
        ),
    )
    result = answer.results[0].operations[0]
    warn(session, result)
    return result


def merge(kind: Kind, paths: Sequence[str], fill: Callable[[Any], None]) -> pb.Patch:
    """A patch that makes the paths be as `fill` sets them; what it leaves unset is removed."""
    wanted = kind.message()
    fill(wanted)
    patch = pb.Patch(merge=pb.Merge(object=wanted.SerializeToString(deterministic=True)))
    patch.merge.mask.paths.extend(paths)
    return patch


def guard(kind: Kind, message: Message) -> pb.Guard:
    """Holds as long as the object has not changed."""
    revision = int(metadata(message).resource_version or 0)
    return pb.Guard(ref=ref(kind, message), revision=revision)


def warn(session: Session, result: pb.OperationResult) -> None:
    """Says the server's warnings."""
    for warning in result.warnings:
        session.say(f"Warning: {warning}")
