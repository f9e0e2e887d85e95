import datetime

from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from kcore_api.kcore.meta.v1 import meta_pb2 as _meta_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Propagation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROPAGATION_BACKGROUND: _ClassVar[Propagation]
    PROPAGATION_FOREGROUND: _ClassVar[Propagation]
    PROPAGATION_ORPHAN: _ClassVar[Propagation]

class Want(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WANT_REVISIONS: _ClassVar[Want]
    WANT_NOTHING: _ClassVar[Want]
    WANT_OBJECTS: _ClassVar[Want]
PROPAGATION_BACKGROUND: Propagation
PROPAGATION_FOREGROUND: Propagation
PROPAGATION_ORPHAN: Propagation
WANT_REVISIONS: Want
WANT_NOTHING: Want
WANT_OBJECTS: Want

class Ref(_message.Message):
    __slots__ = ("kind", "namespace", "name")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    name: str
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class At(_message.Message):
    __slots__ = ("revision", "time")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    revision: int
    time: _timestamp_pb2.Timestamp
    def __init__(self, revision: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Selection(_message.Message):
    __slots__ = ("kind", "namespace", "names", "labels", "fields", "from_revision")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    FROM_REVISION_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    names: _containers.RepeatedScalarFieldContainer[str]
    labels: str
    fields: str
    from_revision: int
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., labels: _Optional[str] = ..., fields: _Optional[str] = ..., from_revision: _Optional[int] = ...) -> None: ...

class KindsRequest(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class KindsResponse(_message.Message):
    __slots__ = ("descriptors", "digest", "revision", "limits", "cluster_id", "epoch", "version")
    DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    descriptors: _descriptor_pb2.FileDescriptorSet
    digest: str
    revision: int
    limits: Limits
    cluster_id: str
    epoch: int
    version: str
    def __init__(self, descriptors: _Optional[_Union[_descriptor_pb2.FileDescriptorSet, _Mapping]] = ..., digest: _Optional[str] = ..., revision: _Optional[int] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., cluster_id: _Optional[str] = ..., epoch: _Optional[int] = ..., version: _Optional[str] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("object_bytes", "transaction_operations", "transaction_bytes", "message_bytes")
    OBJECT_BYTES_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_BYTES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    object_bytes: int
    transaction_operations: int
    transaction_bytes: int
    message_bytes: int
    def __init__(self, object_bytes: _Optional[int] = ..., transaction_operations: _Optional[int] = ..., transaction_bytes: _Optional[int] = ..., message_bytes: _Optional[int] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("ref", "at", "mask")
    REF_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    ref: Ref
    at: At
    mask: _field_mask_pb2.FieldMask
    def __init__(self, ref: _Optional[_Union[Ref, _Mapping]] = ..., at: _Optional[_Union[At, _Mapping]] = ..., mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("object", "revision")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    object: bytes
    revision: int
    def __init__(self, object: _Optional[bytes] = ..., revision: _Optional[int] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("selection", "page_size", "page_token", "at", "mask")
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    selection: Selection
    page_size: int
    page_token: str
    at: At
    mask: _field_mask_pb2.FieldMask
    def __init__(self, selection: _Optional[_Union[Selection, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., at: _Optional[_Union[At, _Mapping]] = ..., mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("metadata", "items")
    METADATA_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    metadata: _meta_pb2.ListMeta
    items: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, metadata: _Optional[_Union[_meta_pb2.ListMeta, _Mapping]] = ..., items: _Optional[_Iterable[bytes]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("selections", "mask", "progress_ms")
    SELECTIONS_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_MS_FIELD_NUMBER: _ClassVar[int]
    selections: _containers.RepeatedCompositeFieldContainer[Selection]
    mask: _field_mask_pb2.FieldMask
    progress_ms: int
    def __init__(self, selections: _Optional[_Iterable[_Union[Selection, _Mapping]]] = ..., mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., progress_ms: _Optional[int] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("type", "object", "revision", "selection", "kind")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TYPE_UNSPECIFIED: _ClassVar[Event.Type]
        ADDED: _ClassVar[Event.Type]
        MODIFIED: _ClassVar[Event.Type]
        DELETED: _ClassVar[Event.Type]
    TYPE_UNSPECIFIED: Event.Type
    ADDED: Event.Type
    MODIFIED: Event.Type
    DELETED: Event.Type
    TYPE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    type: Event.Type
    object: bytes
    revision: int
    selection: int
    kind: str
    def __init__(self, type: _Optional[_Union[Event.Type, str]] = ..., object: _Optional[bytes] = ..., revision: _Optional[int] = ..., selection: _Optional[int] = ..., kind: _Optional[str] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("revision", "events", "synced")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    SYNCED_FIELD_NUMBER: _ClassVar[int]
    revision: int
    events: _containers.RepeatedCompositeFieldContainer[Event]
    synced: bool
    def __init__(self, revision: _Optional[int] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., synced: _Optional[bool] = ...) -> None: ...

class Guard(_message.Message):
    __slots__ = ("ref", "absent", "revision", "uid", "field")
    REF_FIELD_NUMBER: _ClassVar[int]
    ABSENT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    ref: Ref
    absent: bool
    revision: int
    uid: str
    field: FieldIs
    def __init__(self, ref: _Optional[_Union[Ref, _Mapping]] = ..., absent: _Optional[bool] = ..., revision: _Optional[int] = ..., uid: _Optional[str] = ..., field: _Optional[_Union[FieldIs, _Mapping]] = ...) -> None: ...

class FieldIs(_message.Message):
    __slots__ = ("path", "value")
    PATH_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    path: str
    value: str
    def __init__(self, path: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("ref", "subresource", "create", "update", "apply", "patch", "delete")
    REF_FIELD_NUMBER: _ClassVar[int]
    SUBRESOURCE_FIELD_NUMBER: _ClassVar[int]
    CREATE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    APPLY_FIELD_NUMBER: _ClassVar[int]
    PATCH_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    ref: Ref
    subresource: str
    create: bytes
    update: bytes
    apply: Apply
    patch: Patch
    delete: Delete
    def __init__(self, ref: _Optional[_Union[Ref, _Mapping]] = ..., subresource: _Optional[str] = ..., create: _Optional[bytes] = ..., update: _Optional[bytes] = ..., apply: _Optional[_Union[Apply, _Mapping]] = ..., patch: _Optional[_Union[Patch, _Mapping]] = ..., delete: _Optional[_Union[Delete, _Mapping]] = ...) -> None: ...

class Apply(_message.Message):
    __slots__ = ("object", "force")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    object: bytes
    force: bool
    def __init__(self, object: _Optional[bytes] = ..., force: _Optional[bool] = ...) -> None: ...

class Patch(_message.Message):
    __slots__ = ("merge", "json_merge", "json", "strategic")
    MERGE_FIELD_NUMBER: _ClassVar[int]
    JSON_MERGE_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    STRATEGIC_FIELD_NUMBER: _ClassVar[int]
    merge: Merge
    json_merge: str
    json: str
    strategic: str
    def __init__(self, merge: _Optional[_Union[Merge, _Mapping]] = ..., json_merge: _Optional[str] = ..., json: _Optional[str] = ..., strategic: _Optional[str] = ...) -> None: ...

class Merge(_message.Message):
    __slots__ = ("object", "mask")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    object: bytes
    mask: _field_mask_pb2.FieldMask
    def __init__(self, object: _Optional[bytes] = ..., mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class Delete(_message.Message):
    __slots__ = ("grace_seconds", "propagation", "uid", "revision")
    GRACE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PROPAGATION_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    grace_seconds: int
    propagation: Propagation
    uid: str
    revision: int
    def __init__(self, grace_seconds: _Optional[int] = ..., propagation: _Optional[_Union[Propagation, str]] = ..., uid: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class Transaction(_message.Message):
    __slots__ = ("request_id", "because", "manager", "guards", "operations")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    MANAGER_FIELD_NUMBER: _ClassVar[int]
    GUARDS_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    because: int
    manager: str
    guards: _containers.RepeatedCompositeFieldContainer[Guard]
    operations: _containers.RepeatedCompositeFieldContainer[Operation]
    def __init__(self, request_id: _Optional[str] = ..., because: _Optional[int] = ..., manager: _Optional[str] = ..., guards: _Optional[_Iterable[_Union[Guard, _Mapping]]] = ..., operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ...) -> None: ...

class CommitRequest(_message.Message):
    __slots__ = ("transactions", "dry_run", "want")
    TRANSACTIONS_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    WANT_FIELD_NUMBER: _ClassVar[int]
    transactions: _containers.RepeatedCompositeFieldContainer[Transaction]
    dry_run: bool
    want: Want
    def __init__(self, transactions: _Optional[_Iterable[_Union[Transaction, _Mapping]]] = ..., dry_run: _Optional[bool] = ..., want: _Optional[_Union[Want, str]] = ...) -> None: ...

class OperationResult(_message.Message):
    __slots__ = ("object", "changed", "warnings")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    object: bytes
    changed: bool
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, object: _Optional[bytes] = ..., changed: _Optional[bool] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class TransactionResult(_message.Message):
    __slots__ = ("revision", "operations", "error")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    revision: int
    operations: _containers.RepeatedCompositeFieldContainer[OperationResult]
    error: _status_pb2.Status
    def __init__(self, revision: _Optional[int] = ..., operations: _Optional[_Iterable[_Union[OperationResult, _Mapping]]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class CommitResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[TransactionResult]
    def __init__(self, results: _Optional[_Iterable[_Union[TransactionResult, _Mapping]]] = ...) -> None: ...
