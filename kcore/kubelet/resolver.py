"""What a pod resolves names with: its dnsPolicy and dnsConfig upon the node's own. Pure."""

from collections.abc import Iterable

from kcore_api.kcore.core.v1 import pod_pb2
from kcore_api.runtime.v1 import api_pb2 as pb

# What resolvers read; more is ignored there.
MOST_SERVERS = 3
MOST_SEARCHES = 32


def config(pod: pod_pb2.Pod, node: pb.DNSConfig) -> pb.DNSConfig:
    """For the sandbox. ValueError for what would be more than one word of resolv.conf.

    There is no DNS of the cluster yet: ClusterFirst acts as Default does.
    """
    made = pb.DNSConfig()
    if pod.spec.dns_policy != "None":
        made.CopyFrom(node)
    said = pod.spec.dns_config
    options = [f"{one.name}:{one.value}" if one.value else one.name for one in said.options]
    for word in (*said.nameservers, *said.searches, *options):
        if word.split() != [word]:
            raise ValueError(f"dnsConfig: {word!r} is not one word")
    made.servers[:] = _first((*made.servers, *said.nameservers), MOST_SERVERS)
    made.searches[:] = _first((*made.searches, *said.searches), MOST_SEARCHES)
    replaced = {one.name for one in said.options}
    kept = [one for one in made.options if one.partition(":")[0] not in replaced]
    made.options[:] = [*kept, *options]
    return made


def _first(words: Iterable[str], most: int) -> list[str]:
    return list(dict.fromkeys(words))[:most]
