"""The typed service of a kind, made from the kind.

`service_file(descriptor)` is the whole of it: a descriptor of `PodService` and of its messages
from the descriptor of `Pod`, with comments, for `make gen` (which prints it with `text`) and for
the apiserver (which puts it into a pool, for reflection, also of kinds uploaded at run time).
Nobody needs the classes to serve it: `METHODS` tells what a method is asked and of what it is a
face, and all answers have the bytes of the five verbs' own messages.

Pure; knows descriptors, and the names in kcore/api/v1/typed.proto and api.proto.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    MethodOptions,
)

_API = "kcore/api/v1/api.proto"
_TYPED = "kcore/api/v1/typed.proto"
_META = "kcore/meta/v1/meta.proto"


@dataclass(frozen=True, slots=True)
class Method:
    """One method of every typed service."""

    name: str
    # What it is asked, by its name in kcore.api.v1: parse the request's bytes as this.
    request: str
    # What it answers: the object, a list, or a stream of events.
    answer: str
    comment: str
    # Whether it changes nothing.
    reads: bool = False


METHODS = {
    method.name: method
    for method in (
        Method("Get", "TypedGetRequest", "object", "One object, now or in the past.", True),
        Method("List", "TypedListRequest", "list", "A page of objects, at one revision.", True),
        Method(
            "Watch",
            "TypedWatchRequest",
            "events",
            "Objects, then every change to them, in the order of revisions.",
        ),
        Method(
            "Create",
            "TypedWriteRequest",
            "object",
            "Makes one. ALREADY_EXISTS where the name is taken.",
        ),
        Method(
            "Update",
            "TypedWriteRequest",
            "object",
            "Replaces one. With metadata.resourceVersion set it must not have changed since.",
        ),
        Method("UpdateStatus", "TypedWriteRequest", "object", "Replaces the status of one."),
        Method(
            "Apply",
            "TypedWriteRequest",
            "object",
            "Makes the fields that are given be as given (server-side apply).",
        ),
        Method(
            "Delete",
            "TypedDeleteRequest",
            "object",
            "Deletes one. The answer is its last state, or its state while the deletion waits.",
        ),
    )
}


# What is added to a kind's name for the messages of its service.
MESSAGES = ("List", "Event", "Events", "Write")


def methods(kind: Descriptor) -> list[Method]:
    """The methods of the kind's service: UpdateStatus only where there is a status."""
    return [
        method
        for method in METHODS.values()
        if method.name != "UpdateStatus" or "status" in kind.fields_by_name
    ]


def service_name(kind: str) -> str:
    """Full name of a kind's service: "kcore.core.v1.Pod" has "kcore.core.v1.PodService"."""
    return f"{kind}Service"


def file_name(kind: Descriptor) -> str:
    """Where the kind's service is written: beside the kind."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind.name).lower()
    folder, slash, _ = kind.file.name.rpartition("/")
    return f"{folder}{slash}{snake}_service.proto"


def service_file(kind: Descriptor) -> FileDescriptorProto:
    """A file with the kind's typed service and its messages, with comments as source info."""
    file = FileDescriptorProto(name=file_name(kind), package=kind.file.package, syntax="proto3")
    file.dependency.extend(sorted({_API, _META, _TYPED, kind.file.name}))
    notes = _Notes(file)
    notes.at((12,), f"{kind.name}s, typed: a face of the five verbs, generated from the kind.")
    of_kind = f".{kind.full_name}"
    ours = f".{kind.file.package}." if kind.file.package else "."

    service = file.service.add(name=f"{kind.name}Service")
    notes.at((6, 0), f"Objects of kind {kind.name}: read, followed and changed.")
    for index, method in enumerate(methods(kind)):
        answer = {
            "object": of_kind,
            "list": f"{ours}{kind.name}List",
            "events": f"{ours}{kind.name}Events",
        }[method.answer]
        writes = method.request == "TypedWriteRequest"
        made = service.method.add(
            name=method.name,
            input_type=f"{ours}{kind.name}Write" if writes else f".kcore.api.v1.{method.request}",
            output_type=answer,
        )
        if method.answer == "events":
            made.server_streaming = True
        if method.reads:
            made.options.idempotency_level = MethodOptions.NO_SIDE_EFFECTS
        notes.at((6, 0, 2, index), method.comment)

    string, int32, int64, boolean = (
        FieldDescriptorProto.TYPE_STRING,
        FieldDescriptorProto.TYPE_INT32,
        FieldDescriptorProto.TYPE_INT64,
        FieldDescriptorProto.TYPE_BOOL,
    )
    _message(
        file,
        notes,
        f"{kind.name}List",
        "A page of objects.",
        _Field(
            "metadata",
            1,
            ".kcore.meta.v1.ListMeta",
            "The revision of the list, and the token for the next page.",
        ),
        _Field("items", 2, of_kind, "The objects, by namespace and name.", repeated=True),
    )
    _message(
        file,
        notes,
        f"{kind.name}Event",
        "One change.",
        _Field("type", 1, ".kcore.api.v1.Event.Type", "What happened.", enum=True),
        _Field("object", 2, of_kind, "The object; its last state, if it was deleted."),
        _Field("revision", 3, int64, "The revision of the change."),
        _Field("selection", 4, int32, "Always 0."),
        _Field("kind", 5, string, "Always empty: it is this one."),
    )
    _message(
        file,
        notes,
        f"{kind.name}Events",
        "Changes, complete up to a revision.",
        _Field("revision", 1, int64, "All events up to here have been sent."),
        _Field("events", 2, f"{ours}{kind.name}Event", "In the order of revisions.", repeated=True),
        _Field("synced", 3, boolean, "The present state is complete, changes follow. Sent once."),
    )
    _message(
        file,
        notes,
        f"{kind.name}Write",
        "Asks for a change.",
        _Field("namespace", 1, string, "The object's namespace; empty: as it says itself."),
        _Field("name", 2, string, "The object's name; empty: as it says itself."),
        _Field("object", 3, of_kind, "The object."),
        _Field("dry_run", 4, boolean, "Do everything but store it."),
        _Field("manager", 5, string, "Who owns the fields that it sets; empty: the caller's name."),
        _Field("force", 6, boolean, "In Apply: take fields that others own."),
        _Field(
            "request_id",
            7,
            string,
            "Chosen by the caller, unique: a repeated request is answered, not repeated.",
        ),
        _Field("because", 8, int64, "The revision that made the caller do it; 0: none."),
        _Field(
            "subresource",
            9,
            string,
            "In Update and Apply: the door to write through; empty: the object's own.",
        ),
    )
    return file


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    number: int
    # A scalar's number, or the full name of a message or enum, with a dot before it.
    type: "FieldDescriptorProto.Type.ValueType | str"
    comment: str
    repeated: bool = False
    enum: bool = False


class _Notes:
    """Comments of a file, by descriptor path."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file

    def at(self, path: Sequence[int], comment: str) -> None:
        """Puts a comment before what the path leads to."""
        self._file.source_code_info.location.add(
            path=path, span=[0, 0, 0], leading_comments=f" {comment}\n"
        )


def _message(
    file: FileDescriptorProto, notes: _Notes, name: str, comment: str, *fields: _Field
) -> None:
    index = len(file.message_type)
    message = file.message_type.add(name=name)
    notes.at((4, index), comment)
    for place, field in enumerate(fields):
        made = message.field.add(name=field.name, number=field.number, json_name=_json(field.name))
        made.label = (
            FieldDescriptorProto.LABEL_REPEATED
            if field.repeated
            else FieldDescriptorProto.LABEL_OPTIONAL
        )
        if isinstance(field.type, str):
            made.type_name = field.type
            made.type = (
                FieldDescriptorProto.TYPE_ENUM if field.enum else FieldDescriptorProto.TYPE_MESSAGE
            )
        else:
            made.type = field.type
        notes.at((4, index, 2, place), field.comment)


def _json(name: str) -> str:
    return re.sub(r"_(.)", lambda found: found[1].upper(), name)


def text(file: FileDescriptorProto) -> str:
    """What `service_file` makes, in protobuf's own language."""
    notes = {
        tuple(place.path): place.leading_comments.strip()
        for place in file.source_code_info.location
    }
    return "".join(f"{line}\n" if line else "\n" for line in _lines(file, notes))


def _lines(file: FileDescriptorProto, notes: dict[tuple[int, ...], str]) -> Iterator[str]:
    yield f"// {notes[(12,)]}"
    yield f'syntax = "{file.syntax}";'
    yield ""
    yield f"package {file.package};"
    yield ""
    yield from (f'import "{dependency}";' for dependency in file.dependency)
    for index, service in enumerate(file.service):
        yield ""
        yield f"// {notes[(6, index)]}"
        yield f"service {service.name} {{"
        for place, method in enumerate(service.method):
            yield f"  // {notes[(6, index, 2, place)]}"
            yield from _method(method, file.package)
        yield "}"
    for index, message in enumerate(file.message_type):
        yield ""
        yield f"// {notes[(4, index)]}"
        yield f"message {message.name} {{"
        yield from _fields(message, file.package, (4, index), notes)
        yield "}"


def _method(method: MethodDescriptorProto, package: str) -> Iterator[str]:
    stream = "stream " if method.server_streaming else ""
    head = (
        f"  rpc {method.name}({_short(method.input_type, package)}) "
        f"returns ({stream}{_short(method.output_type, package)})"
    )
    if method.options.idempotency_level:
        level = MethodOptions.IdempotencyLevel.Name(method.options.idempotency_level)
        yield f"{head} {{"
        yield f"    option idempotency_level = {level};"
        yield "  }"
    else:
        yield f"{head};"


def _fields(
    message: DescriptorProto,
    package: str,
    path: tuple[int, ...],
    notes: dict[tuple[int, ...], str],
) -> Iterator[str]:
    for place, field in enumerate(message.field):
        yield f"  // {notes[(*path, 2, place)]}"
        repeated = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
        kind = (
            _short(field.type_name, package)
            if field.type_name
            else FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
        )
        yield f"  {repeated}{kind} {field.name} = {field.number};"


def _short(full_name: str, package: str) -> str:
    return full_name.removeprefix(f".{package}.").removeprefix(".")
