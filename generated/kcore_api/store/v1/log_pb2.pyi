from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Entry(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[Record]
    def __init__(self, records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("revision", "ordinal", "kind", "namespace", "name", "uid", "verb", "body", "actor", "because", "time", "request_id", "manager", "subresource", "checksum")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ORDINAL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MANAGER_FIELD_NUMBER: _ClassVar[int]
    SUBRESOURCE_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    revision: int
    ordinal: int
    kind: str
    namespace: str
    name: str
    uid: str
    verb: str
    body: bytes
    actor: str
    because: int
    time: float
    request_id: str
    manager: str
    subresource: str
    checksum: int
    def __init__(self, revision: _Optional[int] = ..., ordinal: _Optional[int] = ..., kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., uid: _Optional[str] = ..., verb: _Optional[str] = ..., body: _Optional[bytes] = ..., actor: _Optional[str] = ..., because: _Optional[int] = ..., time: _Optional[float] = ..., request_id: _Optional[str] = ..., manager: _Optional[str] = ..., subresource: _Optional[str] = ..., checksum: _Optional[int] = ...) -> None: ...

class Head(_message.Message):
    __slots__ = ("format", "cluster_id", "epoch", "revision", "time", "compacted", "base", "tally", "batch")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    COMPACTED_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    TALLY_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    format: int
    cluster_id: str
    epoch: int
    revision: int
    time: float
    compacted: int
    base: int
    tally: int
    batch: str
    def __init__(self, format: _Optional[int] = ..., cluster_id: _Optional[str] = ..., epoch: _Optional[int] = ..., revision: _Optional[int] = ..., time: _Optional[float] = ..., compacted: _Optional[int] = ..., base: _Optional[int] = ..., tally: _Optional[int] = ..., batch: _Optional[str] = ...) -> None: ...
