"""ApiError: the one exception of the API, and its two tables to and from gRPC.

A handler raises `ApiError(reason, message, violations)`; the apiserver turns it into a
google.rpc.Status (`to_status`), a client turns that back (`from_status`). The reasons are closed:
kcore/api/v1/errors.proto says what a caller should do about each. As details travel: ErrorInfo
always; the violations as BadRequest, or as PreconditionFailure where not the request is at fault
but what is there; RetryInfo where it is known when to ask again; Help where there is a next step.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "kcore.dev"


class Reason(Enum):
    """Why a request was refused; values are google.rpc codes."""

    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    CONFLICT = 10
    INVALID = 3
    FORBIDDEN = 7
    UNAUTHENTICATED = 16
    GONE = 11
    EXHAUSTED = 8
    REFUSED = 9
    UNAVAILABLE = 14
    UNIMPLEMENTED = 12


_BY_CODE = {reason.value: reason for reason in Reason}
# What transports say on their own account.
_BY_CODE |= {1: Reason.UNAVAILABLE, 4: Reason.UNAVAILABLE, 2: Reason.UNAVAILABLE}
_BY_CODE |= {13: Reason.UNAVAILABLE, 15: Reason.UNAVAILABLE}

# Of these, violations speak of what is there, not of what was sent.
_PRECONDITIONS = (Reason.CONFLICT, Reason.REFUSED, Reason.GONE)

# What passes, and when to ask again where nobody knows better.
_PASSING = (Reason.UNAVAILABLE, Reason.EXHAUSTED)
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: the field's JSON path from the object's root, and what is wrong with it."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ApiError(Exception):
    """A request was refused."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        violations: Iterable[Violation] = (),
        *,
        retry_seconds: float | None = None,
        metadata: dict[str, str] | None = None,
        help: str = "",
    ) -> None:
        """`retry_seconds`: when to ask again. `metadata`: values that the message speaks of.

        `help`: the next step, as a command to type.
        """
        super().__init__(message)
        self.reason = reason
        self.message = unicode(message)
        self.violations = tuple(
            v if v.path.isascii() and v.message.isascii() else _unicode(v) for v in violations
        )
        self.retry_seconds = retry_seconds
        self.metadata = {k: unicode(v) for k, v in metadata.items()} if metadata else {}
        self.help = help

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"ApiError({self.reason.name}, {self.message!r}, {self.violations!r})"


def unicode(text: str) -> str:
    """The text as it can travel: JSON's escapes make halves of letters, which none can encode."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def invalid(subject: str, violations: Iterable[Violation]) -> ApiError:
    """The error for an object that breaks rules; `subject` is 'Deployment "web"'."""
    found = tuple(violations)
    said = "; ".join(str(violation) for violation in found)
    return ApiError(Reason.INVALID, f"{subject} is invalid: {said}", found)


def to_status(error: ApiError) -> status_pb2.Status:
    """The error as it travels."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason.name, domain=DOMAIN, metadata=error.metadata
    )
    details: list[any_pb2.Any] = [_pack(info)]
    if error.violations and error.reason in _PRECONDITIONS:
        failed = error_details_pb2.PreconditionFailure()
        for violation in error.violations:
            failed.violations.add(
                type=error.reason.name, subject=violation.path, description=violation.message
            )
        details.append(_pack(failed))
    elif error.violations:
        bad = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad.field_violations.add(field=violation.path, description=violation.message)
        details.append(_pack(bad))
    retry_seconds = error.retry_seconds
    if retry_seconds is None and error.reason in _PASSING:
        retry_seconds = RETRY_SECONDS
    if retry_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(retry_seconds * 1000))
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    if error.help:
        details.append(_pack(error_details_pb2.Help(links=[{"description": error.help}])))
    return status_pb2.Status(code=error.reason.value, message=error.message, details=details)


def from_status(status: status_pb2.Status) -> ApiError:
    """The error that travelled."""
    reason = _BY_CODE.get(status.code, Reason.UNAVAILABLE)
    violations: list[Violation] = []
    retry_seconds: float | None = None
    metadata: dict[str, str] = {}
    help = ""
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            metadata = dict(info.metadata)
            if info.domain == DOMAIN and info.reason in Reason.__members__:
                reason = Reason[info.reason]
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest.FromString(detail.value)
            violations += [Violation(v.field, v.description) for v in bad.field_violations]
        elif detail.Is(error_details_pb2.PreconditionFailure.DESCRIPTOR):
            failed = error_details_pb2.PreconditionFailure.FromString(detail.value)
            violations += [Violation(v.subject, v.description) for v in failed.violations]
        elif detail.Is(error_details_pb2.Help.DESCRIPTOR):
            links = error_details_pb2.Help.FromString(detail.value).links
            help = links[0].description if links else ""
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo.FromString(detail.value)
            retry_seconds = retry.retry_delay.ToMilliseconds() / 1000
    return ApiError(
        reason,
        status.message,
        violations,
        retry_seconds=retry_seconds,
        metadata=metadata,
        help=help,
    )


def _unicode(violation: Violation) -> Violation:
    return Violation(unicode(violation.path), unicode(violation.message))


def _pack(message: error_details_pb2.ErrorInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
