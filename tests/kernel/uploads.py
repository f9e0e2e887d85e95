"""Kinds that come at run time: protos as text, compiled as a user would, and Schemas of them."""

import functools
import pathlib
import tempfile
from typing import Any

import grpc_tools
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_tools import protoc
from kcore_api.kcore.api.v1 import schema_pb2

SCHEMA = "kcore.api.v1.Schema"
WIDGET = "acme.v1.Widget"
PROTO = pathlib.Path(__file__).parents[2] / "proto"

HEAD = """\
syntax = "proto3";
package acme.v1;
import "kcore/meta/v1/meta.proto";
import "kcore/meta/v1/options.proto";
option (kcore.meta.v1.group) = "acme.dev";
"""
KIND = """\
// A widget, for the tests.
message Widget {
  option (kcore.meta.v1.kind) = {
    plural: "widgets" singular: "widget" short_names: "wd"
    selectable: "spec.color"
    columns: {name: "COLOR" value: "self.spec.color"}
    immutable: {path: "spec.serial"}
    claims: {path: "spec.serial" pool: "serials"}
    rules: {
      expression: "self.spec.size <= self.spec.limit" message: "too big" path: "spec.size"
    }
    subresources: {name: "scale" paths: "spec.size"}
  };
  // What every object carries.
  kcore.meta.v1.ObjectMeta metadata = 1;
  // What is wanted.
  WidgetSpec spec = 2;
  WidgetStatus status = 3;
}
"""
SPEC = """\
message WidgetSpec {
  // Its color.
  optional string color = 1 [(kcore.meta.v1.field) = {
    required: true, enum: "red", enum: "green", enum: "blue"
  }];
  optional int32 size = 2 [(kcore.meta.v1.field) = {default: "3", min: 1}];
  optional int32 limit = 3 [(kcore.meta.v1.field) = {default: "self.size + 10"}];
  optional int32 serial = 4;
  repeated Part parts = 5 [(kcore.meta.v1.field) = {merge_key: "name"}];
  map<string, string> notes = 6;
  optional string secret = 7 [(kcore.meta.v1.field) = {sensitive: true}];
}
message Part { optional string name = 1; optional kcore.meta.v1.Quantity weight = 2; }
"""
STATUS = "message WidgetStatus { optional string phase = 1; }\n"
PROTO_TEXT = HEAD + KIND + SPEC + STATUS


@functools.cache
def compiled(text: str = PROTO_TEXT, name: str = "acme/v1/widget.proto") -> bytes:
    """The FileDescriptorSet of one file, alone, with its comments."""
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / name
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(text)
        out = pathlib.Path(folder) / "set"
        google = pathlib.Path(grpc_tools.__file__).parent / "_proto"
        arguments = ["protoc", f"-I{folder}", f"-I{PROTO}", f"-I{google}", "--include_source_info"]
        assert protoc.main([*arguments, f"--descriptor_set_out={out}", name]) == 0
        return out.read_bytes()


def schema(descriptors: bytes | str = PROTO_TEXT, name: str = "acme") -> Any:
    """A Schema of a proto's text, or of descriptors."""
    if isinstance(descriptors, str):
        descriptors = compiled(descriptors)
    return schema_pb2.Schema(metadata={"name": name}, spec={"descriptors": descriptors})


def changed(change: Any, text: str = PROTO_TEXT) -> bytes:
    """The descriptors of a text after `change(file)`."""
    files = descriptor_pb2.FileDescriptorSet.FromString(compiled(text))
    change(files.file[0])
    return files.SerializeToString()


@functools.cache
def message_class(text: str = PROTO_TEXT, name: str = WIDGET) -> Any:
    """A generated class, as a user's program has one, in a pool of its own."""
    from google.protobuf import timestamp_pb2
    from kcore_api.kcore.meta.v1 import meta_pb2, options_pb2

    pool = DescriptorPool()
    for module in (descriptor_pb2, timestamp_pb2, options_pb2, meta_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled(text)).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def widget(name: str = "w", namespace: str = "default", **spec: Any) -> Any:
    """A widget."""
    labels = spec.pop("labels", {})
    spec = {"color": "red", **spec}
    return message_class()(
        metadata={"name": name, "namespace": namespace, "labels": labels}, spec=spec
    )
