"""The options of kinds and fields (kcore/meta/v1/options.proto), read off descriptors.

Works for descriptors of any pool: Python gives options as messages of its default pool, where our
extensions are registered by this import.
"""

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from kcore_api.kcore.meta.v1 import options_pb2

_KIND: Any = options_pb2.kind
_FIELD: Any = options_pb2.field
_GROUP: Any = options_pb2.group
_RULES: Any = options_pb2.rules


def kind(descriptor: Descriptor) -> options_pb2.Kind | None:
    """What makes the message a kind; None of others."""
    options = descriptor.GetOptions()
    return options.Extensions[_KIND] if options.HasExtension(_KIND) else None


def rules(descriptor: Descriptor) -> list[options_pb2.Rule]:
    """What must hold between the fields of the message, as a kind and wherever it is embedded."""
    found = list(descriptor.GetOptions().Extensions[_RULES])
    said = kind(descriptor)
    return found + list(said.rules) if said is not None else found


def field(descriptor: FieldDescriptor) -> options_pb2.Field | None:
    """What is said of the field, if anything is."""
    options = descriptor.GetOptions()
    return options.Extensions[_FIELD] if options.HasExtension(_FIELD) else None


def group(file: FileDescriptor) -> str:
    """Kubernetes' API group of the file's kinds; "" is core."""
    return str(file.GetOptions().Extensions[_GROUP])
