"""network: each node's CNI configuration, its routes to all others, and the way out of the cluster.

It must not know of services: those are the proxy's.
"""
