"""network: each node's CNI configuration, and the way out of the cluster.

It must not know of services: those are the proxy's.
"""
