"""kubelet: manifests and the API's pods become containers, through CRI.

It must not know of workloads: who made a pod, and why, is nothing to it.
"""
