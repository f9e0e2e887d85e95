"""What a pod refers to: the Secrets and ConfigMaps that its kubelet has to read.

`referred(pod, SECRET)` are names in the pod's namespace. Every field of the pod's spec is looked
at whose message refers to one, wherever it stands, so no container, volume or new field is left
out. Pure.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from google.protobuf.message import Message
from kcore_api.kcore.core.v1 import container_pb2, pod_pb2, volume_pb2

from kcore.apiserver.authorize import CONFIG_MAP, SECRET

# By message: the kind that it refers to, and by which name.
MESSAGES: Final[Mapping[str, tuple[str, Callable[[Any], str]]]] = {
    container_pb2.SecretKeySelector.DESCRIPTOR.full_name: (
        SECRET,
        lambda one: one.local_object_reference.name,
    ),
    container_pb2.SecretEnvSource.DESCRIPTOR.full_name: (
        SECRET,
        lambda one: one.local_object_reference.name,
    ),
    volume_pb2.SecretProjection.DESCRIPTOR.full_name: (
        SECRET,
        lambda one: one.local_object_reference.name,
    ),
    volume_pb2.SecretVolumeSource.DESCRIPTOR.full_name: (SECRET, lambda one: one.secret_name),
    container_pb2.ConfigMapKeySelector.DESCRIPTOR.full_name: (
        CONFIG_MAP,
        lambda one: one.local_object_reference.name,
    ),
    container_pb2.ConfigMapEnvSource.DESCRIPTOR.full_name: (
        CONFIG_MAP,
        lambda one: one.local_object_reference.name,
    ),
    volume_pb2.ConfigMapProjection.DESCRIPTOR.full_name: (
        CONFIG_MAP,
        lambda one: one.local_object_reference.name,
    ),
    volume_pb2.ConfigMapVolumeSource.DESCRIPTOR.full_name: (
        CONFIG_MAP,
        lambda one: one.local_object_reference.name,
    ),
}
_OVER: Final = ("Succeeded", "Failed")


@functools.lru_cache(maxsize=8192)
def referred(body: bytes) -> frozenset[tuple[str, str]]:
    """The kinds and names that a pod refers to; one that is over refers to nothing."""
    pod = pod_pb2.Pod.FromString(body)
    if pod.status.phase in _OVER:
        return frozenset()
    found = set(_within(pod.spec))
    found |= {(SECRET, one.name) for one in pod.spec.image_pull_secrets}
    return frozenset(found)


def _within(message: Message) -> Iterator[tuple[str, str]]:
    known = MESSAGES.get(message.DESCRIPTOR.full_name)
    if known is not None:
        kind, name = known
        yield kind, name(message)
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for one in value if field.is_repeated else (value,):
            yield from _within(one)
