"""Formats: what texts and numbers must look like, by the names that options.proto gives them.

`FORMATS[name](value)` is "" where the value is well formed, and else what it must be, to be said
after the value. A format of a map is about its keys; `label` and `annotation` look at the whole map
and give the faulty key too. Pure; knows no kind.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from kcore.wire import quantity

ANNOTATION_BYTES: Final = 256 * 1024

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z](?:[-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_SYSCTL = re.compile(r"[a-z0-9](?:[-_a-z0-9]*[a-z0-9])?(?:[./][a-z0-9](?:[-_a-z0-9]*[a-z0-9])?)*")

_SUBDOMAIN_SAID: Final = (
    'must be a DNS subdomain: at most 253 lower-case letters, digits, "-" and ".", with a letter '
    "or digit at both ends of each part"
)
_LABEL_SAID: Final = (
    'must be a DNS label: at most 63 lower-case letters, digits and "-", with a letter or digit at '
    "both ends"
)
_QUALIFIED_SAID: Final = (
    'must be 1 to 63 letters, digits, "-", "_" and ".", with a letter or digit at both ends, and '
    'may have a DNS subdomain and "/" before it'
)


def dns_subdomain(text: str) -> str:
    """Names of most objects."""
    return "" if len(text) <= 253 and _SUBDOMAIN.fullmatch(text) else _SUBDOMAIN_SAID


def path_segment(text: str) -> str:
    """Names of roles and their bindings."""
    if 0 < len(text) <= 253 and text not in (".", "..") and not {"/", "%"} & set(text):
        return "" if text.isprintable() else "must be printable"
    return 'must be 1 to 253 letters, not "." nor "..", without "/" and "%"'


def dns_label(text: str) -> str:
    """Names of namespaces, containers, volumes."""
    return "" if len(text) <= 63 and _LABEL.fullmatch(text) else _LABEL_SAID


def dns_1035(text: str) -> str:
    """Names of services."""
    if len(text) <= 63 and _LABEL_1035.fullmatch(text):
        return ""
    return _LABEL_SAID + ", and begin with a letter"


def port_name(text: str) -> str:
    """Names of ports."""
    if (
        len(text) <= 15
        and _LABEL.fullmatch(text)
        and "--" not in text
        and any("a" <= letter <= "z" for letter in text)
    ):
        return ""
    return (
        'must be at most 15 lower-case letters, digits and "-", at least one of them a letter, '
        'with a letter or digit at both ends and no two "-" in a row'
    )


def qualified_name(text: str) -> str:
    """Keys of labels, finalizers, resources."""
    prefix, slash, name = text.rpartition("/")
    if len(name) > 63 or not _QUALIFIED.fullmatch(name):
        return _QUALIFIED_SAID
    return "" if not slash or not dns_subdomain(prefix) else _QUALIFIED_SAID


def label_value(text: str) -> str:
    """Values of labels."""
    if not text or (len(text) <= 63 and _QUALIFIED.fullmatch(text)):
        return ""
    return (
        'must be empty or at most 63 letters, digits, "-", "_" and ".", with a letter or digit at '
        "both ends"
    )


def ip(text: str) -> str:
    """An address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return 'must be an IP address, such as "10.9.8.7" or "2001:db8::1"'
    return "" if "%" not in text else "must be an IP address without zone"


def cidr(text: str) -> str:
    """A network."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return 'must be a network in CIDR notation, such as "10.9.8.0/24" or "2001:db8::/64"'
    return "" if "/" in text else 'must have a prefix length, such as "10.9.8.0/24"'


def env_name(text: str) -> str:
    """Names of environment variables."""
    if text and "=" not in text and text.isprintable() and text.isascii():
        return ""
    return 'must be printable ASCII without "="'


def absolute_path(text: str) -> str:
    """A path from the root."""
    if text.startswith("/") and ".." not in text.split("/"):
        return ""
    return 'must begin with "/" and have no ".."'


def relative_path(text: str) -> str:
    """A path below something."""
    if text and not text.startswith("/") and ".." not in text.split("/"):
        return ""
    return 'must be a path without "/" at its beginning and without ".."'


def config_key(text: str) -> str:
    """Keys of config maps and secrets."""
    if len(text) <= 253 and _CONFIG_KEY.fullmatch(text) and text not in (".", ".."):
        return "" if not text.startswith("..") else 'must not begin with ".."'
    return 'must be at most 253 letters, digits, "-", "_" and "."'


def amount(text: str) -> str:
    """A quantity."""
    try:
        quantity.parse(text)
    except ValueError:
        return 'must be a quantity, such as "100m", "0.5", "1.5Gi" or "12e6"'
    return ""


def amount_nonnegative(text: str) -> str:
    """A quantity that is 0 at least."""
    said = amount(text)
    return said or ("must be greater than or equal to 0" if quantity.parse(text) < 0 else "")


def image(text: str) -> str:
    """A reference to an image: only what no reference has is refused; the runtime knows better."""
    if text == text.strip() and text.isprintable() and " " not in text:
        return ""
    return "must not have blanks"


def sysctl(text: str) -> str:
    """A kernel parameter."""
    if len(text) <= 253 and _SYSCTL.fullmatch(text):
        return ""
    return 'must be the name of a kernel parameter, such as "net.ipv4.ip_forward"'


def port(number: int) -> str:
    """A port."""
    return "" if 1 <= number <= 65535 else "must be between 1 and 65535"


def port_or_name(value: Any) -> str:
    """IntOrString: a port or the name of one."""
    return port_name(value.str_val) if value.type else port(value.int_val)


def percent_or_count(value: Any) -> str:
    """IntOrString: a whole number or a percentage."""
    if not value.type:
        return "" if value.int_val >= 0 else "must be greater than or equal to 0"
    return (
        "" if re.fullmatch(r"[0-9]{1,9}%", value.str_val) else 'must be a percentage such as "25%"'
    )


def label(labels: Mapping[str, str]) -> tuple[str, str] | None:
    """The first fault of a map of labels: the key, and what is wrong."""
    for key, value in sorted(labels.items()):
        if said := qualified_name(key):
            return key, f"{key}: {said}"
        if said := label_value(value):
            return key, f"{key}={value}: {said}"
    return None


def annotation(annotations: Mapping[str, str]) -> tuple[str, str] | None:
    """The first fault of a map of annotations: the key, and what is wrong."""
    total = 0
    for key, value in sorted(annotations.items()):
        total += len(key.encode()) + len(value.encode())
        if said := qualified_name(key.lower()):
            return key, f"{key}: {said}"
    if total > ANNOTATION_BYTES:
        return "", f"must have at most {ANNOTATION_BYTES} bytes in all, has {total}"
    return None


# Of texts; a Quantity is checked by its text.
TEXTS: Final[dict[str, Callable[[str], str]]] = {
    "dns-subdomain": dns_subdomain,
    "path-segment": path_segment,
    "dns-label": dns_label,
    "dns-1035": dns_1035,
    "port-name": port_name,
    "qualified-name": qualified_name,
    "label-value": label_value,
    "ip": ip,
    "cidr": cidr,
    "env-name": env_name,
    "absolute-path": absolute_path,
    "relative-path": relative_path,
    "config-key": config_key,
    "quantity": amount,
    "quantity-nonnegative": amount_nonnegative,
    "image": image,
    "sysctl": sysctl,
}
# Of numbers.
NUMBERS: Final[dict[str, Callable[[int], str]]] = {"port": port}
# Of IntOrString.
NUMBERS_OR_TEXTS: Final[dict[str, Callable[[Any], str]]] = {
    "percent-or-count": percent_or_count,
    "port-or-name": port_or_name,
}
# Of whole maps.
MAPS: Final[dict[str, Callable[[Mapping[str, str]], tuple[str, str] | None]]] = {
    "label": label,
    "annotation": annotation,
}
