"""gRPC's service config: which calls a client may repeat by itself, and how.

    render(files) -> JSON text

A method may be repeated that says so by its `idempotency_level`; Commit does because a transaction
with a request id is answered, not done, a second time. What is repeated is UNAVAILABLE, of a server
that is not there, starts, or cannot say now; and CANCELLED, by which gRPC's servers throw calls of
anybody away while more wait than they can take on (a call that its caller cancels is over).
"""

import json
from collections.abc import Iterable

from google.protobuf import descriptor_pb2

_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}
# Where most calls fail, repetition would be a load of its own.
_THROTTLING = {"maxTokens": 20, "tokenRatio": 0.2}


def render(files: Iterable[descriptor_pb2.FileDescriptorProto]) -> str:
    """The config for all services of these files."""
    names = [
        {"service": f"{file.package}.{service.name}", "method": method.name}
        for file in files
        for service in file.service
        for method in service.method
        if method.options.idempotency_level
    ]
    names.sort(key=lambda one: (one["service"], one["method"]))
    config = {
        "methodConfig": [{"name": names, "retryPolicy": _POLICY}],
        "retryThrottling": _THROTTLING,
    }
    return json.dumps(config, indent=1) + "\n"
