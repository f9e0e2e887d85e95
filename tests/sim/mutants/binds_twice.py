"""The scheduler binds without guards and forgets that it did; node names may change."""

import functools

import pytest
from google.protobuf import descriptor_pb2
from kcore_api.kcore.meta.v1 import options_pb2

from kcore.client import kinds
from kcore.kernel import schema
from kcore.scheduler import run
from kcore.sim import apiserver

FOUND_BY = "moved from"


@functools.cache
def _permissive() -> schema.Schema:
    files = descriptor_pb2.FileDescriptorSet.FromString(kinds.built_in_bytes())
    for file in files.file:
        for message in file.message_type:
            if message.options.HasExtension(options_pb2.kind):
                del message.options.Extensions[options_pb2.kind].immutable[:]
    return schema.compile_schema(files.SerializeToString())


def plant(patch: pytest.MonkeyPatch) -> None:
    bind = run.Scheduler._bind
    pod = run.Scheduler._pod

    def careless(self, waiting, chosen, now):  # type: ignore[no-untyped-def]
        wish = bind(self, waiting, chosen, now)
        del wish.transaction.guards[:]
        return wish

    def late(self, change):  # type: ignore[no-untyped-def]
        if change.old is not None and change.new is not None and not change.old.spec.node_name:
            # It believes that the binding was lost.
            change.new.spec.ClearField("node_name")
        return pod(self, change)

    patch.setattr(run.Scheduler, "_bind", careless)
    patch.setattr(run.Scheduler, "_pod", late)
    patch.setattr(apiserver, "_schema", _permissive)
