"""Admission of services: what goes when the type changes, and addresses that nobody may take.

Who writes a Service back with another type still sends what the old type had: its cluster IP, node
ports, policies. Where that is as it was stored, it goes with the type; where the writer has changed
it, it is theirs, and the rules judge it.
"""

from collections.abc import Callable
from typing import Any

from kcore.admission import address
from kcore.wire.errors import Violation

HEADLESS = "None"
CLUSTER_IP, EXTERNAL_NAME = "ClusterIP", "ExternalName"
NODE_PORTS = ("NodePort", "LoadBalancer")
_INSIDE = ("cluster_ip", "cluster_ips", "ip_families", "ip_family_policy")
_OF_LOAD_BALANCERS = ("allocate_load_balancer_node_ports", "load_balancer_class")


def admit(obj: Any, old: Any, _read: Callable[[str, str, str], Any]) -> list[Violation]:
    """Takes away what the type does not have any more; refuses external IPs that lead astray."""
    spec = obj.spec
    if old is not None:
        _follow_type(spec, old.spec)
    if spec.cluster_ip == HEADLESS and not spec.cluster_ips:
        spec.cluster_ips.append(HEADLESS)
    refused = []
    if spec.cluster_ip not in ("", HEADLESS) and (said := address.malformed(spec.cluster_ip)):
        where = "spec.clusterIP"
        refused.append(Violation(where, f'Invalid value: "{spec.cluster_ip}": {said}'))
    for index, one in enumerate(spec.external_ips):
        if said := address.special(one):
            where = f"spec.externalIPs[{index}]"
            refused.append(Violation(where, f'Invalid value: "{one}": {said}'))
    return refused


def _follow_type(spec: Any, old: Any) -> None:
    type_ = spec.type or CLUSTER_IP
    if type_ != old.type:
        gone: list[str] = []
        if type_ == EXTERNAL_NAME:
            gone += (*_INSIDE, "internal_traffic_policy")
        elif old.type == EXTERNAL_NAME:
            gone.append("external_name")
        if type_ != "LoadBalancer":
            gone += _OF_LOAD_BALANCERS
        if type_ not in NODE_PORTS and not spec.external_ips:
            gone.append("external_traffic_policy")
        for name in gone:
            if getattr(spec, name) == getattr(old, name):
                spec.ClearField(name)
        if type_ not in NODE_PORTS:
            before = {(one.port, one.protocol): one.node_port for one in old.ports}
            for one in spec.ports:
                if one.node_port == before.get((one.port, one.protocol or "TCP")):
                    one.ClearField("node_port")
    freed = (spec.session_affinity or "None") == "None" and old.session_affinity != "None"
    if freed and spec.session_affinity_config == old.session_affinity_config:
        spec.ClearField("session_affinity_config")
