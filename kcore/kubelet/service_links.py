"""The variables by which a container is told of services, as they were when it started. Pure."""

from collections.abc import Iterable

from kcore_api.kcore.core.v1 import service_pb2


def variables(services: Iterable[service_pb2.Service]) -> dict[str, str]:
    """{NAME}_SERVICE_HOST and the like, of services that have an address of their own.

    Of several of one name the last one counts.
    """
    by_name = {one.metadata.name: one for one in services}
    found: dict[str, str] = {}
    for _, service in sorted(by_name.items()):
        spec = service.spec
        if spec.cluster_ip not in ("", "None") and spec.type != "ExternalName":
            found |= _of(service)
    return found


def _of(service: service_pb2.Service) -> dict[str, str]:
    name, address = _upper(service.metadata.name), service.spec.cluster_ip
    host = f"[{address}]" if ":" in address else address
    found = {f"{name}_SERVICE_HOST": address}
    for index, port in enumerate(service.spec.ports):
        protocol = port.protocol or "TCP"
        url = f"{protocol.lower()}://{host}:{port.port}"
        if index == 0:
            found[f"{name}_SERVICE_PORT"] = str(port.port)
            found[f"{name}_PORT"] = url
        if port.name:
            found[f"{name}_SERVICE_PORT_{_upper(port.name)}"] = str(port.port)
        one = f"{name}_PORT_{port.port}_{protocol}"
        found |= {
            one: url,
            f"{one}_PROTO": protocol.lower(),
            f"{one}_PORT": str(port.port),
            f"{one}_ADDR": address,
        }
    return found


def _upper(name: str) -> str:
    return name.upper().replace("-", "_")
