"""kcore: Kubernetes distilled to one gRPC kernel."""

__version__ = "0.1.0"
