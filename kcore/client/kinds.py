"""The catalogue of kinds: what can be asked for, and by which words.

`Catalogue(descriptors)` reads the options of every message of a FileDescriptorSet; it makes a pool
of its own, so kinds uploaded at run time are like those built in. `resolve` understands what people
type: `pods`, `po`, `pod`, `Pod`, `deployments.apps`, `deployments.v1.apps`, `svc,po`, `all`;
`of_type` what manifests say: apiVersion and kind. `fetch(api)` gives the server's catalogue, built
from our own copy where the server says that it is the same.
"""

import functools
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

import kcore_api
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.meta.v1 import options_pb2

from kcore.client import options
from kcore.client.problem import meant
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One kind."""

    # Full name of its message: "kcore.apps.v1.Deployment".
    full_name: str
    group: str
    version: str
    # "Deployment".
    name: str
    descriptor: Descriptor = field(repr=False)
    options: options_pb2.Kind = field(repr=False)

    @property
    def api_version(self) -> str:
        """ "apps/v1", "v1"."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """ "deployments.apps", "pods"."""
        return f"{self.options.plural}.{self.group}" if self.group else self.options.plural

    @property
    def singular_resource(self) -> str:
        """ "deployment.apps", "pod": before a slash and a name."""
        return f"{self.options.singular}.{self.group}" if self.group else self.options.singular

    @property
    def namespaced(self) -> bool:
        """Whether its objects live in a namespace."""
        return self.options.scope == options_pb2.SCOPE_NAMESPACED

    @property
    def message(self) -> type[Message]:
        """The class of its messages."""
        made: type[Message] = message_factory.GetMessageClass(self.descriptor)
        return made

    def parse(self, data: bytes) -> Message:
        """An object of it."""
        return self.message.FromString(data)


class Catalogue:
    """The kinds that a server serves."""

    def __init__(self, descriptors: descriptor_pb2.FileDescriptorSet | bytes) -> None:
        """`descriptors`: complete, imports before their importers or not."""
        if isinstance(descriptors, bytes):
            descriptors = descriptor_pb2.FileDescriptorSet.FromString(descriptors)
        self._files = descriptors
        self.pool = descriptor_pool.DescriptorPool()
        found: list[Kind] = []
        for file in _in_order(descriptors.file):
            self.pool.Add(file)
            made = self.pool.FindFileByName(file.name)
            for descriptor in made.message_types_by_name.values():
                said = options.kind(descriptor)
                if said is not None:
                    version = file.package.rpartition(".")[2]
                    group = options.group(made)
                    found.append(
                        Kind(
                            descriptor.full_name, group, version, descriptor.name, descriptor, said
                        )
                    )
        self.kinds = tuple(sorted(found, key=lambda k: (k.group, k.options.plural, k.version)))
        self._by_full_name = {kind.full_name: kind for kind in self.kinds}
        self._by_type = {(kind.api_version, kind.name): kind for kind in self.kinds}
        self._by_word: dict[str, list[Kind]] = {}
        self._by_category: dict[str, list[Kind]] = {}
        for kind in self.kinds:
            for word in sorted(_words(kind)):
                self._by_word.setdefault(word, []).append(kind)
            for category in kind.options.categories:
                self._by_category.setdefault(category, []).append(kind)

    def __getitem__(self, full_name: str) -> Kind:
        """By the message's full name."""
        return self._by_full_name[full_name]

    def get(self, full_name: str) -> Kind | None:
        """By the message's full name, if it is served."""
        return self._by_full_name.get(full_name)

    def of_type(self, api_version: str, name: str) -> Kind:
        """By what a manifest says; ApiError where there is none, with what may be meant."""
        kind = self._by_type.get((api_version, name))
        if kind is not None:
            return kind
        said = f'no matches for kind "{name}" in version "{api_version}"'
        here = [k.name for k in self.kinds if k.api_version == api_version]
        elsewhere = [k.api_version for k in self.kinds if k.name == name]
        if elsewhere:
            hint = f', did you mean version "{elsewhere[0]}"?'
        elif hint := meant(name, here):
            pass
        else:
            hint = meant(name, (k.name for k in self.kinds))
        raise ApiError(Reason.NOT_FOUND, said + hint)

    def resolve(self, words: str) -> list[Kind]:
        """The kinds that a word or a comma list of words names; ApiError where one names none."""
        found: dict[str, Kind] = {}
        for word in words.split(","):
            for kind in self._by_category.get(word) or [self.one(word)]:
                found[kind.full_name] = kind
        return list(found.values())

    def one(self, word: str) -> Kind:
        """The kind that a word names; the core group's where several groups have it."""
        named = self._by_word.get(word.lower())
        if not named:
            hint = meant(word, (*self._by_word, *self._by_category))
            raise ApiError(Reason.NOT_FOUND, f'there is no kind "{word}"{hint or _HELP}')
        return named[0]

    def comments(self) -> dict[str, str]:
        """What the protos say about messages and fields, by full name."""
        found: dict[str, str] = {}
        for file in self._files.file:
            said = {
                tuple(location.path): location.leading_comments.strip()
                for location in file.source_code_info.location
                if location.leading_comments
            }
            for index, message in enumerate(file.message_type):
                _comments(message, file.package, (4, index), said, found)
        return found


_HELP = "; `kcore api-resources` lists all"


def _comments(
    message: descriptor_pb2.DescriptorProto,
    above: str,
    path: tuple[int, ...],
    said: dict[tuple[int, ...], str],
    found: dict[str, str],
) -> None:
    """Collects the comments of a message; 2 and 3 are the numbers of its fields and messages."""
    name = f"{above}.{message.name}"
    found[name] = said.get(path, "")
    for index, one in enumerate(message.field):
        found[f"{name}.{one.name}"] = said.get((*path, 2, index), "")
    for index, inner in enumerate(message.nested_type):
        _comments(inner, name, (*path, 3, index), said, found)


def _words(kind: Kind) -> set[str]:
    said = kind.options
    bare = {said.plural, said.singular, kind.name.lower(), *said.short_names} - {""}
    full = {f"{word}.{kind.group}" for word in bare} if kind.group else set()
    versioned = {f"{word}.{kind.version}.{kind.group}".rstrip(".") for word in bare}
    return bare | full | versioned


def _in_order(
    files: Iterable[descriptor_pb2.FileDescriptorProto],
) -> list[descriptor_pb2.FileDescriptorProto]:
    """Each after what it imports."""
    by_name = {file.name: file for file in files}
    placed: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def place(file: descriptor_pb2.FileDescriptorProto) -> None:
        if file.name in placed:
            return
        for needed in file.dependency:
            if needed in by_name and needed != file.name:
                place(by_name[needed])
        placed[file.name] = file

    for file in by_name.values():
        place(file)
    return list(placed.values())


def built_in_bytes() -> bytes:
    """Our own copy of the descriptors: generated/kinds.binpb, installed beside kcore_api."""
    package = os.path.dirname(str(kcore_api.__file__))
    for directory in (package, os.path.dirname(package)):
        path = os.path.join(directory, "kinds.binpb")
        if os.path.isfile(path):
            with open(path, "rb") as file:
                return file.read()
    raise FileNotFoundError("kinds.binpb is not installed; `make gen` writes it")


def built_in_digest() -> str:
    """Digest of our own copy, as servers compute theirs."""
    return hashlib.sha256(built_in_bytes()).hexdigest()[:32]


@functools.cache
def built_in() -> Catalogue:
    """The kinds of this version of kcore."""
    return Catalogue(built_in_bytes())


async def fetch(api: Api) -> Catalogue:
    """The kinds that the server serves."""
    answer = await api.kinds(pb.KindsRequest(digest=built_in_digest()))
    return Catalogue(answer.descriptors) if answer.descriptors.file else built_in()
