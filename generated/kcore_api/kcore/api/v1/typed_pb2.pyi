import datetime

from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from kcore_api.kcore.api.v1 import api_pb2 as _api_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TypedGetRequest(_message.Message):
    __slots__ = ("namespace", "name", "revision", "time", "mask")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    revision: int
    time: _timestamp_pb2.Timestamp
    mask: _field_mask_pb2.FieldMask
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., revision: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class TypedListRequest(_message.Message):
    __slots__ = ("namespace", "names", "labels", "fields", "page_size", "page_token", "revision", "time", "mask")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    names: _containers.RepeatedScalarFieldContainer[str]
    labels: str
    fields: str
    page_size: int
    page_token: str
    revision: int
    time: _timestamp_pb2.Timestamp
    mask: _field_mask_pb2.FieldMask
    def __init__(self, namespace: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., labels: _Optional[str] = ..., fields: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., revision: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class TypedWatchRequest(_message.Message):
    __slots__ = ("namespace", "names", "labels", "fields", "from_revision", "mask", "progress_ms")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    FROM_REVISION_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_MS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    names: _containers.RepeatedScalarFieldContainer[str]
    labels: str
    fields: str
    from_revision: int
    mask: _field_mask_pb2.FieldMask
    progress_ms: int
    def __init__(self, namespace: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., labels: _Optional[str] = ..., fields: _Optional[str] = ..., from_revision: _Optional[int] = ..., mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., progress_ms: _Optional[int] = ...) -> None: ...

class TypedWriteRequest(_message.Message):
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
    object: bytes
    dry_run: bool
    manager: str
    force: bool
    request_id: str
    because: int
    subresource: str
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., object: _Optional[bytes] = ..., dry_run: _Optional[bool] = ..., manager: _Optional[str] = ..., force: _Optional[bool] = ..., request_id: _Optional[str] = ..., because: _Optional[int] = ..., subresource: _Optional[str] = ...) -> None: ...

class TypedDeleteRequest(_message.Message):
    __slots__ = ("namespace", "name", "grace_seconds", "propagation", "uid", "revision", "dry_run", "request_id", "because")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    GRACE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PROPAGATION_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    grace_seconds: int
    propagation: _api_pb2.Propagation
    uid: str
    revision: int
    dry_run: bool
    request_id: str
    because: int
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., grace_seconds: _Optional[int] = ..., propagation: _Optional[_Union[_api_pb2.Propagation, str]] = ..., uid: _Optional[str] = ..., revision: _Optional[int] = ..., dry_run: _Optional[bool] = ..., request_id: _Optional[str] = ..., because: _Optional[int] = ...) -> None: ...
