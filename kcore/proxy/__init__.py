"""proxy: what is sent to a service goes to one of its endpoints, by nftables.

It must not know how packets get from node to node: that is the network's.
"""
