"""Uploads: kinds that come to a running cluster as Schema objects.

The Schema objects there are say, with the kinds that are built in, what is served: `served` makes
the one from the other, and is all that a replay needs. `settle` is for the writer: whether what a
transaction has made of them can be served, bounded, and read by what was there before. Each upload
is compiled in a pool of its own, beside our copies of google/protobuf and kcore.

Schemas are the kernel's own mechanism, so this file, and no other, knows the kind that they are.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.message import DecodeError
from kcore_api.kcore.api.v1 import schema_pb2
from kcore_api.kcore.meta.v1 import options_pb2

from kcore.kernel import compatible
from kcore.kernel.record import Key, Stored
from kcore.kernel.schema import (
    NAMESPACE,
    Faulty,
    Kind,
    Schema,
    Upload,
    compile_kinds,
    digest_of,
)
from kcore.kernel.view import View
from kcore.wire import cel, typed
from kcore.wire.errors import ApiError, Reason, Violation, invalid

SCHEMA: Final = "kcore.api.v1.Schema"

# What one Schema may weigh, and all of them: a client must be able to ask for all kinds.
UPLOAD_BYTES: Final = 1 << 20
ALL_BYTES: Final = 2 << 20
FILES: Final = 128
MESSAGES: Final = 2048
FIELDS: Final = 1024
KINDS: Final = 64
# They are compiled by the writer, about half a millisecond each.
EXPRESSIONS: Final = 256
EXPRESSION_BYTES: Final = 4096

# The same faults again and again help nobody.
_MOST_FAULTS: Final = 100

_File = descriptor_pb2.FileDescriptorProto
_FIELD: Final[Any] = options_pb2.field
_KIND: Final[Any] = options_pb2.kind
_RULES: Final[Any] = options_pb2.rules
_GROUP: Final[Any] = options_pb2.group

_VERSION: Final = re.compile(r"v[1-9][0-9]*((alpha|beta)[1-9][0-9]*)?\Z")
_LABEL: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_GROUP_NAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})+\Z")
_WORD: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_KIND_NAME: Final = re.compile(r"[A-Z][A-Za-z0-9]{0,62}\Z")
_RESERVED: Final = ("kcore", "google")
_WELL_KNOWN: Final = (
    any_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
# Needed to read what kinds say of themselves.
_OPTIONS: Final = ("google/protobuf/descriptor.proto", "kcore/meta/v1/options.proto")


def read(body: bytes) -> Upload:
    """What a Schema object says."""
    schema = schema_pb2.Schema.FromString(body)
    since = {one.name: one.since for one in schema.status.kinds}
    return Upload(schema.spec.descriptors, since)


def said(schemas: Iterable[Stored]) -> dict[str, Upload]:
    """What the Schema objects say, by name."""
    return {stored.key.name: read(stored.body) for stored in schemas}


def served(before: Schema, uploads: Mapping[str, Upload], revision: int) -> Schema:
    """The kinds built in and those of the uploads; `before`: what was served until `revision`.

    Raises `Faulty`, if there is one that `settle` has not seen.
    """
    if uploads == before.uploads:
        return before
    built_in = before.built_in or before
    kinds = dict(built_in.kinds)
    copies = _copies(built_in.descriptors)
    brought: dict[str, _File] = {}
    for name, upload in sorted(uploads.items()):
        known = before.uploads.get(name) == upload
        for kind in _compiled(built_in.descriptors, upload.descriptors).values():
            since = upload.since.get(kind.name, revision)
            if known and kind.name in before.kinds:
                kinds[kind.name] = before.kinds[kind.name]
            else:
                kinds[kind.name] = dataclasses.replace(kind, since=since)
        own = _own(_files(upload.descriptors), copies)
        for file in _needed(own, copies).values():
            brought.setdefault(file.name, file)
    there = {file.name for file in _files(built_in.descriptors).values()}
    added = descriptor_pb2.FileDescriptorSet(
        file=[file for name, file in sorted(brought.items()) if name not in there]
    )
    # Sets of files one after another are one set.
    descriptors = built_in.descriptors + added.SerializeToString(deterministic=True)
    return Schema(
        descriptors=descriptors,
        digest=digest_of(descriptors),
        kinds=dict(sorted(kinds.items())),
        uploads=dict(uploads),
        revision=revision,
        built_in=built_in,
    )


def describe(schema: Any, old: Any, before: Schema, revision: int, seconds: int) -> None:
    """Writes a Schema's status: what will be served of it."""
    files = _files(schema.spec.descriptors)
    own = _own(files, _copies((before.built_in or before).descriptors))
    since = seconds
    if old is not None and old.status.conditions:
        since = old.status.conditions[0].last_transition_time.seconds
    schema.status.Clear()
    for file, message in _kinds(own.values()):
        name = f"{file.package}.{message.name}"
        known = before.kinds.get(name)
        group, version = file.options.Extensions[_GROUP], file.package.rpartition(".")[2]
        schema.status.kinds.add(
            name=name,
            api_version=f"{group}/{version}",
            kind=message.name,
            plural=message.options.Extensions[_KIND].plural,
            since=known.since if known is not None else revision,
        )
    condition = schema.status.conditions.add(type="Accepted", status="True", reason="Served")
    condition.message = f"{len(schema.status.kinds)} kinds are served"
    condition.last_transition_time.seconds = since


def check(kind: Kind, name: str, descriptors: bytes, before: Schema) -> None:
    """Refuses descriptors that can't be read or bounded, whatever else there is."""
    built_in = before.built_in or before
    faults = list(_bounds(descriptors, built_in))
    if faults:
        raise _refused(kind, name, faults)


def settle(
    kind: Kind, before: View, after: View, names: Sequence[str], revision: int
) -> Schema | None:
    """The kinds after a transaction that has changed these Schemas; None: they are what they were.

    Raises ApiError where they can't be served: all that is wrong, naming file, message and field.
    """
    schema = before.schema
    uploads = dict(schema.uploads)
    for name in names:
        stored = after.get(Key(SCHEMA, "", name))
        if stored is None:
            uploads.pop(name, None)
            continue
        uploads[name] = read(stored.body)
        if stored.deleting:
            _check_unused(kind, name, uploads[name].since, before, after)
    if uploads == schema.uploads:
        return None
    for name in names:
        if name not in uploads and name in schema.uploads:
            moved = {one for upload in uploads.values() for one in upload.since}
            gone = [one for one in schema.uploads[name].since if one not in moved]
            _check_unused(kind, name, gone, before, after)
    changed = [name for name in names if name in uploads]
    faults = _faults(schema, uploads, changed)
    for name in changed:
        if faults.get(name):
            raise _refused(kind, name, faults[name])
    whole = served(schema, uploads, revision)
    if len(whole.descriptors) - len((schema.built_in or schema).descriptors) > ALL_BYTES:
        said = f"all Schemas together may have {ALL_BYTES} bytes of descriptors"
        raise ApiError(Reason.EXHAUSTED, said)
    for name in changed:
        again = list(_claims(schema, whole, uploads[name], after))
        if again:
            raise _refused(kind, name, again)
    return whole


def _check_unused(kind: Kind, name: str, names: Iterable[str], before: View, after: View) -> None:
    """Refuses that kinds vanish of which there are objects."""
    left = []
    for one in sorted(names):
        served_kind = before.schema.kinds.get(one)
        count = max(before.count(one), after.count(one))
        if served_kind is not None and count:
            left.append(f"{count} {served_kind.resource}")
    if left:
        subject = f'{kind.resource} "{name}"'
        said = f"{subject} cannot be deleted while there are objects of its kinds: "
        raise ApiError(Reason.REFUSED, said + ", ".join(left))


def _claims(before: Schema, after: Schema, upload: Upload, state: View) -> Iterator[str]:
    """Claims may change only while nobody has made any."""
    for name in upload.since:
        old, new = before.kinds.get(name), after.kinds.get(name)
        if old is None or new is None or not state.count(name):
            continue
        made = [[(one.at.text, one.pool) for one in kind.claims] for kind in (old, new)]
        if made[0] != made[1]:
            yield f"{name}: its claims can't change while there are {old.plural}"


def _refused(kind: Kind, name: str, faults: Sequence[str]) -> ApiError:
    shown = list(faults[:_MOST_FAULTS])
    if len(faults) > len(shown):
        shown.append(f"and {len(faults) - len(shown)} more faults")
    return invalid(kind.subject(name), [Violation("spec.descriptors", one) for one in shown])


# Files.


@functools.lru_cache(maxsize=8)
def _files(descriptors: bytes) -> Mapping[str, _File]:
    found = descriptor_pb2.FileDescriptorSet.FromString(descriptors).file
    return {file.name: file for file in found}


@functools.lru_cache(maxsize=2)
def _copies(built_in: bytes) -> Mapping[str, _File]:
    """Our own files, and the well-known ones: whoever brings them is given these."""
    copies = {
        one.DESCRIPTOR.name: _File.FromString(one.DESCRIPTOR.serialized_pb) for one in _WELL_KNOWN
    }
    return copies | dict(_files(built_in))


def _own(files: Mapping[str, _File], copies: Mapping[str, _File]) -> dict[str, _File]:
    return {name: file for name, file in files.items() if name not in copies}


def _needed(own: Mapping[str, _File], copies: Mapping[str, _File]) -> dict[str, _File]:
    """The files, and those of our copies that they import."""
    needed: dict[str, _File] = {}
    waiting = [*own, *_OPTIONS]
    while waiting:
        name = waiting.pop()
        file = own.get(name) or copies.get(name)
        if file is not None and name not in needed:
            needed[name] = file
            waiting += file.dependency
    return needed


def _kinds(files: Iterable[_File]) -> Iterator[tuple[_File, descriptor_pb2.DescriptorProto]]:
    for file in files:
        for message in file.message_type:
            if message.options.HasExtension(_KIND):
                yield file, message


def _is_foreign(name: str) -> bool:
    """Whether a message is not one of ours."""
    return name.partition(".")[0] not in _RESERVED


@functools.lru_cache(maxsize=8)
def _compiled(built_in: bytes, descriptors: bytes) -> Mapping[str, Kind]:
    copies = _copies(built_in)
    own = _own(_files(descriptors), copies)
    try:
        return compile_kinds(_needed(own, copies), own, _is_foreign)
    except RecursionError:
        raise Faulty(["messages hold one another too deeply"]) from None


# Faults.


def _faults(
    schema: Schema, uploads: Mapping[str, Upload], changed: Sequence[str]
) -> dict[str, list[str]]:
    """What is wrong with the changed uploads, by name."""
    built_in = schema.built_in or schema
    copies = _copies(built_in.descriptors)
    faults: dict[str, list[str]] = {name: [] for name in changed}
    files = {name: _own(_files(one.descriptors), copies) for name, one in uploads.items()}
    for name in changed:
        own = files[name]
        homes = {message: placed.file.name for message, placed in _messages(own).items()}
        others = {other: theirs for other, theirs in files.items() if other != name}
        faults[name] += _clashes(own, others, built_in)
        try:
            compiled = _compiled(built_in.descriptors, uploads[name].descriptors)
        except Faulty as error:
            faults[name] += (_placed(fault, homes) for fault in error.faults)
            continue
        faults[name] += (_placed(fault, homes) for fault in _columns(own, compiled))
        for kind in compiled.values():
            if typed.file_name(kind.message.DESCRIPTOR) in own:
                said = f"{kind.name}: the file of its typed service is there already"
                faults[name].append(_placed(said, homes))
        known = {*built_in.kinds, *(one for other in uploads.values() for one in other.since)}
        for kind in compiled.values():
            if kind.parent and kind.parent not in known and kind.parent != NAMESPACE:
                said = f"{kind.name}: its parent {kind.parent} is not a kind"
                faults[name].append(_placed(said, homes))
    for name, said in _broken(schema, files, copies):
        if name in faults:
            faults[name].append(said)
    return faults


def _broken(
    schema: Schema, files: Mapping[str, Mapping[str, _File]], copies: Mapping[str, _File]
) -> Iterator[tuple[str, str]]:
    """(name of the upload, what it breaks of those before)."""
    old: dict[str, _File] = {}
    for name, upload in schema.uploads.items():
        own = _own(_files(upload.descriptors), copies)
        old |= own
        if name in files:
            there = {f"{file.package}.{one.name}" for file, one in _kinds(_all(files).values())}
            for file, message in _kinds(own.values()):
                full_name = f"{file.package}.{message.name}"
                if full_name not in there:
                    yield name, f"{file.name}: {full_name}: the kind was removed"
    homes = {file: name for name, own in files.items() for file in own}
    for file_name, said in compatible.breaks(old, _all(files)):
        yield homes[file_name], f"{file_name}: {said}"


def _all(files: Mapping[str, Mapping[str, _File]]) -> dict[str, _File]:
    return {file: proto for own in files.values() for file, proto in own.items()}


def _messages(files: Mapping[str, _File]) -> dict[str, compatible.Placed]:
    return compatible.messages(files.values())


def _placed(fault: str, homes: Mapping[str, str]) -> str:
    """The fault, with the file before it."""
    about = fault.partition(":")[0]
    while about:
        if about in homes:
            return f"{homes[about]}: {fault}"
        about = about.rpartition(".")[0]
    return fault


def _bounds(descriptors: bytes, built_in: Schema) -> Iterator[str]:
    """What can't be read or is too much of something; and what our kinds can't be made of."""
    if len(descriptors) > UPLOAD_BYTES:
        yield f"{len(descriptors)} bytes: at most {UPLOAD_BYTES} are allowed"
        return
    try:
        given = descriptor_pb2.FileDescriptorSet.FromString(descriptors).file
    except DecodeError as error:
        yield f"not a google.protobuf.FileDescriptorSet: {error}"
        return
    if any(map(_has_bytes, given)):
        yield "a name or a comment in it is not UTF-8"
        return
    copies = _copies(built_in.descriptors)
    own = [file for file in given if file.name not in copies]
    for file in own:
        if len(set(file.dependency)) < len(file.dependency):
            yield f"{file.name}: imports a file twice"
        if sum(one.name == file.name for one in own) > 1:
            yield f"{file.name}: is there twice"
    messages = compatible.messages(own)
    expressions = sum(map(_expressions, (placed.proto for placed in messages.values())))
    for count, most, what in (
        (len(own), FILES, "files"),
        (len(messages), MESSAGES, "messages"),
        (len(list(_kinds(own))), KINDS, "kinds"),
        (expressions, EXPRESSIONS, "rules, defaults, columns and other expressions"),
    ):
        if count > most:
            yield f"{count} {what}: at most {most} are allowed"
    if not any(_kinds(own)):
        yield "no message in it has the option kcore.meta.v1.kind"
    for file in own:
        yield from (f"{file.name}: {fault}" for fault in _file(file))
    for name, (file, message) in messages.items():
        yield from (f"{file.name}: {fault}" for fault in _message(name, message))
    for file, message in _kinds(own):
        name = f"{file.package}.{message.name}"
        yield from (f"{file.name}: {name}: {fault}" for fault in _kind(file, message))


def _has_bytes(message: Any) -> bool:
    """Whether there is text in it that isn't: of descriptors' own text nobody has made sure."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            if any(type(one) is bytes for one in (value if field.is_repeated else (value,))):
                return True
        elif field.message_type is not None and any(
            map(_has_bytes, value if field.is_repeated else (value,))
        ):
            return True
    return False


def _expressions(message: descriptor_pb2.DescriptorProto) -> int:
    kind: Any = message.options.Extensions[_KIND]
    conditions = sum(bool(one.when) for one in (*kind.immutable, *kind.claims))
    rules = (*kind.rules, *message.options.Extensions[_RULES])
    said = sum(1 + bool(rule.message_expression) for rule in rules)
    defaults: int = sum(bool(field.options.Extensions[_FIELD].default) for field in message.field)
    shown = len(kind.columns) + 2 * kind.HasField("graceful")
    return int(conditions + said + defaults + shown)


def _file(file: _File) -> Iterator[str]:
    if file.package.partition(".")[0] in _RESERVED:
        yield f'the package "{file.package}" is reserved'
    if not file.package:
        yield "it has no package"
    if file.syntax != "proto3":
        yield f'its syntax is "{file.syntax or "proto2"}": only proto3 is understood'
    if any(_kinds([file])):
        group, version = file.options.Extensions[_GROUP], file.package.rpartition(".")[2]
        if not _GROUP_NAME.match(group):
            yield f'option (kcore.meta.v1.group) is "{group}": it must be a domain, "acme.dev"'
        if group == "kcore.dev" or group.endswith((".kcore.dev", ".k8s.io")):
            yield f'the group "{group}" is reserved'
        if not _VERSION.match(version):
            yield f'the package "{file.package}" does not end in a version, "acme.v1"'


def _message(name: str, message: descriptor_pb2.DescriptorProto) -> Iterator[str]:
    types = descriptor_pb2.FieldDescriptorProto
    if len(message.field) > FIELDS:
        yield f"{name}: {len(message.field)} fields: at most {FIELDS} are allowed"
    if message.options.map_entry and [
        (field.name, field.number, field.label == types.LABEL_OPTIONAL) for field in message.field
    ] != [("key", 1, True), ("value", 2, True)]:
        yield f"{name}: is no entry of a map"
    seen: dict[str, str] = {}
    for field in message.field:
        where = f"{name}.{field.name}"
        if field.type == types.TYPE_GROUP or field.label == types.LABEL_REQUIRED:
            yield f"{where}: groups and required fields are not understood"
        single = field.label == types.LABEL_OPTIONAL and field.type != types.TYPE_MESSAGE
        present = field.proto3_optional or field.HasField("oneof_index")
        if single and not present and not message.options.map_entry:
            yield f"{where}: must be `optional`: apply tells by its presence what is wanted"
        for word in {field.name, compatible.json_name(field)}:
            other = seen.setdefault(word, field.name)
            if other != field.name:
                yield f'{where}: its JSON name "{word}" is also that of {other}'
        default = field.options.Extensions[_FIELD].default
        if len(default) > EXPRESSION_BYTES:
            yield f"{where}: an expression may have {EXPRESSION_BYTES} bytes"
    kind = message.options.Extensions[_KIND]
    for rule in (*kind.rules, *message.options.Extensions[_RULES]):
        if max(len(rule.expression), len(rule.message_expression)) > EXPRESSION_BYTES:
            yield f"{name}: an expression may have {EXPRESSION_BYTES} bytes"


def _kind(file: _File, message: descriptor_pb2.DescriptorProto) -> Iterator[str]:
    kind = message.options.Extensions[_KIND]
    if not _KIND_NAME.match(message.name):
        yield "a kind is called in CamelCase"
    for what, words in (
        ("plural", [kind.plural]),
        ("singular", [kind.singular] if kind.singular else []),
        ("short name", kind.short_names),
        ("category", kind.categories),
    ):
        for word in words:
            if not _WORD.match(word):
                yield f'its {what} "{word}" is not made of lower-case letters, digits and dashes'
    for field in message.field:
        one = field.label == field.LABEL_OPTIONAL and field.type == field.TYPE_MESSAGE
        if field.name == "status" and (field.number != 3 or not one):
            yield "status is one message, with the number 3"
        if field.name == "metadata" and not one:
            yield "a kind has kcore.meta.v1.ObjectMeta metadata = 1"
        if (field.number == 1) != (field.name == "metadata"):
            yield "a kind has kcore.meta.v1.ObjectMeta metadata = 1"
    for claim in kind.claims:
        if not claim.pool:
            yield f"the claim of {claim.path} names no pool"
    if kind.history.ttl_seconds < 0:
        yield "history.ttl_seconds is negative"


def _clashes(
    own: Mapping[str, _File], others: Mapping[str, Mapping[str, _File]], built_in: Schema
) -> Iterator[str]:
    """What is there already, under the same name."""
    taken: dict[str, str] = {}
    there = _files(built_in.descriptors)
    for name, files in (("the cluster itself", there), *others.items()):
        for file in files.values():
            for symbol in _symbols(file):
                taken.setdefault(symbol, f"{file.name} of {name}")
    for file in own.values():
        for name, files in others.items():
            if file.name in files and files[file.name] != file:
                yield f"{file.name}: another file of this name is in Schema {name}"
        same = any(files.get(file.name) == file for files in others.values())
        for symbol in () if same else sorted(_symbols(file)):
            if symbol in taken:
                yield f"{file.name}: {symbol}: is already in {taken[symbol]}"
    made = {symbol for file in own.values() for symbol in _symbols(file, typed_too=False)}
    for file, message in _kinds(own.values()):
        for name in _typed(file, message):
            if name in made:
                said = "it is the name of something that belongs to the kind's typed service"
                yield f"{file.name}: {name}: {said}"
    yield from _shadows(own, others, built_in)


def _shadows(
    own: Mapping[str, _File], others: Mapping[str, Mapping[str, _File]], built_in: Schema
) -> Iterator[str]:
    """Kinds that would be found in the place of others."""
    # By what people type: alone, of those built in; with the group, of all.
    words: dict[str, str] = {}
    types: dict[tuple[str, str, str], str] = {}
    for file, message in _kinds(there for there in _files(built_in.descriptors).values()):
        name = f"{file.package}.{message.name}"
        words |= dict.fromkeys(_words(message), name)
        types[_api_type(file, message)] = name
    in_group: dict[tuple[str, str], str] = {}
    for files in others.values():
        for file, message in _kinds(files.values()):
            name = f"{file.package}.{message.name}"
            types[_api_type(file, message)] = name
            for word in _words(message):
                in_group[file.options.Extensions[_GROUP], word] = name
    for file, message in _kinds(own.values()):
        name = f"{file.package}.{message.name}"
        group = file.options.Extensions[_GROUP]
        other = types.setdefault(_api_type(file, message), name)
        if other != name:
            yield f"{file.name}: {name}: {other} is already this kind of this apiVersion"
        for word in sorted(_words(message)):
            other = words.get(word) or in_group.setdefault((group, word), name)
            if other != name:
                yield f'{file.name}: {name}: "{word}" is already what {other} is called'


def _words(message: descriptor_pb2.DescriptorProto) -> set[str]:
    kind = message.options.Extensions[_KIND]
    return {kind.plural, kind.singular, message.name.lower(), *kind.short_names} - {""}


def _api_type(file: _File, message: descriptor_pb2.DescriptorProto) -> tuple[str, str, str]:
    return file.options.Extensions[_GROUP], file.package.rpartition(".")[2], message.name


def _symbols(file: _File, typed_too: bool = True) -> set[str]:
    """Full names of what is at the top of a file, and of what its kinds' services bring."""
    named: list[Any] = [*file.message_type, *file.enum_type, *file.service, *file.extension]
    found = {f"{file.package}.{one.name}" for one in named}
    if typed_too:
        for one, message in _kinds([file]):
            found |= _typed(one, message)
    return found


def _typed(file: _File, message: descriptor_pb2.DescriptorProto) -> set[str]:
    name = f"{file.package}.{message.name}"
    return {typed.service_name(name), *(f"{name}{word}" for word in typed.MESSAGES)}


def _columns(own: Mapping[str, _File], compiled: Mapping[str, Kind]) -> Iterator[str]:
    """Columns are the client's to show; here they are only tried."""
    for file, message in _kinds(own.values()):
        kind: Any = compiled[f"{file.package}.{message.name}"]
        engine = cel.Engine(kind.message.DESCRIPTOR.file.pool, timed=True)
        for column in message.options.Extensions[_KIND].columns:
            try:
                engine.compile(column.value, kind.name)
            except ValueError as error:
                yield str(error)
