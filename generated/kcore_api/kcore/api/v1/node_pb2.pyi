from kcore_api.kcore.api.v1 import pod_stream_pb2 as _pod_stream_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LinkRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class LinkResponse(_message.Message):
    __slots__ = ("open",)
    OPEN_FIELD_NUMBER: _ClassVar[int]
    open: OpenSession
    def __init__(self, open: _Optional[_Union[OpenSession, _Mapping]] = ...) -> None: ...

class OpenSession(_message.Message):
    __slots__ = ("session", "open")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    session: str
    open: _pod_stream_pb2.StreamOpen
    def __init__(self, session: _Optional[str] = ..., open: _Optional[_Union[_pod_stream_pb2.StreamOpen, _Mapping]] = ...) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ("session", "logs", "exec", "attach", "port_forward", "error")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    EXEC_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    PORT_FORWARD_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    session: str
    logs: _pod_stream_pb2.LogsResponse
    exec: _pod_stream_pb2.ExecResponse
    attach: _pod_stream_pb2.AttachResponse
    port_forward: _pod_stream_pb2.PortForwardResponse
    error: _pod_stream_pb2.StreamError
    def __init__(self, session: _Optional[str] = ..., logs: _Optional[_Union[_pod_stream_pb2.LogsResponse, _Mapping]] = ..., exec: _Optional[_Union[_pod_stream_pb2.ExecResponse, _Mapping]] = ..., attach: _Optional[_Union[_pod_stream_pb2.AttachResponse, _Mapping]] = ..., port_forward: _Optional[_Union[_pod_stream_pb2.PortForwardResponse, _Mapping]] = ..., error: _Optional[_Union[_pod_stream_pb2.StreamError, _Mapping]] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("exec", "attach", "port_forward")
    EXEC_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    PORT_FORWARD_FIELD_NUMBER: _ClassVar[int]
    exec: _pod_stream_pb2.ExecRequest
    attach: _pod_stream_pb2.AttachRequest
    port_forward: _pod_stream_pb2.PortForwardRequest
    def __init__(self, exec: _Optional[_Union[_pod_stream_pb2.ExecRequest, _Mapping]] = ..., attach: _Optional[_Union[_pod_stream_pb2.AttachRequest, _Mapping]] = ..., port_forward: _Optional[_Union[_pod_stream_pb2.PortForwardRequest, _Mapping]] = ...) -> None: ...

class ImagesRequest(_message.Message):
    __slots__ = ("want", "data")
    WANT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    want: str
    data: bytes
    def __init__(self, want: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class ImagesResponse(_message.Message):
    __slots__ = ("want", "data")
    WANT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    want: str
    data: bytes
    def __init__(self, want: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...
