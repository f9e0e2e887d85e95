"""Pods and nodes for tests: written by hand, or drawn from a seed."""

import random

from kcore_api.kcore.core.v1 import node_pb2, pod_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

_CPUS = ["100m", "250m", "0.5", "1", "2", "1500m"]
_MEMORIES = ["64Mi", "128Mi", "0.5Gi", "1G", "2Gi", "1e9"]


def node(name: str, cpu: str = "4", memory: str = "8Gi", pods: str = "110") -> node_pb2.Node:
    found = node_pb2.Node(metadata=meta_pb2.ObjectMeta(name=name, uid=f"uid-{name}"))
    for resource, text in (("cpu", cpu), ("memory", memory), ("pods", pods)):
        found.status.allocatable[resource].string = text
    return found


def pod(name: str, cpu: str = "", memory: str = "", namespace: str = "default") -> pod_pb2.Pod:
    meta = meta_pb2.ObjectMeta(name=name, namespace=namespace, uid=f"uid-{name}")
    found = pod_pb2.Pod(metadata=meta)
    requests = found.spec.containers.add(name="a", image="x:1").resources.requests
    if cpu:
        requests["cpu"].string = cpu
    if memory:
        requests["memory"].string = memory
    return found


def any_node(draw: random.Random, name: str) -> node_pb2.Node:
    found = node(
        name,
        draw.choice(["1", "2", "4", "3500m", "0"]),
        draw.choice(["1Gi", "2Gi", "4Gi", "6000M"]),
        draw.choice(["2", "3", "110", "110", "110"]),
    )
    labels = found.metadata.labels
    labels["kubernetes.io/hostname"] = name
    if draw.random() < 0.6:
        labels["zone"] = draw.choice("abc")
    if draw.random() < 0.5:
        labels["size"] = draw.choice(["1", "5", "9", "big"])
    found.spec.unschedulable = draw.random() < 0.1
    for _ in range(draw.choice([0, 0, 0, 1, 2])):
        taint = found.spec.taints.add(key=draw.choice(["k", "dedicated"]), value=draw.choice("uv"))
        taint.effect = draw.choice(["NoSchedule", "PreferNoSchedule", "NoExecute"])
    if draw.random() < 0.3:
        found.status.allocatable["example.com/gpu"].string = draw.choice(["1", "2"])
    if draw.random() < 0.5:
        found.status.allocatable["ephemeral-storage"].string = draw.choice(["1Gi", "10Gi"])
    return found


def any_template(draw: random.Random) -> pod_pb2.Pod:
    found = pod_pb2.Pod()
    spec = found.spec
    for _ in range(draw.choice([1, 1, 2])):
        _any_container(draw, spec.containers.add(name="c"))
    for _ in range(draw.choice([0, 0, 0, 1, 2])):
        container = spec.init_containers.add(name="i")
        _any_container(draw, container)
        if draw.random() < 0.4:
            container.restart_policy = "Always"
    if draw.random() < 0.2:
        spec.node_selector["zone"] = draw.choice("abcd")
    if draw.random() < 0.3:
        _any_affinity(draw, spec)
    for _ in range(draw.choice([0, 0, 1, 2])):
        toleration = spec.tolerations.add(effect=draw.choice(["", "NoSchedule", "NoExecute"]))
        if draw.random() < 0.3:
            toleration.operator = "Exists"
            toleration.key = draw.choice(["", "k", "dedicated", "node.kubernetes.io/unschedulable"])
        else:
            toleration.operator = draw.choice(["Equal", ""])
            toleration.key, toleration.value = draw.choice(["k", "dedicated"]), draw.choice("uv")
    if draw.random() < 0.1:
        spec.overhead["cpu"].string = "50m"
    return found


def _any_container(draw: random.Random, container) -> None:  # type: ignore[no-untyped-def]
    requests = container.resources.requests
    if draw.random() < 0.6:
        requests["cpu"].string = draw.choice(_CPUS)
    if draw.random() < 0.6:
        requests["memory"].string = draw.choice(_MEMORIES)
    if draw.random() < 0.1:
        requests["example.com/gpu"].string = "1"
    if draw.random() < 0.1:
        requests["ephemeral-storage"].string = draw.choice(["0", "500Mi", "2Gi"])
    if draw.random() < 0.15:
        port = container.ports.add(container_port=80, host_port=draw.choice([80, 81]))
        port.protocol = draw.choice(["TCP", "UDP", ""])
        port.host_ip = draw.choice(["", "0.0.0.0", "10.0.0.1", "10.0.0.2"])


def _any_affinity(draw: random.Random, spec) -> None:  # type: ignore[no-untyped-def]
    affinity = spec.affinity.node_affinity
    required = affinity.required_during_scheduling_ignored_during_execution
    required.SetInParent()
    for _ in range(draw.choice([1, 1, 2])):
        term = required.node_selector_terms.add()
        for _ in range(draw.choice([0, 1, 1, 2])):
            operator = draw.choice(["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"])
            key = "size" if operator in ("Gt", "Lt") else draw.choice(["zone", "size", "none"])
            values = {"Gt": ["4"], "Lt": ["6"], "In": ["a", "5"], "NotIn": ["a", "5"]}
            term.match_expressions.add(key=key, operator=operator, values=values.get(operator, []))
        if draw.random() < 0.2:
            term.match_fields.add(
                key="metadata.name", operator=draw.choice(["In", "NotIn"]), values=["n1"]
            )
