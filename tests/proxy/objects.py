"""Services and slices in a few words."""

from typing import Any

from kcore_api.kcore.core.v1 import service_pb2
from kcore_api.kcore.discovery.v1 import endpoint_slice_pb2

Service = service_pb2.Service
EndpointSlice = endpoint_slice_pb2.EndpointSlice


def service(
    name: str = "web", address: str = "10.96.0.7", port: int = 80, node_port: int = 0, **spec: Any
) -> Service:
    """A service with one port "main"."""
    protocol = spec.pop("protocol", "TCP")
    made = Service(spec=service_pb2.ServiceSpec(type="ClusterIP", cluster_ip=address))
    made.metadata.namespace, made.metadata.name = "default", name
    made.spec.ports.add(name="main", port=port, protocol=protocol, node_port=node_port or None)
    for field, value in spec.items():
        if isinstance(value, list):
            getattr(made.spec, field).extend(value)
        else:
            setattr(made.spec, field, value)
    return made


def endpoints(*said: str, port: int = 8080, name: str = "main", protocol: str = "TCP") -> Any:
    """A slice; each endpoint "address node conditions", of which any may be absent."""
    made = EndpointSlice(address_type="IPv4")
    made.ports.add(name=name, port=port, protocol=protocol)
    for words in said:
        address, node, how = (*words.split(), "", "")[:3]
        one = made.endpoints.add(addresses=[address])
        if node:
            one.node_name = node
        one.conditions.ready = how in ("", "ready")
        one.conditions.serving = how in ("", "ready", "ending")
        one.conditions.terminating = how in ("ending", "ended")
    return made
