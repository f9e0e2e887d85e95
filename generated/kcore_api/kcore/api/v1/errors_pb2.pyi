from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_NOT_FOUND: _ClassVar[Reason]
    REASON_ALREADY_EXISTS: _ClassVar[Reason]
    REASON_CONFLICT: _ClassVar[Reason]
    REASON_INVALID: _ClassVar[Reason]
    REASON_FORBIDDEN: _ClassVar[Reason]
    REASON_UNAUTHENTICATED: _ClassVar[Reason]
    REASON_GONE: _ClassVar[Reason]
    REASON_EXHAUSTED: _ClassVar[Reason]
    REASON_REFUSED: _ClassVar[Reason]
    REASON_UNAVAILABLE: _ClassVar[Reason]
    REASON_UNIMPLEMENTED: _ClassVar[Reason]
REASON_UNSPECIFIED: Reason
REASON_NOT_FOUND: Reason
REASON_ALREADY_EXISTS: Reason
REASON_CONFLICT: Reason
REASON_INVALID: Reason
REASON_FORBIDDEN: Reason
REASON_UNAUTHENTICATED: Reason
REASON_GONE: Reason
REASON_EXHAUSTED: Reason
REASON_REFUSED: Reason
REASON_UNAVAILABLE: Reason
REASON_UNIMPLEMENTED: Reason
