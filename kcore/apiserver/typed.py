"""The typed services: what a method of theirs is asked, said in the five verbs.

`Faces(schema)` knows each method of each kind by its path; the functions turn a request's bytes
into a verb's request, and an answer's bytes into the method's answer. Objects stay bytes, since a
PodWrite and a TypedWriteRequest, a PodList and a ListResponse, a PodEvents and a WatchResponse are
the same on the wire. Pure; knows no kind and no permission.
"""

from dataclasses import dataclass

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.api.v1 import typed_pb2

from kcore.kernel.schema import Schema
from kcore.wire import typed
from kcore.wire.errors import ApiError, Reason, Violation


@dataclass(frozen=True, slots=True)
class Face:
    """One method of one kind's service."""

    kind: str
    service: str
    method: typed.Method


class Faces:
    """All methods of the typed services of one generation of kinds."""

    def __init__(self, schema: Schema) -> None:
        """`schema`: the kinds."""
        self.digest = schema.digest
        self.services: tuple[str, ...] = tuple(
            typed.service_name(kind) for kind in sorted(schema.kinds)
        )
        self._by_path: dict[str, Face] = {}
        for kind in sorted(schema.kinds):
            service = typed.service_name(kind)
            for method in typed.methods(schema.kinds[kind].message.DESCRIPTOR):
                self._by_path[f"/{service}/{method.name}"] = Face(kind, service, method)

    def find(self, path: str) -> Face | None:
        """The method of this path, exactly as it is written."""
        return self._by_path.get(path)


def get(face: Face, body: bytes) -> pb.GetRequest:
    """What Get asks."""
    asked = typed_pb2.TypedGetRequest.FromString(body)
    request = pb.GetRequest(ref=_ref(face, asked.namespace, asked.name))
    _at(asked, request.at)
    if asked.mask.paths:
        request.mask.CopyFrom(asked.mask)
    return request


def page(face: Face, body: bytes) -> pb.ListRequest:
    """What List asks."""
    asked = typed_pb2.TypedListRequest.FromString(body)
    request = pb.ListRequest(
        selection=pb.Selection(
            kind=face.kind,
            namespace=asked.namespace,
            names=asked.names,
            labels=asked.labels,
            fields=asked.fields,
        ),
        page_size=asked.page_size,
        page_token=asked.page_token,
    )
    _at(asked, request.at)
    if asked.mask.paths:
        request.mask.CopyFrom(asked.mask)
    return request


def watch(face: Face, body: bytes) -> pb.WatchRequest:
    """What Watch asks."""
    asked = typed_pb2.TypedWatchRequest.FromString(body)
    request = pb.WatchRequest(progress_ms=asked.progress_ms)
    request.selections.add(
        kind=face.kind,
        namespace=asked.namespace,
        names=asked.names,
        labels=asked.labels,
        fields=asked.fields,
        from_revision=asked.from_revision,
    )
    if asked.mask.paths:
        request.mask.CopyFrom(asked.mask)
    return request


def write(face: Face, body: bytes, request_id: str, because: int) -> pb.CommitRequest:
    """What Create, Update, UpdateStatus and Apply ask; the last two as the call's metadata says."""
    asked = typed_pb2.TypedWriteRequest.FromString(body)
    name = face.method.name
    if asked.force and name != "Apply":
        raise _invalid("force", "is for Apply")
    if asked.subresource and name not in ("Update", "Apply"):
        raise _invalid("subresource", "is for Update and Apply")
    operation = pb.Operation(
        ref=_ref(face, asked.namespace, asked.name),
        subresource="status" if name == "UpdateStatus" else asked.subresource,
    )
    if name == "Create":
        operation.create = asked.object
    elif name == "Apply":
        operation.apply.object, operation.apply.force = asked.object, asked.force
    else:
        operation.update = asked.object
    transaction = pb.Transaction(
        request_id=asked.request_id or request_id,
        because=asked.because or because,
        manager=asked.manager,
        operations=[operation],
    )
    return pb.CommitRequest(transactions=[transaction], dry_run=asked.dry_run, want=pb.WANT_OBJECTS)


def delete(face: Face, body: bytes, request_id: str, because: int) -> pb.CommitRequest:
    """What Delete asks."""
    asked = typed_pb2.TypedDeleteRequest.FromString(body)
    deletion = pb.Delete(
        propagation=asked.propagation,
        uid=asked.uid,
        revision=asked.revision,
    )
    if asked.HasField("grace_seconds"):
        deletion.grace_seconds = asked.grace_seconds
    transaction = pb.Transaction(
        request_id=asked.request_id or request_id,
        because=asked.because or because,
        operations=[pb.Operation(ref=_ref(face, asked.namespace, asked.name), delete=deletion)],
    )
    return pb.CommitRequest(transactions=[transaction], dry_run=asked.dry_run, want=pb.WANT_OBJECTS)


def _ref(face: Face, namespace: str, name: str) -> pb.Ref:
    return pb.Ref(kind=face.kind, namespace=namespace, name=name)


def _at(asked: typed_pb2.TypedGetRequest | typed_pb2.TypedListRequest, at: pb.At) -> None:
    if asked.revision and asked.HasField("time"):
        raise _invalid("revision", "is another way to say `time`: give one of them")
    if asked.revision:
        at.revision = asked.revision
    elif asked.HasField("time"):
        at.time.CopyFrom(asked.time)


def _invalid(path: str, said: str) -> ApiError:
    return ApiError(Reason.INVALID, f"{path}: {said}", [Violation(path, said)])
