"""Endpoints: which pods a service's traffic goes to, as EndpointSlices.

For every service with a selector the pods that it selects and that have an address, each with what
holds of it: ready, serving, terminating. A port with a name is looked up in each pod, so pods that
differ in it get slices of their own. A slice holds at most a hundred endpoints; an endpoint stays
in the slice where it is, new ones fill up what has room, so that a change of one pod rewrites one
slice. Slices of services without selector are their writers'; slices under this controller's label
are this controller's, whoever made them, and go when there is no service for them.

Pure. It must not know how traffic gets to an endpoint.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import node_pb2, pod_pb2, reference_pb2, service_pb2
from kcore_api.kcore.discovery.v1 import endpoint_slice_pb2

from kcore.controllers import pod
from kcore.reconcile import name, owner, transaction
from kcore.reconcile.controller import NOTHING, Controller, Key, Result
from kcore.reconcile.view import View

Service = service_pb2.Service
Pod = pod_pb2.Pod
Node = node_pb2.Node
EndpointSlice = endpoint_slice_pb2.EndpointSlice
Endpoint = endpoint_slice_pb2.Endpoint
EndpointPort = endpoint_slice_pb2.EndpointPort

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
# A headless service's slices say so, for who reads slices only.
HEADLESS = "service.kubernetes.io/headless"
ZONE = "topology.kubernetes.io/zone"
MOST_ENDPOINTS = 100

# Ports of a pod, as bytes: pods with the same ones share slices.
Ports = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Packed:
    """What becomes of the slices of one set of ports."""

    changed: tuple[tuple[EndpointSlice, list[Endpoint]], ...]
    surplus: tuple[EndpointSlice, ...]
    fresh: tuple[list[Endpoint], ...]


def reconcile(view: View, key: Key, now: float) -> Result:
    """What is to be done for one Service."""
    namespace, service_name = key
    live = view.get(Service, namespace, service_name)
    slices = [
        each
        for each in view.list(EndpointSlice, index=("service", f"{namespace}/{service_name}"))
        if not each.metadata.HasField("deletion_timestamp")
    ]
    if live is None or not live.spec.selector or live.spec.type == "ExternalName":
        return Result(tuple(transaction.delete(each) for each in slices))
    if live.metadata.HasField("deletion_timestamp"):
        return NOTHING
    wanted = _wanted(view, live)
    if not wanted:
        # A slice without endpoints says that somebody has looked.
        wanted = {_ports(live, None): []}
    by_ports: dict[Ports, list[EndpointSlice]] = {}
    wrong: list[EndpointSlice] = []
    for each in slices:
        ports = tuple(port.SerializeToString(deterministic=True) for port in each.ports)
        fits = each.address_type == "IPv4" and ports in wanted
        (by_ports.setdefault(ports, []) if fits else wrong).append(each)
    transactions: list[pb.Transaction] = []
    ordinal = 0
    labels = _labels(live)
    for ports, endpoints in sorted(wanted.items()):
        packed = pack(by_ports.get(ports, []), endpoints)
        wrong += packed.surplus
        rewritten = {id(each) for each, _ in packed.changed}
        for old, now_in in packed.changed:
            transactions.append(_rewrite(live, old, now_in, labels))
        for old in by_ports.get(ports, []):
            kept = id(old) not in rewritten and all(old is not each for each in packed.surplus)
            if kept and not _is_labelled(old, live, labels):
                transactions.append(_rewrite(live, old, old.endpoints, labels))
        for some in packed.fresh:
            fresh, ordinal = _fresh(view, live, ports, some, labels, ordinal)
            transactions.append(transaction.create(fresh, guards=_same(live)))
    # Last, so that an endpoint is never nowhere.
    transactions += [transaction.delete(each) for each in wrong]
    return Result(tuple(transactions))


def pack(slices: Sequence[EndpointSlice], endpoints: Sequence[Endpoint]) -> _Packed:
    """Puts endpoints into slices: each stays where it is, the new ones fill up what has room."""
    wanted = {_place(each): each for each in endpoints}
    left = dict(wanted)
    held: list[tuple[EndpointSlice, list[Endpoint]]] = []
    for each in slices:
        stays: list[Endpoint] = []
        for endpoint in each.endpoints:
            kept = left.pop(_place(endpoint), None)
            if kept is not None and len(stays) < MOST_ENDPOINTS:
                stays.append(kept)
            elif kept is not None:
                left[_place(endpoint)] = kept
        held.append((each, stays))
    new = [left[place] for place in sorted(left)]
    # Those that change anyway, then the fullest: few slices change, and half empty ones end.
    for _, stays in sorted(
        held,
        key=lambda one: (not one[1], one[1] == list(one[0].endpoints), -len(one[1]), _name(one[0])),
    ):
        room = MOST_ENDPOINTS - len(stays)
        stays += new[:room]
        new = new[room:]
    empty = [each for each, stays in held if not stays]
    # One may be empty, where all are.
    keep = empty[:1] if len(empty) == len(held) and not new else []
    surplus = tuple(each for each in empty if all(each is not one for one in keep))
    changed = tuple(
        (each, stays)
        for each, stays in held
        if all(each is not one for one in surplus) and stays != list(each.endpoints)
    )
    fresh = [new[at : at + MOST_ENDPOINTS] for at in range(0, len(new), MOST_ENDPOINTS)]
    if not held and not fresh:
        fresh = [[]]
    return _Packed(changed, surplus, tuple(fresh))


def _wanted(view: View, live: Service) -> dict[Ports, list[Endpoint]]:
    """The endpoints that there should be, by the ports they have."""
    found: dict[Ports, list[Endpoint]] = {}
    selector = dict(live.spec.selector)
    index = ("labelled", _term(live.metadata.namespace, *min(selector.items())))
    for each in view.list(Pod, index=index, labels=selector):
        if not each.status.pod_ip or each.status.phase in pod.OVER:
            continue
        endpoint = _endpoint(view, live, each)
        found.setdefault(_ports(live, each), []).append(endpoint)
    return found


def _endpoint(view: View, live: Service, of: Pod) -> Endpoint:
    serving = pod.ready_since(of) is not None
    terminating = of.metadata.HasField("deletion_timestamp")
    published = live.spec.publish_not_ready_addresses
    made = Endpoint(
        addresses=[of.status.pod_ip],
        conditions=endpoint_slice_pb2.EndpointConditions(
            ready=published or (serving and not terminating),
            serving=serving,
            terminating=terminating,
        ),
        target_ref=reference_pb2.ObjectReference(
            kind="Pod",
            namespace=of.metadata.namespace,
            name=of.metadata.name,
            uid=of.metadata.uid,
        ),
    )
    if of.spec.node_name:
        made.node_name = of.spec.node_name
        node = view.get(Node, "", of.spec.node_name)
        if node is not None and node.metadata.labels.get(ZONE):
            made.zone = node.metadata.labels[ZONE]
    if of.spec.hostname and of.spec.subdomain == live.metadata.name:
        made.hostname = of.spec.hostname
    return made


def _ports(live: Service, of: Pod | None) -> Ports:
    """The service's ports as a pod has them; a name that it does not have is left out."""
    found = []
    for port in live.spec.ports:
        number: int | None = port.target_port.int_val or port.port
        if port.target_port.type == 1:
            number = None if of is None else _named(of, port.target_port.str_val, port.protocol)
        if number is None:
            continue
        made = EndpointPort(name=port.name, protocol=port.protocol or "TCP", port=number)
        if port.app_protocol:
            made.app_protocol = port.app_protocol
        found.append(made.SerializeToString(deterministic=True))
    return tuple(found)


def _named(of: Pod, wanted: str, protocol: str) -> int | None:
    sidecars = [each for each in of.spec.init_containers if each.restart_policy == "Always"]
    for container in (*of.spec.containers, *sidecars):
        for port in container.ports:
            if port.name == wanted and (port.protocol or "TCP") == (protocol or "TCP"):
                return int(port.container_port)
    return None


def _name(each: EndpointSlice) -> str:
    return each.metadata.name


def _place(endpoint: Endpoint) -> tuple[str, str]:
    return (endpoint.addresses[0] if endpoint.addresses else "", endpoint.target_ref.uid)


def _labels(live: Service) -> dict[str, str]:
    """The service's own labels, and those by which slices are found."""
    found = dict(live.metadata.labels)
    found.pop(HEADLESS, None)
    if live.spec.cluster_ip == "None":
        found[HEADLESS] = ""
    return found | {SERVICE_NAME: live.metadata.name, MANAGED_BY: MANAGER}


def _is_labelled(each: EndpointSlice, live: Service, labels: Mapping[str, str]) -> bool:
    return dict(each.metadata.labels) == labels and owner.managed_by(
        each.metadata, live.metadata.uid
    )


def _rewrite(
    live: Service, old: EndpointSlice, endpoints: Iterable[Endpoint], labels: Mapping[str, str]
) -> pb.Transaction:
    fresh = EndpointSlice(endpoints=endpoints)
    mask = ["endpoints"]
    if not _is_labelled(old, live, labels):
        fresh.metadata.labels.update(labels)
        fresh.metadata.owner_references.append(owner.reference(live))
        mask += ["metadata.labels", "metadata.ownerReferences"]
    return transaction.patch(old, fresh, mask, unchanged=True)


def _fresh(
    view: View,
    live: Service,
    ports: Ports,
    endpoints: Iterable[Endpoint],
    labels: Mapping[str, str],
    ordinal: int,
) -> tuple[EndpointSlice, int]:
    """A new slice, with a name that nobody has."""
    meta = live.metadata
    while True:
        given = name.child(f"{meta.name}-", meta.uid, view.revision, ordinal)
        ordinal += 1
        if view.get(EndpointSlice, meta.namespace, given) is None:
            break
    fresh = EndpointSlice(
        address_type="IPv4",
        endpoints=endpoints,
        ports=[EndpointPort.FromString(each) for each in ports],
    )
    fresh.metadata.namespace, fresh.metadata.name = meta.namespace, given
    fresh.metadata.generate_name = f"{meta.name}-"
    fresh.metadata.labels.update(labels)
    fresh.metadata.owner_references.append(owner.reference(live))
    return fresh, ordinal


def _same(live: Service) -> list[pb.Guard]:
    return transaction.same(transaction.ref(live), live.metadata)


# Which services a change concerns.


def _itself(_view: View, old: Service | None, new: Service | None) -> Iterable[Key]:
    if (
        old is not None
        and new is not None
        and old.spec == new.spec
        and old.metadata.labels == new.metadata.labels
        and old.metadata.uid == new.metadata.uid
        and old.metadata.HasField("deletion_timestamp")
        == new.metadata.HasField("deletion_timestamp")
    ):
        return
    meta = (new or old).metadata  # type: ignore[union-attr]
    yield (meta.namespace, meta.name)


def _selecting(view: View, old: Pod | None, new: Pod | None) -> Iterable[Key]:
    """Keys: the services that select the pod, or did, if it matters to them."""
    if old is not None and new is not None and _essence(old) == _essence(new):
        return
    seen: set[Key] = set()
    for each in (old, new):
        if each is None:
            continue
        for term in each.metadata.labels.items():
            index = ("selects", _term(each.metadata.namespace, *term))
            for service in view.list(Service, index=index):
                key = (service.metadata.namespace, service.metadata.name)
                if key not in seen and _selects(service, each):
                    seen.add(key)
                    yield key


def _selects(service: Service, of: Pod) -> bool:
    return all(of.metadata.labels.get(k) == v for k, v in service.spec.selector.items())


def _essence(of: Pod) -> tuple[Any, ...]:
    """All that an endpoint says of its pod."""
    return (
        of.metadata.uid,
        dict(of.metadata.labels),
        of.metadata.HasField("deletion_timestamp"),
        of.status.pod_ip,
        of.status.phase in pod.OVER,
        pod.ready_since(of) is not None,
        of.spec.node_name,
    )


def _its_service(_view: View, old: Any, new: Any) -> Iterable[Key]:
    """Keys: the service of a slice that is managed here, or was."""
    seen: set[Key] = set()
    for each in (old, new):
        for found in () if each is None else _managed(each):
            namespace, _, service = found.partition("/")
            if (namespace, service) not in seen:
                seen.add((namespace, service))
                yield (namespace, service)


def _rezoned(view: View, old: Node | None, new: Node | None) -> Iterable[Key]:
    """Keys: the services with endpoints on a node whose zone has changed."""
    zones = [None if each is None else each.metadata.labels.get(ZONE) for each in (old, new)]
    if zones[0] == zones[1]:
        return
    node = (new or old).metadata.name  # type: ignore[union-attr]
    seen: set[Key] = set()
    for each in view.list(Pod, index=("node", node)):
        for key in _selecting(view, None, each):
            if key not in seen:
                seen.add(key)
                yield key


def _managed(each: EndpointSlice) -> Iterable[str]:
    """Index: slices under this controller's label, by their service."""
    labels = each.metadata.labels
    if labels.get(MANAGED_BY) == MANAGER and labels.get(SERVICE_NAME):
        yield f"{each.metadata.namespace}/{labels[SERVICE_NAME]}"


def _first_term(service: Service) -> Iterable[str]:
    """Index: services by the first term of their selector: a pod must have it."""
    if service.spec.selector:
        yield _term(service.metadata.namespace, *min(service.spec.selector.items()))


def _term(namespace: str, key: str, value: str) -> str:
    return f"{namespace}/{key}={value}"


def _terms(each: Pod) -> Iterable[str]:
    """Index: pods by each of their labels."""
    for label in each.metadata.labels.items():
        yield _term(each.metadata.namespace, *label)


CONTROLLER = Controller(
    name="endpointslice-controller",
    reads={
        Service: _itself,
        Pod: _selecting,
        EndpointSlice: _its_service,
        Node: _rezoned,
    },
    writes=(EndpointSlice.DESCRIPTOR.full_name,),
    reconcile=reconcile,
    indexes={
        Service: {"selects": _first_term},
        EndpointSlice: {"service": _managed},
        Pod: {"labelled": _terms, "node": pod.node},
    },
)
