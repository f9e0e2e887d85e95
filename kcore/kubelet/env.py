"""A container's environment, command and arguments, from its pod and the objects it names. Pure.

`$(NAME)` becomes an earlier variable's value; one that is not known stays as it is, `$$(NAME)` is
a literal `$(NAME)`. What is missing and not optional is a `Missing`, which recovers by itself when
the object appears.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kcore_api.kcore.core.v1 import container_pb2, pod_pb2

from kcore.kubelet import sync
from kcore.wire import quantity

# A name is all up to the bracket: what is no variable, a shell's command say, is left as it is.
_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class Missing(Exception):
    """Something that the pod names is not there: reason CreateContainerConfigError."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a pod may ask about itself, beyond its object; addresses once they are known."""

    pod_addresses: Sequence[str] = ()
    host_addresses: Sequence[str] = ()
    # The node's allocatable, as texts of quantities.
    allocatable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Named:
    """The ConfigMaps and Secrets that the pod names, by name; those that exist."""

    config_maps: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)


def variables(
    pod: pod_pb2.Pod,
    container: container_pb2.Container,
    named: Named,
    facts: Facts,
    links: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment: links to services first, then envFrom, then env; the later one wins."""
    found = dict(links or {})
    for source in container.env_from:
        for key, value in sorted(_all_of(source, named).items()):
            found[source.prefix + key] = value.decode("utf-8", "surrogateescape")
    for variable in container.env:
        if variable.HasField("value_from"):
            value_from = _value(pod, container, variable, named, facts)
            if value_from is not None:
                found[variable.name] = value_from
        else:
            found[variable.name] = expand(variable.value, found)
    return found


def expand(text: str, known: Mapping[str, str]) -> str:
    """The text with its `$(NAME)`s replaced."""

    def replaced(match: re.Match[str]) -> str:
        return "$" if match[1] is None else known.get(match[1], match[0])

    # `$$(X)`: the pair of dollars is taken first, so what follows stays.
    return _REFERENCE.sub(replaced, text)


def resolve(text: str, known: Mapping[str, str]) -> str:
    """The same, where every name must be known."""
    named = {one[1] for one in _REFERENCE.finditer(text) if one[1] is not None}
    unknown = sorted(named - known.keys())
    if unknown:
        raise Missing(f"{text}: there is no variable {', '.join(unknown)}")
    return expand(text, known)


def names(pod: pod_pb2.Pod) -> tuple[list[str], list[str]]:
    """ConfigMaps and Secrets that the pod's containers, volumes and images name."""
    maps: set[str] = set()
    secrets = {one.name for one in pod.spec.image_pull_secrets}
    for container in sync.every(pod):
        for source in container.env_from:
            if source.HasField("config_map_ref"):
                maps.add(source.config_map_ref.local_object_reference.name)
            if source.HasField("secret_ref"):
                secrets.add(source.secret_ref.local_object_reference.name)
        for variable in container.env:
            if variable.value_from.HasField("config_map_key_ref"):
                maps.add(variable.value_from.config_map_key_ref.local_object_reference.name)
            if variable.value_from.HasField("secret_key_ref"):
                secrets.add(variable.value_from.secret_key_ref.local_object_reference.name)
    for volume in pod.spec.volumes:
        one = volume.volume_source
        if one.HasField("config_map"):
            maps.add(one.config_map.local_object_reference.name)
        if one.HasField("secret"):
            secrets.add(one.secret.secret_name)
        for projection in one.projected.sources:
            if projection.HasField("config_map"):
                maps.add(projection.config_map.local_object_reference.name)
            if projection.HasField("secret"):
                secrets.add(projection.secret.local_object_reference.name)
    return sorted(maps), sorted(secrets)


def field_value(pod: pod_pb2.Pod, path: str, facts: Facts) -> str:
    """A field of the pod, as the downward API gives it."""
    if match := _SUBSCRIPT.fullmatch(path):
        return str(getattr(pod.metadata, match[1]).get(match[2], ""))
    hosts = facts.host_addresses or [one.ip for one in pod.status.host_ips]
    pods = facts.pod_addresses or [one.ip for one in pod.status.pod_ips]
    known = {
        "metadata.name": pod.metadata.name,
        "metadata.namespace": pod.metadata.namespace,
        "metadata.uid": pod.metadata.uid,
        "metadata.labels": _lines(pod.metadata.labels),
        "metadata.annotations": _lines(pod.metadata.annotations),
        "spec.nodeName": pod.spec.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name,
        "status.hostIP": hosts[0] if hosts else "",
        "status.hostIPs": ",".join(hosts),
        "status.podIP": pods[0] if pods else "",
        "status.podIPs": ",".join(pods),
    }
    if path not in known:
        raise Missing(f"fieldPath {path} is not one that the downward API knows")
    return known[path]


def resource_value(
    pod: pod_pb2.Pod,
    container: container_pb2.Container,
    selector: container_pb2.ResourceFieldSelector,
    facts: Facts,
) -> str:
    """A request or limit, in units of its divisor, rounded up."""
    if selector.container_name:
        every = sync.every(pod)
        container = next((one for one in every if one.name == selector.container_name), container)
    which, _, resource = selector.resource.partition(".")
    table = container.resources.limits if which == "limits" else container.resources.requests
    if resource in table:
        text = table[resource].string
    elif which == "limits" and resource in facts.allocatable:
        text = facts.allocatable[resource]
    else:
        text = "0"
    divisor = quantity.parse(selector.divisor.string or "1") or quantity.parse("1")
    return str(int((quantity.parse(text) / divisor).to_integral_value("ROUND_CEILING")))


def _lines(table: Mapping[str, str]) -> str:
    """One line each, whatever is in the values."""
    return "\n".join(
        f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in sorted(table.items())
    )


def _all_of(source: container_pb2.EnvFromSource, named: Named) -> Mapping[str, bytes]:
    if source.HasField("config_map_ref"):
        reference = source.config_map_ref
        name, table, what = reference.local_object_reference.name, named.config_maps, "configmap"
        optional = reference.optional
    else:
        secret = source.secret_ref
        name, table, what = secret.local_object_reference.name, named.secrets, "secret"
        optional = secret.optional
    if name in table:
        return table[name]
    if optional:
        return {}
    raise Missing(f'{what} "{name}" not found')


def _value(
    pod: pod_pb2.Pod,
    container: container_pb2.Container,
    variable: container_pb2.EnvVar,
    named: Named,
    facts: Facts,
) -> str | None:
    source = variable.value_from
    if source.HasField("field_ref"):
        return field_value(pod, source.field_ref.field_path, facts)
    if source.HasField("resource_field_ref"):
        return resource_value(pod, container, source.resource_field_ref, facts)
    if source.HasField("config_map_key_ref"):
        key = source.config_map_key_ref
        name, table, what = key.local_object_reference.name, named.config_maps, "configmap"
        wanted, optional = key.key, key.optional
    else:
        secret = source.secret_key_ref
        name, table, what = secret.local_object_reference.name, named.secrets, "secret"
        wanted, optional = secret.key, secret.optional
    if name in table and wanted in table[name]:
        return table[name][wanted].decode("utf-8", "surrogateescape")
    if optional:
        return None
    if name in table:
        raise Missing(f"couldn't find key {wanted} in {what} {pod.metadata.namespace}/{name}")
    raise Missing(f'{what} "{name}" not found')
