"""Who belongs to whom: owner references, and references of people's events.

What a reference calls `kind` and `apiVersion` is read off the message's descriptor: the message's
name, and the file's group with the version that its package ends in.
"""

import functools

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from kcore_api.kcore.core.v1 import reference_pb2
from kcore_api.kcore.meta.v1 import meta_pb2, options_pb2


@functools.cache
def api_version(descriptor: Descriptor) -> str:
    """Kubernetes' apiVersion of a kind: "v1", "apps/v1"."""
    group: str = descriptor.file.GetOptions().Extensions[options_pb2.group]  # type: ignore[index]
    version = descriptor.file.package.rpartition(".")[2]
    return f"{group}/{version}" if group else version


def metadata(obj: Message) -> meta_pb2.ObjectMeta:
    """The metadata of an object of any kind."""
    found: meta_pb2.ObjectMeta = obj.metadata  # type: ignore[attr-defined]
    return found


def reference(owner: Message) -> meta_pb2.OwnerReference:
    """How a child names the object that manages it."""
    meta = metadata(owner)
    return meta_pb2.OwnerReference(
        api_version=api_version(owner.DESCRIPTOR),
        kind=owner.DESCRIPTOR.name,
        name=meta.name,
        uid=meta.uid,
        controller=True,
        block_owner_deletion=True,
    )


def about(obj: Message) -> reference_pb2.ObjectReference:
    """How an event names the object that it is about."""
    meta = metadata(obj)
    return reference_pb2.ObjectReference(
        api_version=api_version(obj.DESCRIPTOR),
        kind=obj.DESCRIPTOR.name,
        namespace=meta.namespace or None,
        name=meta.name,
        uid=meta.uid,
        resource_version=meta.resource_version,
    )


def manager(meta: meta_pb2.ObjectMeta) -> meta_pb2.OwnerReference | None:
    """The one owner that manages an object, if there is one."""
    for found in meta.owner_references:
        if found.controller:
            return found
    return None


def managed_by(meta: meta_pb2.ObjectMeta, uid: str) -> bool:
    """Whether the object with this uid manages it."""
    found = manager(meta)
    return found is not None and found.uid == uid
