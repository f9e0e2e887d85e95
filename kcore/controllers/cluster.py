"""What every cluster has from the beginning, beside its namespaces: pools, and the API's service.

    first(Cluster(pods=…, apiserver="192.0.2.7", port=6443))      # transactions, to be repeated

Pods find the API as the Service `kubernetes`; its slice follows the apiserver's address, by its
last transaction. Pure.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import pool_pb2, service_pb2
from kcore_api.kcore.discovery.v1 import endpoint_slice_pb2

from kcore.controllers.endpoints import SERVICE_NAME
from kcore.reconcile import transaction

POD_POOL, SERVICE_POOL, NODE_PORT_POOL = "pod-cidrs", "service-ips", "node-ports"
NAMESPACE, NAME = "default", "kubernetes"
PORT = 443


@dataclass(frozen=True, slots=True)
class Cluster:
    """The numbers of a cluster. `apiserver` "": it has no address that pods could reach."""

    pods: str
    apiserver: str = ""
    port: int = 6443
    block_size: int = 24
    services: str = "10.96.0.0/12"
    node_ports: tuple[int, int] = (30000, 32767)

    @property
    def api_address(self) -> str:
        """Where pods find the API."""
        return str(ipaddress.ip_network(self.services)[1])

    @property
    def dns_address(self) -> str:
        """Where pods find names."""
        return str(ipaddress.ip_network(self.services)[10])


def first(cluster: Cluster) -> Sequence[pb.Transaction]:
    """Makes them. What is there already is refused, and that is as well."""
    pools = (
        _pool(POD_POOL, pool_pb2.PoolSpec(cidr=cluster.pods, block_size=cluster.block_size)),
        _pool(
            SERVICE_POOL,
            pool_pb2.PoolSpec(
                cidr=cluster.services, reserved=[cluster.api_address, cluster.dns_address]
            ),
        ),
        _pool(
            NODE_PORT_POOL,
            pool_pb2.PoolSpec(first=cluster.node_ports[0], last=cluster.node_ports[1]),
        ),
    )
    slice_ = _slice(cluster)
    return (
        *(transaction.create(each) for each in pools),
        transaction.create(_service(cluster)),
        transaction.create(slice_),
        transaction.replace(slice_),
    )


def _pool(name: str, spec: pool_pb2.PoolSpec) -> pool_pb2.Pool:
    made = pool_pb2.Pool(spec=spec)
    made.metadata.name = name
    return made


def _named(made: Message) -> None:
    meta = made.metadata  # type: ignore[attr-defined]
    meta.namespace, meta.name = NAMESPACE, NAME
    meta.labels.update({"component": "apiserver", "provider": "kubernetes"})


def _service(cluster: Cluster) -> service_pb2.Service:
    made = service_pb2.Service()
    _named(made)
    made.spec.cluster_ip = cluster.api_address
    port = made.spec.ports.add(name="https", port=PORT, protocol="TCP")
    port.target_port.type, port.target_port.int_val = 0, cluster.port
    return made


def _slice(cluster: Cluster) -> endpoint_slice_pb2.EndpointSlice:
    made = endpoint_slice_pb2.EndpointSlice(address_type="IPv4")
    _named(made)
    made.metadata.labels[SERVICE_NAME] = NAME
    made.ports.add(name="https", port=cluster.port, protocol="TCP")
    if cluster.apiserver:
        made.endpoints.add(addresses=[cluster.apiserver]).conditions.ready = True
    return made
