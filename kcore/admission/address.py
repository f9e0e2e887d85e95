"""Addresses that traffic of services may not be sent to, or taken from: they mean the node itself,
its link, or nobody in particular. Pure.
"""

import ipaddress


def malformed(text: str) -> str:
    """Why the text is no address; "" where it is one."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return 'must be an IP address, such as "10.9.8.7"'
    return ""


def special(text: str) -> str:
    """Why an address is refused; "" where it is somebody's. A text that is none is not judged."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if found.is_unspecified:
        return "may not be unspecified"
    if found.is_loopback:
        return "may not be in the loopback range"
    if found.is_link_local:
        return "may not be in the link-local range"
    if found.is_multicast:
        return "may not be a multicast address"
    if str(found) == "255.255.255.255":
        return "may not be the broadcast address"
    return ""
