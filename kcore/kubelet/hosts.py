"""A pod's own /etc/hosts, and its host name. Pure."""

from collections.abc import Sequence

from kcore_api.kcore.core.v1 import pod_pb2

from kcore.kubelet import resolver

_FIRST = (
    "# Kubernetes-managed hosts file.",
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "fe00::0\tip6-mcastprefix",
    "fe00::1\tip6-allnodes",
    "fe00::2\tip6-allrouters",
)
_MOST_NAME = 63


def hostname(pod: pod_pb2.Pod) -> str:
    """The pod's host name: its own, or its name cut to 63."""
    return (pod.spec.hostname or pod.metadata.name)[:_MOST_NAME].rstrip("-.")


def text(pod: pod_pb2.Pod, addresses: Sequence[str]) -> str:
    """The file. ValueError for names that are more than one word."""
    names = hostname(pod)
    if pod.spec.subdomain:
        service = f"{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{resolver.DOMAIN}"
        names = f"{names}.{service}\t{names}"
    lines = [*_FIRST, *(f"{address}\t{names}" for address in addresses)]
    if pod.spec.host_aliases:
        lines += ["", "# Entries added by HostAliases."]
    for alias in pod.spec.host_aliases:
        words = [alias.ip, *alias.hostnames]
        if any(len(word.split()) != 1 or word.split()[0] != word or "#" in word for word in words):
            raise ValueError(f"hostAliases: {words!r} is not an address and its names")
        lines.append("\t".join(words))
    return "\n".join(lines) + "\n"
