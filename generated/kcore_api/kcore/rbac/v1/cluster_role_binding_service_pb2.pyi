from kcore_api.kcore.api.v1 import api_pb2 as _api_pb2
from kcore_api.kcore.api.v1 import typed_pb2 as _typed_pb2
from kcore_api.kcore.meta.v1 import meta_pb2 as _meta_pb2
from kcore_api.kcore.rbac.v1 import role_binding_pb2 as _role_binding_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClusterRoleBindingList(_message.Message):
    __slots__ = ("metadata", "items")
    METADATA_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    metadata: _meta_pb2.ListMeta
    items: _containers.RepeatedCompositeFieldContainer[_role_binding_pb2.ClusterRoleBinding]
    def __init__(self, metadata: _Optional[_Union[_meta_pb2.ListMeta, _Mapping]] = ..., items: _Optional[_Iterable[_Union[_role_binding_pb2.ClusterRoleBinding, _Mapping]]] = ...) -> None: ...

class ClusterRoleBindingEvent(_message.Message):
    __slots__ = ("type", "object", "revision", "selection", "kind")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    type: _api_pb2.Event.Type
    object: _role_binding_pb2.ClusterRoleBinding
    revision: int
    selection: int
    kind: str
    def __init__(self, type: _Optional[_Union[_api_pb2.Event.Type, str]] = ..., object: _Optional[_Union[_role_binding_pb2.ClusterRoleBinding, _Mapping]] = ..., revision: _Optional[int] = ..., selection: _Optional[int] = ..., kind: _Optional[str] = ...) -> None: ...

class ClusterRoleBindingEvents(_message.Message):
    __slots__ = ("revision", "events", "synced")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    SYNCED_FIELD_NUMBER: _ClassVar[int]
    revision: int
    events: _containers.RepeatedCompositeFieldContainer[ClusterRoleBindingEvent]
    synced: bool
    def __init__(self, revision: _Optional[int] = ..., events: _Optional[_Iterable[_Union[ClusterRoleBindingEvent, _Mapping]]] = ..., synced: _Optional[bool] = ...) -> None: ...

class ClusterRoleBindingWrite(_message.Message):
    __slots__ = ("namespace", "name", "object", "dry_run", "manager", "force", "request_id", "because", "subresource")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    MANAGER_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    SUBRESOURCE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    object: _role_binding_pb2.ClusterRoleBinding
    dry_run: bool
    manager: str
    force: bool
    request_id: str
    because: int
    subresource: str
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., object: _Optional[_Union[_role_binding_pb2.ClusterRoleBinding, _Mapping]] = ..., dry_run: _Optional[bool] = ..., manager: _Optional[str] = ..., force: _Optional[bool] = ..., request_id: _Optional[str] = ..., because: _Optional[int] = ..., subresource: _Optional[str] = ...) -> None: ...
