from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Scope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCOPE_NAMESPACED: _ClassVar[Scope]
    SCOPE_CLUSTER: _ClassVar[Scope]
SCOPE_NAMESPACED: Scope
SCOPE_CLUSTER: Scope
GROUP_FIELD_NUMBER: _ClassVar[int]
group: _descriptor.FieldDescriptor
KIND_FIELD_NUMBER: _ClassVar[int]
kind: _descriptor.FieldDescriptor
RULES_FIELD_NUMBER: _ClassVar[int]
rules: _descriptor.FieldDescriptor
FIELD_FIELD_NUMBER: _ClassVar[int]
field: _descriptor.FieldDescriptor

class Kind(_message.Message):
    __slots__ = ("plural", "singular", "short_names", "categories", "scope", "parent", "name_format", "columns", "history", "graceful", "rules", "immutable", "selectable", "claims", "subresources")
    PLURAL_FIELD_NUMBER: _ClassVar[int]
    SINGULAR_FIELD_NUMBER: _ClassVar[int]
    SHORT_NAMES_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FORMAT_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    GRACEFUL_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    IMMUTABLE_FIELD_NUMBER: _ClassVar[int]
    SELECTABLE_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    SUBRESOURCES_FIELD_NUMBER: _ClassVar[int]
    plural: str
    singular: str
    short_names: _containers.RepeatedScalarFieldContainer[str]
    categories: _containers.RepeatedScalarFieldContainer[str]
    scope: Scope
    parent: str
    name_format: str
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    history: History
    graceful: Graceful
    rules: _containers.RepeatedCompositeFieldContainer[Rule]
    immutable: _containers.RepeatedCompositeFieldContainer[Immutable]
    selectable: _containers.RepeatedScalarFieldContainer[str]
    claims: _containers.RepeatedCompositeFieldContainer[Claim]
    subresources: _containers.RepeatedCompositeFieldContainer[Subresource]
    def __init__(self, plural: _Optional[str] = ..., singular: _Optional[str] = ..., short_names: _Optional[_Iterable[str]] = ..., categories: _Optional[_Iterable[str]] = ..., scope: _Optional[_Union[Scope, str]] = ..., parent: _Optional[str] = ..., name_format: _Optional[str] = ..., columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ..., history: _Optional[_Union[History, _Mapping]] = ..., graceful: _Optional[_Union[Graceful, _Mapping]] = ..., rules: _Optional[_Iterable[_Union[Rule, _Mapping]]] = ..., immutable: _Optional[_Iterable[_Union[Immutable, _Mapping]]] = ..., selectable: _Optional[_Iterable[str]] = ..., claims: _Optional[_Iterable[_Union[Claim, _Mapping]]] = ..., subresources: _Optional[_Iterable[_Union[Subresource, _Mapping]]] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("name", "value", "wide", "format")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    WIDE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    wide: bool
    format: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ..., wide: _Optional[bool] = ..., format: _Optional[str] = ...) -> None: ...

class History(_message.Message):
    __slots__ = ("revisions", "ttl_seconds")
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    revisions: int
    ttl_seconds: int
    def __init__(self, revisions: _Optional[int] = ..., ttl_seconds: _Optional[int] = ...) -> None: ...

class Graceful(_message.Message):
    __slots__ = ("seconds", "immediate")
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    IMMEDIATE_FIELD_NUMBER: _ClassVar[int]
    seconds: str
    immediate: str
    def __init__(self, seconds: _Optional[str] = ..., immediate: _Optional[str] = ...) -> None: ...

class Rule(_message.Message):
    __slots__ = ("expression", "message", "message_expression", "path", "on_delete")
    EXPRESSION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_EXPRESSION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    ON_DELETE_FIELD_NUMBER: _ClassVar[int]
    expression: str
    message: str
    message_expression: str
    path: str
    on_delete: bool
    def __init__(self, expression: _Optional[str] = ..., message: _Optional[str] = ..., message_expression: _Optional[str] = ..., path: _Optional[str] = ..., on_delete: _Optional[bool] = ...) -> None: ...

class Immutable(_message.Message):
    __slots__ = ("path", "when", "from_creation")
    PATH_FIELD_NUMBER: _ClassVar[int]
    EXCEPT_FIELD_NUMBER: _ClassVar[int]
    WHEN_FIELD_NUMBER: _ClassVar[int]
    FROM_CREATION_FIELD_NUMBER: _ClassVar[int]
    path: str
    when: str
    from_creation: bool
    def __init__(self, path: _Optional[str] = ..., when: _Optional[str] = ..., from_creation: _Optional[bool] = ..., **kwargs) -> None: ...

class Claim(_message.Message):
    __slots__ = ("path", "pool", "when", "given_only", "also")
    PATH_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    WHEN_FIELD_NUMBER: _ClassVar[int]
    GIVEN_ONLY_FIELD_NUMBER: _ClassVar[int]
    ALSO_FIELD_NUMBER: _ClassVar[int]
    path: str
    pool: str
    when: str
    given_only: bool
    also: str
    def __init__(self, path: _Optional[str] = ..., pool: _Optional[str] = ..., when: _Optional[str] = ..., given_only: _Optional[bool] = ..., also: _Optional[str] = ...) -> None: ...

class Subresource(_message.Message):
    __slots__ = ("name", "paths", "exclusive")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATHS_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    name: str
    paths: _containers.RepeatedScalarFieldContainer[str]
    exclusive: bool
    def __init__(self, name: _Optional[str] = ..., paths: _Optional[_Iterable[str]] = ..., exclusive: _Optional[bool] = ...) -> None: ...

class Field(_message.Message):
    __slots__ = ("required", "default", "format", "min", "max", "enum", "merge_key", "set", "atomic", "sensitive", "inline", "write_only", "inert", "zero_absent")
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    ENUM_FIELD_NUMBER: _ClassVar[int]
    MERGE_KEY_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    ATOMIC_FIELD_NUMBER: _ClassVar[int]
    SENSITIVE_FIELD_NUMBER: _ClassVar[int]
    INLINE_FIELD_NUMBER: _ClassVar[int]
    WRITE_ONLY_FIELD_NUMBER: _ClassVar[int]
    INERT_FIELD_NUMBER: _ClassVar[int]
    ZERO_ABSENT_FIELD_NUMBER: _ClassVar[int]
    required: bool
    default: str
    format: str
    min: int
    max: int
    enum: _containers.RepeatedScalarFieldContainer[str]
    merge_key: _containers.RepeatedScalarFieldContainer[str]
    set: bool
    atomic: bool
    sensitive: bool
    inline: bool
    write_only: bool
    inert: bool
    zero_absent: bool
    def __init__(self, required: _Optional[bool] = ..., default: _Optional[str] = ..., format: _Optional[str] = ..., min: _Optional[int] = ..., max: _Optional[int] = ..., enum: _Optional[_Iterable[str]] = ..., merge_key: _Optional[_Iterable[str]] = ..., set: _Optional[bool] = ..., atomic: _Optional[bool] = ..., sensitive: _Optional[bool] = ..., inline: _Optional[bool] = ..., write_only: _Optional[bool] = ..., inert: _Optional[bool] = ..., zero_absent: _Optional[bool] = ...) -> None: ...
