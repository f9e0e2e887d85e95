"""A static pod: what the kubelet makes of a pod that a file says and no API has seen.

`make(pod, node, place)` gives the pod as it will run, or all that is wrong with it. Its name gets
the node's name, its uid is derived from the node, the place and what was written there: another
text is another pod. Since no API fills in defaults or checks rules, both are done here as far as
they matter before containers run: whatever becomes a name or a path, and what the options of the
protos say of single fields. What would need the API (accounts, ConfigMaps, Secrets, claims) is
refused. Pure.
"""

import hashlib
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

from google.protobuf.message import Message
from kcore_api.kcore.core.v1 import container_pb2, pod_pb2

from kcore.client import options
from kcore.client.problem import Path, Problem
from kcore.kubelet import container as container_configs
from kcore.wire import quantity

Pod = pod_pb2.Pod

OURS: Final = "kubernetes.io/config."
SOURCE: Final = OURS + "source"
HASH: Final = OURS + "hash"
MIRROR: Final = OURS + "mirror"
DEFAULT_NAMESPACE: Final = "default"
_MOST_NAME: Final = 253

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(?:\.{_LABEL.pattern})*")
_LATEST = re.compile(r"(?:^|/)[^/:]+(?::latest)?$")


def make(wrote: pod_pb2.Pod, node: str, place: str) -> tuple[pod_pb2.Pod, list[Problem]]:
    """The pod as it will run on the node, and what is wrong with it; `place` is its file's name."""
    pod = Pod()
    pod.CopyFrom(wrote)
    pod.ClearField("status")
    problems = [*_metadata(pod, node), *_needs_api(pod, node), *_names(pod), *_fields(pod, ())]
    uid = _uid(pod, node, place)
    meta = pod.metadata
    meta.name = f"{meta.name}-{node}"
    meta.namespace = meta.namespace or DEFAULT_NAMESPACE
    meta.uid = uid
    meta.annotations[SOURCE] = "file"
    meta.annotations[HASH] = uid
    pod.spec.node_name = node
    _default(pod)
    return pod, problems


def _uid(pod: pod_pb2.Pod, node: str, place: str) -> str:
    digest = hashlib.sha256()
    for part in (node.encode(), place.encode(), pod.SerializeToString(deterministic=True)):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return str(uuid.UUID(bytes=digest.digest()[:16], version=5))


# -- what is refused -------------------------------------------------------------------------------


def _metadata(pod: pod_pb2.Pod, node: str) -> Iterator[Problem]:
    meta = pod.metadata
    if not meta.name:
        yield Problem(("metadata", "name"), "is required")
    elif said := _subdomain(meta.name):
        yield Problem(("metadata", "name"), said)
    elif len(meta.name) + 1 + len(node) > _MOST_NAME:
        yield Problem(("metadata", "name"), f"is too long: with -{node} more than {_MOST_NAME}")
    if meta.namespace and (said := _label(meta.namespace)):
        yield Problem(("metadata", "namespace"), said)
    for field, name in (("uid", "uid"), ("generate_name", "generateName")):
        if getattr(meta, field):
            yield Problem(("metadata", name), "is the kubelet's to say: leave it out")
    for key in sorted(meta.annotations):
        if key.startswith(OURS):
            yield Problem(("metadata", "annotations", key), "is the kubelet's to say: leave it out")


def _needs_api(pod: pod_pb2.Pod, node: str) -> Iterator[Problem]:
    spec = pod.spec
    if spec.node_name and spec.node_name != node:
        yield Problem(("spec", "nodeName"), f'this is node "{node}"')
    for field, name in (
        ("service_account_name", "serviceAccountName"),
        ("service_account", "serviceAccount"),
        ("image_pull_secrets", "imagePullSecrets"),
        ("ephemeral_containers", "ephemeralContainers"),
    ):
        if getattr(spec, field):
            yield _refused("spec", name)
    for index, volume in enumerate(spec.volumes):
        at: Path = ("spec", "volumes", index)
        source = volume.volume_source
        for field, name in (
            ("config_map", "configMap"),
            ("secret", "secret"),
            ("persistent_volume_claim", "persistentVolumeClaim"),
            ("ephemeral", "ephemeral"),
        ):
            if source.HasField(field):
                yield _refused(*at, name)
        for number, part in enumerate(source.projected.sources):
            for held, _ in part.ListFields():
                if held.name != "downward_api":
                    yield _refused(*at, "projected", "sources", number, held.json_name)
    for at, container in _containers(pod):
        for index, whole in enumerate(container.env_from):
            for held, _ in whole.ListFields():
                if held.message_type is not None:
                    yield _refused(*at, "envFrom", index, held.json_name)
        for index, variable in enumerate(container.env):
            for held, _ in variable.value_from.ListFields():
                if held.name in ("config_map_key_ref", "secret_key_ref"):
                    yield _refused(*at, "env", index, "valueFrom", held.json_name)


def _refused(*path: str | int) -> Problem:
    return Problem(path, "a static pod may not refer to objects of the API")


def _names(pod: pod_pb2.Pod) -> Iterator[Problem]:
    volumes: set[str] = set()
    for index, volume in enumerate(pod.spec.volumes):
        if volume.name in volumes:
            yield Problem(("spec", "volumes", index, "name"), f'"{volume.name}" is there twice')
        volumes.add(volume.name)
    taken: set[str] = set()
    for at, container in _containers(pod):
        if container.name in taken:
            yield Problem((*at, "name"), f'"{container.name}" is there twice')
        taken.add(container.name)
        for index, mount in enumerate(container.volume_mounts):
            if mount.name not in volumes:
                said = f'there is no volume "{mount.name}"'
                yield Problem((*at, "volumeMounts", index, "name"), said)
            if mount.mount_path and (said := _absolute(mount.mount_path)):
                yield Problem((*at, "volumeMounts", index, "mountPath"), said)
    for index, volume in enumerate(pod.spec.volumes):
        for number, part in enumerate(volume.volume_source.projected.sources):
            for position, item in enumerate(part.downward_api.items):
                if said := _relative(item.path):
                    path = ("spec", "volumes", index, "projected", "sources", number)
                    yield Problem((*path, "downwardAPI", "items", position, "path"), said)


def _containers(pod: pod_pb2.Pod) -> Iterator[tuple[Path, container_pb2.Container]]:
    for index, container in enumerate(pod.spec.init_containers):
        yield ("spec", "initContainers", index), container
    for index, container in enumerate(pod.spec.containers):
        yield ("spec", "containers", index), container


def _fields(message: Message, path: Path) -> Iterator[Problem]:
    """What the options of single fields say, of this message and all within."""
    fields: Any = message.DESCRIPTOR.fields
    for field in fields:
        said = options.field(field)
        at = path if said is not None and said.inline else (*path, field.json_name)
        value: Any = getattr(message, field.name)
        entry = field.message_type
        is_map = entry is not None and entry.GetOptions().map_entry
        there = len(value) > 0 if field.is_repeated else message.HasField(field.name)
        if there and field.type == field.TYPE_STRING and not field.is_repeated:
            there = value != ""
        if not there:
            if said is not None and said.required:
                yield Problem(at, "is required")
            continue
        if is_map:
            for key in sorted(value):
                if isinstance(value[key], Message):
                    yield from _value(value[key], said, (*at, str(key)))
        elif field.is_repeated:
            if said is not None and said.HasField("max") and len(value) > said.max:
                yield Problem(at, f"must have at most {said.max} elements")
            for index, one in enumerate(value):
                yield from _value(one, said, (*at, index))
        else:
            yield from _value(value, said, at)


def _value(value: Any, said: Any, at: Path) -> Iterator[Problem]:
    if isinstance(value, Message):
        if value.DESCRIPTOR.name == "Quantity":
            try:
                quantity.parse(value.string)  # type: ignore[attr-defined]
            except ValueError:
                yield Problem(at, f'"{value.string}" is not a quantity')  # type: ignore[attr-defined]
            return
        yield from _fields(value, at)
        return
    if said is None:
        return
    if isinstance(value, str):
        check = _FORMATS.get(said.format)
        if said.enum and value not in said.enum:
            known = ", ".join(f'"{one}"' for one in said.enum if one)
            yield Problem(at, f'"{value}" must be one of {known}')
        elif check is not None and (wrong := check(value)):
            yield Problem(at, wrong)
    elif isinstance(value, int) and not isinstance(value, bool):
        if said.HasField("min") and value < said.min:
            yield Problem(at, f"must be at least {said.min}")
        if said.HasField("max") and value > said.max:
            yield Problem(at, f"must be at most {said.max}")


def _label(text: str) -> str:
    if len(text) <= 63 and _LABEL.fullmatch(text):
        return ""
    return f'"{text}" must be at most 63 lower-case letters, digits and "-"'


def _subdomain(text: str) -> str:
    if len(text) <= _MOST_NAME and _SUBDOMAIN.fullmatch(text):
        return ""
    return f'"{text}" must be at most {_MOST_NAME} lower-case letters, digits, "-" and "."'


def _absolute(text: str) -> str:
    if text.startswith("/") and ".." not in text.split("/") and "\0" not in text:
        return ""
    return f'"{text}" must begin with "/" and have no ".."'


def _relative(text: str) -> str:
    if text and not text.startswith("/") and ".." not in text.split("/") and "\0" not in text:
        return ""
    return f'"{text}" must not begin with "/" nor have ".."'


def _image(text: str) -> str:
    return "" if text.isprintable() and " " not in text else "must not have blanks"


# The formats that lead to files, or to names that do.
_FORMATS: Final[dict[str, Callable[[str], str]]] = {
    "dns-label": _label,
    "dns-subdomain": _subdomain,
    "absolute-path": _absolute,
    "relative-path": _relative,
    "image": _image,
}


# -- what is filled in -----------------------------------------------------------------------------


def _default(pod: pod_pb2.Pod) -> None:
    """What the API would have filled in, as far as the kubelet goes by it."""
    spec = pod.spec
    spec.restart_policy = spec.restart_policy or "Always"
    spec.dns_policy = spec.dns_policy or "ClusterFirst"
    spec.scheduler_name = spec.scheduler_name or "default-scheduler"
    spec.security_context.SetInParent()
    if not spec.HasField("termination_grace_period_seconds"):
        spec.termination_grace_period_seconds = 30
    if not spec.HasField("enable_service_links"):
        spec.enable_service_links = True
    # Whatever befalls the node, these are not for anybody to evict.
    if not any(one.operator == "Exists" and not one.key for one in spec.tolerations):
        spec.tolerations.add(operator="Exists", effect="NoExecute")
    for volume in spec.volumes:
        if not volume.volume_source.ListFields():
            volume.volume_source.empty_dir.SetInParent()
    for _, container in _containers(pod):
        if not container.image_pull_policy:
            newest = "@" not in container.image and _LATEST.search(container.image)
            container.image_pull_policy = "Always" if newest else "IfNotPresent"
        if not container.termination_message_path:
            container.termination_message_path = "/dev/termination-log"
        if not container.termination_message_policy:
            container.termination_message_policy = "File"
        for port in container.ports:
            port.protocol = port.protocol or "TCP"
            if spec.host_network and not port.host_port:
                port.host_port = port.container_port
        resources = container.resources
        for name in sorted(resources.limits):
            if name not in resources.requests:
                resources.requests[name].CopyFrom(resources.limits[name])
    pod.status.phase = "Pending"
    pod.status.qos_class = container_configs.qos(pod)
    pod.status.conditions.add(type="PodScheduled", status="True")
