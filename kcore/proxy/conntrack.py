"""The door to connection tracking: what flows of UDP outlive, and must not.

A TCP connection to an endpoint that is gone ends by itself; for UDP the kernel keeps sending to it
for as long as the client goes on. `forget` deletes what leads nowhere now, so that the next packet
finds another endpoint. It acts in the network namespace of its process, and blocks.
"""

import socket
from collections.abc import Mapping

from pyroute2.conntrack import Conntrack, NFCTAttrTuple

from kcore.proxy.frontend import NODE, Backend, Frontend


def forget(fronts: Mapping[Frontend, frozenset[Backend]]) -> int:
    """Deletes the flows to these frontends that lead to none of their backends; how many."""
    count = 0
    with Conntrack() as tracked:
        for front, backends in sorted(fronts.items()):
            found = NFCTAttrTuple(
                daddr=front.address if front.address != NODE else None,
                proto=socket.getprotobyname(front.protocol),
                dport=front.port,
            )
            alive = {(one.address, one.port) for one in backends}
            for entry in list(tracked.dump_entries(tuple_orig=found)):
                if (entry.tuple_reply.saddr, entry.tuple_reply.sport) not in alive:
                    tracked.delete(entry)
                    count += 1
    return count
