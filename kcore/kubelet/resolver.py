"""What a pod resolves names with: by its dnsPolicy the cluster's or the node's, and its dnsConfig.

Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from kcore_api.kcore.core.v1 import pod_pb2
from kcore_api.runtime.v1 import api_pb2 as pb

DOMAIN = "cluster.local"
# What resolvers read; more is ignored there.
MOST_SERVERS = 3
MOST_SEARCHES = 32


@dataclass(frozen=True, slots=True)
class Resolver:
    """What there is to choose from: the node's own, and where the cluster's is, if it has one."""

    node: pb.DNSConfig = field(default_factory=pb.DNSConfig)
    cluster: tuple[str, ...] = ()

    def config(self, pod: pod_pb2.Pod) -> pb.DNSConfig:
        """For the sandbox. ValueError for what would be more than one word of resolv.conf."""
        made = pb.DNSConfig()
        if self._asks_cluster(pod):
            namespace = pod.metadata.namespace
            made.servers.extend(self.cluster)
            made.searches.extend((f"{namespace}.svc.{DOMAIN}", f"svc.{DOMAIN}", DOMAIN))
            made.searches.extend(self.node.searches)
            made.options.append("ndots:5")
        elif pod.spec.dns_policy != "None":
            made.CopyFrom(self.node)
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

    def _asks_cluster(self, pod: pod_pb2.Pod) -> bool:
        if not self.cluster:
            return False
        policy = pod.spec.dns_policy or "ClusterFirst"
        # On the node's network a pod asks whom the node asks, unless it says otherwise.
        return policy == "ClusterFirstWithHostNet" or (
            policy == "ClusterFirst" and not pod.spec.host_network
        )


def _first(words: Iterable[str], most: int) -> list[str]:
    return list(dict.fromkeys(words))[:most]
