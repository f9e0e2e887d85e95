"""The API as Python classes: kcore_api.kcore.core.v1.pod_pb2, …. Generated, never edited."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

# Descriptors of all kinds, with options and comments: a FileDescriptorSet. Inside the package when
# it is installed, beside it in a checkout.
KINDS = _HERE / "kinds.binpb" if (_HERE / "kinds.binpb").exists() else _HERE.parent / "kinds.binpb"
# Which calls a client may repeat by itself: gRPC's service config, for the channel option
# grpc.service_config of any language.
SERVICE_CONFIG = _HERE / "service_config.json"
