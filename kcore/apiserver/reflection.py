"""Reflection, v1 and v1alpha: which services there are, and what their messages look like.

`Reflection(schema)` answers ServerReflectionRequests about one generation of kinds. Files are
served as the very bytes that were uploaded, so comments and our options come with them; the typed
services are made from the kinds; google.rpc's error details are there, so that clients can show
them. An answer brings the files that the asked one needs and that the stream has not had.
"""

from collections.abc import Iterable

from google.protobuf import descriptor_pb2, duration_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2 as wire

from kcore.kernel.schema import Schema
from kcore.wire import typed

V1 = "grpc.reflection.v1.ServerReflection"
V1_ALPHA = "grpc.reflection.v1alpha.ServerReflection"
HEALTH = "grpc.health.v1.Health"
OWN = (
    "kcore.api.v1.ApiService",
    "kcore.api.v1.AuthService",
    "kcore.api.v1.NodeService",
    "kcore.api.v1.PodStreamService",
)
_NOT_FOUND = 5
_UNIMPLEMENTED = 12

File = descriptor_pb2.FileDescriptorProto


class Reflection:
    """What there is in one generation of kinds."""

    def __init__(self, schema: Schema) -> None:
        """Indexes all files by what is in them."""
        self.digest = schema.digest
        self._files: dict[str, bytes] = {}
        self._needs: dict[str, tuple[str, ...]] = {}
        self._symbols: dict[str, str] = {}
        self._extensions: dict[str, dict[int, str]] = {}
        found = descriptor_pb2.FileDescriptorSet.FromString(schema.descriptors)
        for file in found.file:
            self._add(file, file.SerializeToString())
        for kind in sorted(schema.kinds):
            service = typed.service_file(schema.kinds[kind].message.DESCRIPTOR)
            self._add(service, service.SerializeToString())
        for library in (duration_pb2, error_details_pb2, health_pb2, wire):
            body = library.DESCRIPTOR.serialized_pb
            self._add(File.FromString(body), body)
        v1 = _as_v1(File.FromString(wire.DESCRIPTOR.serialized_pb))
        self._add(v1, v1.SerializeToString())
        services = {*OWN, HEALTH, V1, V1_ALPHA, *(typed.service_name(k) for k in schema.kinds)}
        self.services: tuple[str, ...] = tuple(sorted(services))

    def answer(self, body: bytes, had: set[str]) -> bytes:
        """To one request; `had`: names of files that the stream has had, kept up to date."""
        request = wire.ServerReflectionRequest.FromString(body)
        response = wire.ServerReflectionResponse(valid_host=request.host)
        response.original_request.CopyFrom(request)
        which = request.WhichOneof("message_request")
        if which == "list_services":
            for service in self.services:
                response.list_services_response.service.add(name=service)
        elif which == "file_by_filename":
            self._give(response, request.file_by_filename, request.file_by_filename, had)
        elif which == "file_containing_symbol":
            symbol = request.file_containing_symbol
            self._give(response, self._symbols.get(symbol), symbol, had)
        elif which == "file_containing_extension":
            asked = request.file_containing_extension
            numbers = self._extensions.get(asked.containing_type, {})
            what = f"extension {asked.extension_number} of {asked.containing_type}"
            self._give(response, numbers.get(asked.extension_number), what, had)
        elif which == "all_extension_numbers_of_type":
            kind = request.all_extension_numbers_of_type
            if kind in self._symbols:
                numbers = self._extensions.get(kind, {})
                response.all_extension_numbers_response.base_type_name = kind
                response.all_extension_numbers_response.extension_number.extend(sorted(numbers))
            else:
                _refuse(response, _NOT_FOUND, f"{kind} not found")
        else:
            _refuse(response, _UNIMPLEMENTED, "no such reflection request")
        answered: bytes = response.SerializeToString()
        return answered

    def _give(
        self,
        response: wire.ServerReflectionResponse,
        name: str | None,
        what: str,
        had: set[str],
    ) -> None:
        if name is None or name not in self._files:
            _refuse(response, _NOT_FOUND, f"{what} not found")
            return
        given = response.file_descriptor_response.file_descriptor_proto
        # The asked one always; what it needs only once in a stream.
        given.append(self._files[name])
        had.add(name)
        waiting = list(self._needs[name])
        while waiting:
            needed = waiting.pop()
            if needed in had or needed not in self._files:
                continue
            had.add(needed)
            given.append(self._files[needed])
            waiting.extend(self._needs[needed])

    def _add(self, file: File, body: bytes) -> None:
        if file.name in self._files:
            return
        self._files[file.name] = body
        self._needs[file.name] = tuple(file.dependency)
        prefix = f"{file.package}." if file.package else ""
        for message in file.message_type:
            self._add_message(prefix, message, file.name)
        for enum in file.enum_type:
            self._symbols[f"{prefix}{enum.name}"] = file.name
        for service in file.service:
            self._symbols[f"{prefix}{service.name}"] = file.name
            for method in service.method:
                self._symbols[f"{prefix}{service.name}.{method.name}"] = file.name
        self._add_extensions(prefix, file.extension, file.name)

    def _add_message(self, prefix: str, message: descriptor_pb2.DescriptorProto, file: str) -> None:
        name = f"{prefix}{message.name}"
        self._symbols[name] = file
        for field in message.field:
            self._symbols[f"{name}.{field.name}"] = file
        for nested in message.nested_type:
            self._add_message(f"{name}.", nested, file)
        for enum in message.enum_type:
            self._symbols[f"{name}.{enum.name}"] = file
        self._add_extensions(f"{name}.", message.extension, file)

    def _add_extensions(
        self,
        prefix: str,
        extensions: Iterable[descriptor_pb2.FieldDescriptorProto],
        file: str,
    ) -> None:
        for extension in extensions:
            self._symbols[f"{prefix}{extension.name}"] = file
            numbers = self._extensions.setdefault(extension.extendee.lstrip("."), {})
            numbers[extension.number] = file


def _as_v1(file: File) -> File:
    """The same messages under v1's name, as clients of v1 know them."""
    old, new = f".{file.package}.", ".grpc.reflection.v1."
    renamed = File()
    renamed.CopyFrom(file)
    renamed.name, renamed.package = "grpc/reflection/v1/reflection.proto", "grpc.reflection.v1"
    for message in renamed.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(old, new)
    for service in renamed.service:
        for method in service.method:
            method.input_type = method.input_type.replace(old, new)
            method.output_type = method.output_type.replace(old, new)
    return renamed


def _refuse(response: wire.ServerReflectionResponse, code: int, said: str) -> None:
    response.error_response.error_code = code
    response.error_response.error_message = said
