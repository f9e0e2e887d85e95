"""The scheduler's rules once more: plain, slow, straight from the messages, one node at a time.

What the real one does with arrays and caches must come out the same. Nothing of it is used here but
the parser of quantities.
"""

from dataclasses import dataclass, field

from kcore_api.kcore.core.v1 import node_pb2, pod_pb2

from kcore.wire import quantity

Amounts = dict[str, int]


@dataclass
class Bin:
    """A node with its pods."""

    node: node_pb2.Node
    pods: list[pod_pb2.Pod] = field(default_factory=list)


def number(resource: str, text: str) -> int:
    return quantity.milli(text) if resource == "cpu" else quantity.value(text)


def asked(pod: pod_pb2.Pod, guess: bool = False) -> Amounts:
    def one(container) -> Amounts:  # type: ignore[no-untyped-def]
        found = {n: number(n, q.string) for n, q in container.resources.requests.items()}
        if guess:
            found.setdefault("cpu", 100)
            found.setdefault("memory", 200 * 2**20)
        return found

    def plus(*many: Amounts) -> Amounts:
        return {n: sum(m.get(n, 0) for m in many) for m in many for n in m}

    sidecars: list[Amounts] = []
    stages: list[Amounts] = []
    for container in pod.spec.init_containers:
        stages.append(plus(*sidecars, one(container)))
        if container.restart_policy == "Always":
            sidecars.append(one(container))
    stages.append(plus(*sidecars, *map(one, pod.spec.containers)))
    names = {n for stage in stages for n in stage}
    most = {n: max(stage.get(n, 0) for stage in stages) for n in names}
    return plus(most, {n: number(n, q.string) for n, q in pod.spec.overhead.items()})


def ports(pod: pod_pb2.Pod) -> list[tuple[str, int, str]]:
    containers = [c for c in pod.spec.init_containers if c.restart_policy == "Always"]
    containers += pod.spec.containers
    return [
        (p.protocol or "TCP", p.host_port, "" if p.host_ip == "0.0.0.0" else p.host_ip)
        for c in containers
        for p in c.ports
        if p.host_port
    ]


def tolerates(pod: pod_pb2.Pod, key: str, value: str, effect: str) -> bool:
    for t in pod.spec.tolerations:
        if t.effect and t.effect != effect:
            continue
        if t.key and t.key != key:
            continue
        if t.operator == "Exists" or (t.key and t.value == value):
            return True
    return False


def requirement_holds(requirement, labels) -> bool:  # type: ignore[no-untyped-def]
    has = requirement.key in labels
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return has and value in requirement.values
        case "NotIn":
            return not has or value not in requirement.values
        case "Exists":
            return has
        case "DoesNotExist":
            return not has
        case "Gt":
            return has and value.isdigit() and int(value) > int(requirement.values[0])
        case "Lt":
            return has and value.isdigit() and int(value) < int(requirement.values[0])
    return False


def selects(pod: pod_pb2.Pod, node: node_pb2.Node) -> bool:
    for key, value in pod.spec.node_selector.items():
        if key not in node.metadata.labels or node.metadata.labels[key] != value:
            return False
    affinity = pod.spec.affinity.node_affinity
    if not affinity.HasField("required_during_scheduling_ignored_during_execution"):
        return True
    for term in affinity.required_during_scheduling_ignored_during_execution.node_selector_terms:
        if not term.match_expressions and not term.match_fields:
            continue
        by_label = all(
            requirement_holds(r, dict(node.metadata.labels)) for r in term.match_expressions
        )
        by_field = all(
            requirement_holds(r, {"metadata.name": node.metadata.name}) for r in term.match_fields
        )
        if by_label and by_field:
            return True
    return False


def reasons(pod: pod_pb2.Pod, there: Bin) -> list[str]:
    """Why not; empty: it fits."""
    node = there.node
    if node.spec.unschedulable and not tolerates(
        pod, "node.kubernetes.io/unschedulable", "", "NoSchedule"
    ):
        return ["node(s) were unschedulable"]
    for taint in node.spec.taints:
        if taint.effect in ("NoSchedule", "NoExecute") and not tolerates(
            pod, taint.key, taint.value, taint.effect
        ):
            return [f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"]
    if not selects(pod, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    for other in there.pods:
        for mine in ports(pod):
            for theirs in ports(other):
                same = mine[:2] == theirs[:2]
                if same and (not mine[2] or not theirs[2] or mine[2] == theirs[2]):
                    return ["node(s) didn't have free ports for the requested pod ports"]
    found = []
    room = {n: number(n, q.string) for n, q in node.status.allocatable.items()}
    if len(there.pods) + 1 > room.get("pods", 0):
        found.append("Too many pods")
    for name, amount in sorted(asked(pod).items()):
        used = sum(asked(other).get(name, 0) for other in there.pods)
        if amount and amount > room.get(name, 0) - used:
            found.append(f"Insufficient {name}")
    return found


def score(pod: pod_pb2.Pod, there: Bin, feasible: list[Bin]) -> int:
    room = {n: number(n, q.string) for n, q in there.node.status.allocatable.items()}
    columns = [n for n in ("cpu", "memory") if room.get(n)]
    parts = []
    for name in columns:
        used = sum(asked(p, guess=True).get(name, 0) for p in [*there.pods, pod])
        parts.append(max(room[name] - used, 0) * 100 // room[name])
    total = sum(parts) // len(parts) if parts else 0
    if asked(pod).get("cpu") or asked(pod).get("memory"):
        shares = []
        for name in columns:
            used = sum(asked(p).get(name, 0) for p in [*there.pods, pod])
            shares.append(min(used / room[name], 1.0))
        apart = abs(shares[0] - shares[1]) / 2 if len(shares) == 2 else 0.0
        total += int((1.0 - apart) * 100)

    def ignored(bin_: Bin) -> int:
        return sum(
            t.effect == "PreferNoSchedule" and not tolerates(pod, t.key, t.value, t.effect)
            for t in bin_.node.spec.taints
        )

    most = max(map(ignored, feasible))
    return total + 3 * (100 - (100 * ignored(there) // most if most else 0))


def best(pod: pod_pb2.Pod, bins: list[Bin]) -> list[str]:
    """The names of the equally good nodes; empty: none fits."""
    feasible = [b for b in bins if not reasons(pod, b)]
    if not feasible:
        return []
    scores = [score(pod, b, feasible) for b in feasible]
    return sorted(
        b.node.metadata.name for b, s in zip(feasible, scores, strict=True) if s == max(scores)
    )
