"""The schema: what kinds there are, learned from descriptors.

`compile_schema(descriptors)` takes a FileDescriptorSet as bytes and gives a `Schema`: a descriptor
pool of its own, the message classes, and for every message with the option `kind` a `Kind`, whose
expressions, paths and constraints are compiled. `compile_kinds(files, own)` is what it is made of,
for those who have the files already (kcore/kernel/upload.py). A schema never changes; new
descriptors make a new one, and no message may go from one pool to another: bytes do.

This is where options.proto is understood. Nothing here knows a kind by name, but for the one that
namespaces are by default.
"""

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from kcore.kernel import format, mask, path, shape
from kcore.wire import cel
from kcore.wire.errors import ApiError, Reason

# The parent of namespaced kinds that name no other.
NAMESPACE: Final = "kcore.core.v1.Namespace"

_METADATA: Final = "kcore.meta.v1.ObjectMeta"
_CLUSTER: Final = 1
_STATUS_NUMBER: Final = 3


@dataclass(frozen=True, slots=True)
class Rule:
    """A relation that must hold for the whole object."""

    condition: cel.Expression
    message: str
    message_words: cel.Expression | None
    # Where it is said to be broken.
    at: str


@dataclass(frozen=True, slots=True)
class Immutable:
    """A path that may not change."""

    at: path.Path
    excepted: tuple[path.Path, ...]
    when: cel.Expression | None
    from_creation: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """A unique value, given or drawn."""

    at: path.Path
    pool: str
    when: cel.Expression | None
    given_only: bool
    # A list that holds the same value and nothing else.
    also: path.Path | None = None


@dataclass(frozen=True, slots=True)
class Subresource:
    """A door of its own to a part of the object."""

    name: str
    paths: tuple[path.Path, ...]
    mask: mask.Mask
    exclusive: bool


@dataclass(frozen=True, slots=True)
class Graceful:
    """Deletion that waits to be confirmed."""

    seconds: cel.Expression
    immediate: cel.Expression | None


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One kind, compiled."""

    name: str
    # "Deployment"; "apps"; "v1"; "deployments".
    short_name: str
    group: str
    version: str
    plural: str
    namespaced: bool
    # Kind of the object called as the namespace, without which there can be none of this; or "".
    parent: str
    message: Any
    # The message with its defaults and constraints; and its fields that hold one message each.
    top: shape.Shape
    parts: tuple[shape.Part, ...]
    judge_name: Callable[[str], str]
    has_status: bool
    # Top-level fields, with whether they can be unset; and those whose change is a new generation.
    fields: tuple[FieldDescriptor, ...]
    field_names: frozenset[str]
    presence: tuple[tuple[str, bool], ...]
    generation_fields: frozenset[str]
    # Gives an expression over the kind that is always true.
    anything: Callable[[], cel.Expression]
    rules: tuple[Rule, ...]
    delete_rules: tuple[Rule, ...]
    immutable: tuple[Immutable, ...]
    # Selectable paths, and how each is read.
    selectable: tuple[tuple[str, Callable[[Any], str]], ...]
    claims: tuple[Claim, ...]
    subresources: Mapping[str, Subresource]
    graceful: Graceful | None
    # How many old revisions of one object are kept; None: as many as retention allows.
    keep_revisions: int | None
    # Seconds that an object lasts without being written; 0: for ever.
    ttl_seconds: int
    # The revision since which it is served: what is older is not of this kind. 0: always.
    since: int = 0

    @property
    def selectable_paths(self) -> tuple[str, ...]:
        """What a field selector may name."""
        return tuple(text for text, _ in self.selectable)

    @property
    def resource(self) -> str:
        """As errors name it: "pods", "deployments.apps"."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """As manifests name it: "v1", "apps/v1"."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def subject(self, name: str) -> str:
        """An object, as errors about its content name it: 'Deployment.apps "web"'."""
        kind = f"{self.short_name}.{self.group}" if self.group else self.short_name
        return f'{kind} "{name}"'

    def bind(self, message: Any, old: Any = None) -> Any:
        """What all expressions over the kind can be evaluated on."""
        return self.anything().bind(message, old)

    def parse(self, body: bytes) -> Any:
        """The message that the kernel wrote as these bytes."""
        return self.message.FromString(body)


@dataclass(frozen=True, slots=True)
class Upload:
    """What a Schema object says."""

    # The FileDescriptorSet as it was given.
    descriptors: bytes
    # By the full name of a kind: the revision since which it is served.
    since: Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """All kinds that are served."""

    # The FileDescriptorSet, and its digest.
    descriptors: bytes
    digest: str
    kinds: Mapping[str, Kind]
    # By name: the Schema objects that some of them come from; and their last change.
    uploads: Mapping[str, Upload] = field(default_factory=dict)
    revision: int = 0
    # The kinds without them; None: these are they.
    built_in: "Schema | None" = None

    def kind(self, name: str) -> Kind:
        """The kind of this full name."""
        found = self.kinds.get(name)
        if found is None:
            raise ApiError(Reason.NOT_FOUND, f'no matches for kind "{name}"')
        return found


class Faulty(ValueError):
    """Descriptors that can't be served; each fault begins with what it is about."""

    def __init__(self, faults: Iterable[str]) -> None:
        """`faults`: at least one."""
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


def compile_schema(descriptors: bytes, *, proven: bool = False) -> Schema:
    """The schema that a FileDescriptorSet says. `Faulty` names all that is wrong with it.

    `proven`: its expressions are known to be good, as those of the kinds that kcore ships, and are
    compiled when they are first needed: it takes a tenth of the time.
    """
    given = descriptor_pb2.FileDescriptorSet.FromString(descriptors).file
    files = {file.name: file for file in given}
    compiled = compile_kinds(files, files, proven=proven)
    faults = [
        f"{kind.name}: its parent {kind.parent} is not a kind"
        for kind in compiled.values()
        if kind.parent and kind.parent not in compiled and kind.parent != NAMESPACE
    ]
    if faults:
        raise Faulty(faults)
    return Schema(descriptors, digest_of(descriptors), compiled)


def digest_of(descriptors: bytes) -> str:
    """Tells descriptors apart, for those who have a copy."""
    return hashlib.sha256(descriptors).hexdigest()[:32]


def compile_kinds(
    files: Mapping[str, descriptor_pb2.FileDescriptorProto],
    own: Iterable[str],
    wary: Callable[[str], bool] = lambda _: False,
    *,
    proven: bool = False,
) -> dict[str, Kind]:
    """The kinds in those of the files that are `own`, by full name; `Faulty` where it can't be.

    `wary`: of which message types the expressions are anybody's, and have a price. `proven`: all
    expressions are known to be good.
    """
    pool = _pool(files)
    options = _Options(pool)
    engine = cel.Engine(pool, wary=wary, late=proven)
    names = sorted(
        f"{files[name].package}.{message.name}".lstrip(".")
        for name in own
        for message in files[name].message_type
    )
    found = [(one, options.kind(one)) for one in map(pool.FindMessageTypeByName, names)]
    kinds = [(message, definition) for message, definition in found if definition is not None]
    faults: list[str] = []
    compiler = shape.Shapes(engine, options.field, options.rules, faults)
    shapes = compiler.of(message for message, _ in kinds)
    compiled: dict[str, Kind] = {}
    for message, definition in kinds:
        name = message.full_name
        with _noted(faults):
            # What the runtime of expressions can't read, other programs can't either.
            engine.compile("self.metadata.name", name)
            compiled[name] = _kind(
                message, definition, shapes[name], compiler, engine, options, faults
            )
    if faults:
        raise Faulty(faults)
    return compiled


@contextlib.contextmanager
def _noted(faults: list[str]) -> Iterator[None]:
    """Notes a fault, so that all are found at once."""
    try:
        yield
    except ValueError as error:
        faults.append(str(error))


def _pool(files: Mapping[str, descriptor_pb2.FileDescriptorProto]) -> DescriptorPool:
    pool = DescriptorPool()
    # Options are messages of descriptor.proto: to read ours, the pool must have its own copy.
    own = descriptor_pb2.DESCRIPTOR
    if own.name not in files:
        copy = descriptor_pb2.FileDescriptorProto.FromString(own.serialized_pb)
        files = {**files, own.name: copy}
    added: set[str] = set()

    def add(name: str, importer: str) -> None:
        if name in added:
            return
        added.add(name)
        if name not in files:
            raise Faulty([f"{importer}: imports {name}, which is not there"])
        for dependency in files[name].dependency:
            add(dependency, name)
        try:
            pool.Add(files[name])
        except TypeError as error:
            raise Faulty([f"{name}: {error}"]) from None

    for name in sorted(files):
        add(name, name)
    return pool


class _Options:
    """Reads our options.

    The default pool's classes parse a descriptor's options and don't know our extensions: they are
    parsed again by this pool's own classes.
    """

    def __init__(self, pool: DescriptorPool) -> None:
        def option_class(name: str) -> Any:
            return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))

        self._file_class = option_class("google.protobuf.FileOptions")
        self._message_class = option_class("google.protobuf.MessageOptions")
        self._field_class = option_class("google.protobuf.FieldOptions")
        self._group = pool.FindExtensionByName("kcore.meta.v1.group")
        self._kind = pool.FindExtensionByName("kcore.meta.v1.kind")
        self._rules = pool.FindExtensionByName("kcore.meta.v1.rules")
        self._field = pool.FindExtensionByName("kcore.meta.v1.field")

    def kind(self, descriptor: Descriptor) -> Any:
        """The message's kcore.meta.v1.Kind; None where it is no kind."""
        options = self._message_class.FromString(descriptor.GetOptions().SerializeToString())
        return options.Extensions[self._kind] if options.HasExtension(self._kind) else None

    def rules(self, descriptor: Descriptor) -> Iterable[Any]:
        """The message's own rules."""
        options = self._message_class.FromString(descriptor.GetOptions().SerializeToString())
        rules: Iterable[Any] = options.Extensions[self._rules]
        return rules

    def field(self, descriptor: FieldDescriptor) -> Any:
        """The field's kcore.meta.v1.Field."""
        options = self._field_class.FromString(descriptor.GetOptions().SerializeToString())
        return options.Extensions[self._field]

    def group(self, descriptor: Descriptor) -> str:
        """The group of a message's file."""
        options = self._file_class.FromString(descriptor.file.GetOptions().SerializeToString())
        return str(options.Extensions[self._group])


def _kind(
    descriptor: Descriptor,
    definition: Any,
    top: shape.Shape,
    compiler: shape.Shapes,
    engine: cel.Engine,
    options: _Options,
    faults: list[str],
) -> Kind:
    name = descriptor.full_name
    metadata = descriptor.fields_by_name.get("metadata")
    if metadata is None or metadata.number != 1 or metadata.message_type is None:
        raise ValueError(f"{name}: a kind has {_METADATA} metadata = 1")
    if metadata.message_type.full_name != _METADATA:
        raise ValueError(f"{name}: a kind has {_METADATA} metadata = 1")
    if not definition.plural:
        raise ValueError(f"{name}: a kind has a plural")
    status = descriptor.fields_by_name.get("status")
    has_status = status is not None and status.number == _STATUS_NUMBER
    namespaced = definition.scope != _CLUSTER
    if definition.parent and not namespaced:
        raise ValueError(f"{name}: only a namespaced kind has a parent")
    judge_name = format.TEXTS.get(definition.name_format or "dns-subdomain")
    if judge_name is None:
        raise ValueError(f"{name}: no format {definition.name_format!r} of names")

    def compiled(text: str) -> cel.Expression | None:
        with _noted(faults):
            return engine.compile(text, name) if text else None
        return None

    def compiled_path(text: str) -> path.Path | None:
        try:
            return path.compile_path(descriptor, text)
        except ValueError as error:
            faults.append(f"{name}: {error}")
            return None

    def rules(on_delete: bool) -> Iterator[Rule]:
        for rule in definition.rules:
            if rule.on_delete != on_delete:
                continue
            said = rule.message or f"must hold: {rule.expression}"
            words = compiled(rule.message_expression)
            with _noted(faults):
                yield Rule(engine.compile_condition(rule.expression, name), said, words, rule.path)

    def immutable() -> Iterator[Immutable]:
        for one in definition.immutable:
            frozen = compiled_path(one.path)
            excepted = [compiled_path(f"{one.path}.{below}") for below in getattr(one, "except")]
            when = compiled(one.when)
            if frozen is not None:
                left = tuple(path for path in excepted if path is not None)
                yield Immutable(frozen, left, when, one.from_creation)

    def selectable() -> Iterator[tuple[str, Callable[[Any], str]]]:
        for text in definition.selectable:
            other_name, _, at = text.rpartition("=")
            found = compiled_path(at)
            if found is not None:
                with _noted(faults):
                    yield other_name or found.text, path.reader(found)

    def claims() -> Iterator[Claim]:
        for one in definition.claims:
            found = compiled_path(one.path)
            when = compiled(one.when)
            also = compiled_path(one.also) if one.also else None
            if found is not None:
                yield Claim(found, one.pool, when, one.given_only, also)

    def subresources() -> Iterator[Subresource]:
        if has_status:
            yield _subresource(descriptor, "status", ["status"], False)
        for one in definition.subresources:
            if None not in [compiled_path(text) for text in one.paths]:
                yield _subresource(descriptor, one.name, one.paths, one.exclusive)

    graceful = None
    if definition.HasField("graceful"):
        seconds = engine.compile(definition.graceful.seconds, name)
        graceful = Graceful(seconds, compiled(definition.graceful.immediate))
    kept = definition.history.revisions
    return Kind(
        name=name,
        short_name=descriptor.name,
        group=options.group(descriptor),
        version=descriptor.file.package.rpartition(".")[2],
        plural=definition.plural,
        namespaced=namespaced,
        parent=(definition.parent or NAMESPACE) if namespaced else "",
        message=message_factory.GetMessageClass(descriptor),
        top=top,
        parts=compiler.parts(top),
        judge_name=judge_name,
        has_status=has_status,
        fields=tuple(descriptor.fields),
        field_names=frozenset(field.name for field in descriptor.fields),
        presence=tuple((field.name, field.has_presence) for field in descriptor.fields),
        generation_fields=frozenset(
            field.name
            for field in descriptor.fields
            if field.name != "metadata" and not (has_status and field.name == "status")
        ),
        anything=functools.cache(functools.partial(engine.compile, "true", name)),
        rules=tuple(rules(False)),
        delete_rules=tuple(rules(True)),
        immutable=tuple(immutable()),
        selectable=tuple(selectable()),
        claims=tuple(claims()),
        subresources={one.name: one for one in subresources()},
        graceful=graceful,
        keep_revisions=None if kept == 0 else max(kept, 0),
        ttl_seconds=definition.history.ttl_seconds,
    )


def _subresource(
    descriptor: Descriptor, name: str, paths: Iterable[str], exclusive: bool
) -> Subresource:
    compiled = tuple(path.compile_path(descriptor, text) for text in paths)
    proto_names = [".".join(field.name for field in one.fields) for one in compiled]
    return Subresource(name, compiled, mask.compile_mask(descriptor, proto_names), exclusive)
