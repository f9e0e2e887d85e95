"""No input kills a door: it is taken or refused by the door's own error, in bounded time.

P18. Each door a property; a few hundred examples here, KCORE_FUZZ=100000 for as many as one likes
(`make fuzz`). Messages are made from the descriptors, and bytes by breaking messages: bytes made of
nothing teach nothing, since upb refuses nearly all of them alike. Time is processor time.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore import admission
from kcore.apiserver.identity import ADMIN
from kcore.apiserver.run import Apiserver
from kcore.apiserver.services import Call
from kcore.chance import Chance
from kcore.client import codec, document, kubeconfig
from kcore.clock import SystemClock
from kcore.kernel import kernel
from kcore.kernel.store.memory import MemoryStore
from kcore.tasks import Tasks
from kcore.wire import cel, errors, quantity, selector
from kcore.wire.errors import ApiError
from tests.apiserver.world import compiled
from tests.client.messages import messages

EXAMPLES = int(os.environ.get("KCORE_FUZZ") or (300 if "KCORE_THOROUGH" in os.environ else 50))
MOST_SECONDS = 1.0

fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)

TEXT = st.text(max_size=40)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
KINDS = sorted(compiled().kinds)
POOL = compiled().kinds[KINDS[0]].parse(b"").DESCRIPTOR.file.pool


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Only the doors' own errors, and soon."""
    started = time.process_time()
    try:
        yield
    except ApiError as error:
        # What is raised can be sent, whatever it quotes.
        assert errors.from_status(errors.to_status(error)).message == error.message
    assert time.process_time() - started < MOST_SECONDS


@st.composite
def broken(draw: st.DrawFn, body: bytes) -> bytes:
    """The bytes with some of them changed, cut, doubled or from elsewhere."""
    data = bytearray(body)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 4)):
            case 0 if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case 1:
                del data[at:]
            case 2:
                data[at:at] = draw(st.binary(max_size=8))
            case 3:
                data += data[at:]
            case _:
                # Groups, which no message of ours has, and numbers that do not end.
                data[at:at] = draw(
                    st.sampled_from([b"\x0b", b"\x0c", b"\xff" * 11, b"\x0a\xff\xff"])
                )
    return bytes(data)


@st.composite
def commits(draw: st.DrawFn) -> pb.CommitRequest:
    """Anything that is a CommitRequest, with objects that are of the kinds that it names."""
    made = draw(messages(pb.CommitRequest.DESCRIPTOR, 4))
    request = pb.CommitRequest.FromString(made.SerializeToString())
    transaction = request.transactions.add()
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(KINDS))
        body = draw(messages(POOL.FindMessageTypeByName(kind), 5)).SerializeToString()
        if draw(st.integers(0, 5)) == 0:
            body = draw(broken(body))
        operation = transaction.operations.add()
        operation.ref.kind = kind
        operation.ref.name = draw(st.sampled_from(["", "a", "b"]) | TEXT.filter(_encodes))
        operation.ref.namespace = draw(st.sampled_from(["", "default"]))
        match draw(st.integers(0, 5)):
            case 0:
                operation.create = body
            case 1:
                operation.update = body
            case 2:
                operation.apply.object = body
                operation.apply.force = draw(st.booleans())
            case 3:
                operation.patch.merge.object = body
                operation.patch.merge.mask.paths.extend(draw(st.lists(PATHS, max_size=3)))
            case 4:
                name = draw(st.sampled_from(["json", "json_merge", "strategic"]))
                setattr(operation.patch, name, draw(PATCHES))
            case _:
                operation.delete.SetInParent()
    return request


def _encodes(text: str) -> bool:
    return errors.unicode(text) == text


PATHS = st.sampled_from(
    ["metadata.labels", "spec", "status", "metadata.name", "data", "spec.containers", "a[0]", ""]
)
POINTERS = st.sampled_from(
    [
        "",
        "/",
        "/metadata",
        "/metadata/labels",
        "/spec/containers/0",
        "/spec/containers/-",
        "/data/a",
    ]
) | TEXT.map(lambda text: f"/{text}")
STEPS = st.lists(
    st.fixed_dictionaries(
        {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "x"])},
        optional={"path": POINTERS, "from": POINTERS, "value": JSON},
    ),
    max_size=6,
)
PATCHES = (STEPS | JSON).map(json.dumps) | TEXT.filter(_encodes)


class Door:
    """The server's methods, in process, with one loop for all examples."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._stack = contextlib.AsyncExitStack()
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        clock, chance = SystemClock(), Chance(1)
        self.kernel = await self._stack.enter_async_context(
            kernel.opened(
                MemoryStore(chance), compiled(), admission.BY_KIND, clock, chance, codec=codec
            )
        )
        tasks = await self._stack.enter_async_context(Tasks())
        self.apiserver = Apiserver(self.kernel, tasks, clock, chance)
        namespace = compiled().kinds["kcore.core.v1.Namespace"]
        made = namespace.parse(b"")
        made.metadata.name = "default"
        request = pb.CommitRequest()
        operation = request.transactions.add().operations.add()
        operation.ref.kind, operation.create = namespace.name, made.SerializeToString()
        await self.apiserver.session(ADMIN).commit(request)

    def ask(self, path: str, body: bytes) -> bytes | None:
        """The answer; None where it was refused as it should be."""
        found = self.apiserver.services.find(path)
        assert found is not None
        call = Call(self.apiserver.session(ADMIN), self.apiserver.streams(ADMIN))
        answer: bytes | None = None
        with bounded(), contextlib.suppress(DecodeError):
            answer = self.loop.run_until_complete(found.serve(call, body))
        return answer

    def close(self) -> None:
        self.loop.run_until_complete(self._stack.aclose())
        self.loop.close()


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.close()


@fuzz
@given(request=commits(), data=st.data())
def test_p18_commit(door: Door, request: pb.CommitRequest, data: st.DataObject) -> None:
    body = request.SerializeToString()
    if data.draw(st.integers(0, 3)) == 0:
        body = data.draw(broken(body))
    answer = door.ask("/kcore.api.v1.ApiService/Commit", body)
    if answer is None:
        return
    for result in pb.CommitResponse.FromString(answer).results:
        # INTERNAL and UNKNOWN would be ours; UNAVAILABLE says a fault of ours, in a batch.
        assert result.error.code not in (2, 13, 14), result.error


@fuzz
@given(data=st.data())
def test_p18_every_method(door: Door, data: st.DataObject) -> None:
    path, asked = data.draw(st.sampled_from(METHODS))
    body = data.draw(messages(asked, 4)).SerializeToString()
    if data.draw(st.booleans()):
        body = data.draw(broken(body))
    door.ask(path, body)


def _methods() -> list[tuple[str, Any]]:
    found = []
    for service in ("ApiService", "AuthService"):
        for method in POOL.FindServiceByName(f"kcore.api.v1.{service}").methods:
            if method.name not in ("Watch", "Join"):
                found.append((f"/kcore.api.v1.{service}/{method.name}", method.input_type))
    for kind in KINDS:
        for name, asked in (
            ("Get", "Get"),
            ("List", "List"),
            ("Delete", "Delete"),
            ("Apply", "Write"),
        ):
            message = POOL.FindMessageTypeByName(f"kcore.api.v1.Typed{asked}Request")
            found.append((f"/{kind}Service/{name}", message))
    return found


METHODS = _methods()


@fuzz
@given(data=st.data())
def test_p18_json_codec(data: st.DataObject) -> None:
    descriptor = POOL.FindMessageTypeByName(data.draw(st.sampled_from(KINDS)))
    made: Message = data.draw(messages(descriptor, 5))
    with bounded():
        plain = codec.to_plain(made)
        assert codec.to_plain(codec.from_plain(descriptor, plain)) == plain
        # Somewhere in it is something else.
        where: Any = plain
        for _ in range(data.draw(st.integers(0, 4))):
            inner = [value for value in _values(where) if isinstance(value, dict | list)]
            if not inner:
                break
            where = data.draw(st.sampled_from(inner))
        if isinstance(where, dict):
            where[data.draw(st.sampled_from(sorted(where) or [""]) | TEXT)] = data.draw(JSON)
        else:
            where.append(data.draw(JSON))
        again = codec.from_plain(descriptor, plain)
        again.SerializeToString()


def _values(plain: Any) -> list[Any]:
    return list(plain.values()) if isinstance(plain, dict) else list(plain)


YAML = st.text(
    st.sampled_from("ab01:-{}[]&*!|>'\"#%@,?~.<=_\\ \n\t\0\x85\u2028\ufeff\U0001f600"), max_size=80
)


@fuzz
@given(YAML | JSON.map(json.dumps) | st.text(max_size=60))
def test_p18_yaml(text: str) -> None:
    with bounded():
        for one in document.read(text, "x.yaml"):
            for problem, place in one.problems:
                document.excerpt(one, place)
                assert str(problem)


@fuzz
@given(YAML | JSON.map(json.dumps), st.booleans())
def test_p18_kubeconfig(tmp_path_factory: pytest.TempPathFactory, text: str, within: bool) -> None:
    path = FOLDER / "config"
    if within:
        text = (
            f"current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n{text}"
        )
    path.write_bytes(text.encode(errors="replace"))
    with bounded(), contextlib.suppress(kubeconfig.Unusable):
        kubeconfig.target(kubeconfig.load([str(path)]), {}, socket="/none")


FOLDER = Path(os.environ.get("TMPDIR", "/tmp")) / f"kcore-fuzz-{os.getpid()}"


@pytest.fixture(scope="module", autouse=True)
def folder() -> Iterator[None]:
    FOLDER.mkdir(exist_ok=True)
    yield
    for path in FOLDER.iterdir():
        path.unlink()
    FOLDER.rmdir()


SELECTORS = st.text("ab=!(), inot\\/.<>-_\n\0é", max_size=60) | TEXT


@fuzz
@given(SELECTORS)
def test_p18_label_selectors(text: str) -> None:
    with bounded():
        parsed = selector.parse_labels(text)
        parsed.matches({"a": "b"})
        assert selector.parse_labels(str(parsed)) == parsed


@fuzz
@given(SELECTORS)
def test_p18_field_selectors(text: str) -> None:
    with bounded():
        parsed = selector.parse_fields(text, ["a", "metadata.name"])
        assert selector.parse_fields(str(parsed), ["a", "metadata.name"]) == parsed


@fuzz
@given(st.text("0123456789.eE+-KMGTPkmunEi", max_size=30) | TEXT)
def test_p18_quantities(text: str) -> None:
    parsers: tuple[Callable[[str], Any], ...] = (quantity.parse, quantity.milli, quantity.value)
    for parse in parsers:
        with bounded(), contextlib.suppress(ValueError):
            parse(text)


@fuzz
@given(PATCHES, st.sampled_from(["json", "json_merge", "strategic"]))
def test_p18_patches(door: Door, patch: str, sort: str) -> None:
    request = pb.CommitRequest(dry_run=True)
    operation = request.transactions.add().operations.add()
    operation.ref.kind, operation.ref.name = "kcore.core.v1.Namespace", "default"
    setattr(operation.patch, sort, patch)
    door.ask("/kcore.api.v1.ApiService/Commit", request.SerializeToString())


POD = "kcore.core.v1.Pod"
WORDS = st.lists(
    st.sampled_from(
        [
            "self",
            ".",
            "spec",
            "containers",
            "name",
            "==",
            "!",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            ":",
            "?",
            "all(",
            "exists(",
            "map(",
            "c",
            ",",
            "size(",
            "matches(",
            "'a'",
            '"(a+)+$"',
            "+",
            "-",
            "*",
            "/",
            "%",
            "&&",
            "||",
            "in",
            "true",
            "null",
            "1",
            "-9223372036854775808",
            "1.5",
            "1u",
            "b'x'",
            "has(",
            "timestamp(",
            "duration(",
            "quantity(",
            "sum(",
            "cel.bind(",
            "x",
            "nodeName",
            "node_name",
            "status",
            "old_self",
        ]
    ),
    max_size=14,
).map(" ".join)


@fuzz
@given(WORDS | TEXT)
def test_p18_cel_rules(text: str) -> None:
    with bounded():
        try:
            expression = ENGINE.compile(text, POD)
        except ValueError:
            return
        message = compiled().kinds[POD].parse(b"")
        value = expression.evaluate(expression.bind(message, message))
        assert isinstance(str(value), str)


ENGINE = cel.Engine(POOL)
