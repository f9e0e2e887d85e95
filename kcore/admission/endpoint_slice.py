"""Admission of endpoint slices: a service must not lead where its users could not go by themselves.

Addresses of the node itself or of its link are refused, in any spelling; and those of the
apiserver, in slices that the endpoints controller does not manage: behind its own controller's
label they are pods on the apiserver's node, and a slice that only says so is mended at once.
"""

import ipaddress
from collections.abc import Callable
from typing import Any

from kcore.admission import address
from kcore.wire.errors import Violation

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
CONTROLLER = "endpointslice-controller.k8s.io"
# The slice of the apiserver.
APISERVER = ("kcore.discovery.v1.EndpointSlice", "default", "kubernetes")


def admit(obj: Any, _old: Any, read: Callable[[str, str, str], Any]) -> list[Violation]:
    """Refuses addresses; changes nothing."""
    versions = {"IPv4": 4, "IPv6": 6}
    wanted = versions.get(obj.address_type)
    if wanted is None:
        return []
    reserved = _apiserver(obj, read)
    refused = []
    for index, endpoint in enumerate(obj.endpoints):
        for inner, text in enumerate(endpoint.addresses):
            said = address.malformed(text) or address.special(text)
            if not said and ipaddress.ip_address(text).version != wanted:
                said = f"must be an {obj.address_type} address"
            if not said and text in reserved:
                said = "may not be the apiserver's"
            if said:
                where = f"endpoints[{index}].addresses[{inner}]"
                refused.append(Violation(where, f'Invalid value: "{text}": {said}'))
    return refused


def _apiserver(obj: Any, read: Callable[[str, str, str], Any]) -> frozenset[str]:
    """Addresses that only the apiserver's own slice may name."""
    meta = obj.metadata
    if meta.labels.get(MANAGED_BY) == CONTROLLER or (meta.namespace, meta.name) == APISERVER[1:]:
        return frozenset()
    found = read(*APISERVER)
    if found is None:
        return frozenset()
    return frozenset(one for endpoint in found.endpoints for one in endpoint.addresses)
