"""Static pods: manifests in a directory, which need no API.

    await manifests.run(directory, "n1", wanted, clock)

`read` gives the pods of a directory by uid, and what is wrong with its files; `run` goes on reading
and tells `wanted` of every change. A file is looked at twice a second and taken when it has stopped
changing; everything is read anew every twenty seconds. Hidden files, other names than *.yaml, *.yml
and *.json, and what is no regular file are passed over.

A file that is wrong disturbs no other. One that was right before keeps the pod that it had: a slip
of the editor must not end an etcd. Only its removal does.
"""

import logging
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kcore_api.kcore.core.v1 import pod_pb2

from kcore.client import codec, document
from kcore.client.document import Document
from kcore.client.problem import Problem
from kcore.clock import Clock
from kcore.kubelet import static_pod

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
READ_SECONDS = 20.0
MOST_BYTES = 4 * 1024 * 1024
_SUFFIXES = (".yaml", ".yml", ".json")
_KIND = ("v1", "Pod")
_POD: Any = pod_pb2.Pod.DESCRIPTOR

# Of a file: what changes when its content does.
Signature = tuple[int, int, int, int]
Wanted = Callable[[Mapping[str, pod_pb2.Pod]], None]
# A file's name, and what is wrong with it.
Complain = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a directory says: pods by uid; by file what is wrong with it."""

    pods: Mapping[str, pod_pb2.Pod]
    problems: Mapping[str, str]


def read(directory: Path, node: str) -> Reading:
    """The static pods of the node as they are now."""
    manifests = Manifests(directory, node)
    manifests.look(whole=True)
    return manifests.reading()


async def run(
    directory: Path, node: str, wanted: Wanted, clock: Clock, complain: Complain | None = None
) -> None:
    """Reads for ever. What is wrong with a file is said once, until it is something else."""
    manifests = Manifests(directory, node)
    complaints: Mapping[str, str] = {}
    told: list[str] | None = None
    read_at = float("-inf")
    while True:
        whole = clock.monotonic() - read_at >= READ_SECONDS
        if whole:
            read_at = clock.monotonic()
        manifests.look(whole=whole)
        found = manifests.reading()
        for name, said in found.problems.items():
            if complaints.get(name) != said:
                logger.warning("static pods: %s", said)
                if complain is not None:
                    complain(name, said)
        complaints = found.problems
        if told != sorted(found.pods):
            told = sorted(found.pods)
            wanted(found.pods)
        await clock.sleep(LOOK_SECONDS)


@dataclass(slots=True)
class _File:
    """One file, as it was last seen and as it was last read."""

    seen: Signature
    read: Signature | None = None
    pods: tuple[pod_pb2.Pod, ...] = ()
    problem: str = ""


@dataclass
class Manifests:
    """The files of one directory."""

    directory: Path
    node: str
    _files: dict[str, _File] = field(default_factory=dict)
    _problem: str = ""
    _looked: bool = False

    def look(self, *, whole: bool) -> None:
        """Reads what has changed and is settled; with `whole`, everything that is settled."""
        try:
            signatures = self._signatures()
        except FileNotFoundError:
            signatures = {}
        except OSError as error:
            # It is there, and says nothing: that is not "no pods".
            self._problem = f"{self.directory}: {error.strerror or error}"
            return
        self._problem = ""
        for name in [name for name in self._files if name not in signatures]:
            del self._files[name]
        for name, signature in sorted(signatures.items()):
            file = self._files.get(name)
            # Being written just now, perhaps; but what is there at the beginning has long been.
            settled = not self._looked if file is None else file.seen == signature
            file = self._files.setdefault(name, _File(signature))
            file.seen = signature
            if settled and (whole or file.read != signature):
                self._read(name, file)
                file.read = signature
        self._looked = True

    def reading(self) -> Reading:
        """What all files together say."""
        pods: dict[str, pod_pb2.Pod] = {}
        problems = {"": self._problem} if self._problem else {}
        names: dict[tuple[str, str], str] = {}
        for name, file in sorted(self._files.items()):
            if file.problem:
                problems[name] = file.problem
            for pod in file.pods:
                called = pod.metadata.namespace, pod.metadata.name
                if called in names:
                    said = f"pod {called[0]}/{called[1]} is in {names[called]} already"
                    problems[name] = f"{self.directory / name}: {said}"
                    continue
                names[called] = name
                pods[pod.metadata.uid] = pod
        return Reading(pods, problems)

    def _signatures(self) -> dict[str, Signature]:
        found = {}
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.endswith(_SUFFIXES):
                    continue
                try:
                    status = entry.stat()
                except OSError:
                    # A link to nowhere, or gone again.
                    continue
                if stat.S_ISREG(status.st_mode):
                    found[entry.name] = (
                        status.st_ino,
                        status.st_size,
                        status.st_mtime_ns,
                        status.st_ctime_ns,
                    )
        return found

    def _read(self, name: str, file: _File) -> None:
        path = self.directory / name
        try:
            data = _bytes(path)
        except OSError as error:
            file.problem = f"{path}: {(error.strerror or str(error)).lower()}"
            return
        pods, said = parse(data, str(path), name, self.node)
        file.problem = "\n".join(said)
        if not said:
            file.pods = tuple(pods)


def parse(data: bytes, shown: str, place: str, node: str) -> tuple[list[pod_pb2.Pod], list[str]]:
    """The pods of a file's bytes, and all that is wrong, each with its place in the file."""
    if len(data) > MOST_BYTES:
        return [], [f"{shown}: is larger than {MOST_BYTES >> 20} MiB"]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return [], [f"{shown}: is not UTF-8 text"]
    pods: list[pod_pb2.Pod] = []
    said: list[str] = []
    for one in document.read(text, shown):
        for problem, where in one.problems:
            said.append(_at(one, problem, where))
        if one.problems or one.plain is None:
            continue
        # Pods of one file are told apart by their order.
        pod, problems = _pod(one.plain, f"{place}#{len(pods)}" if pods else place, node)
        said += [_at(one, p, one.place(p.path, p.at_key)) for p in problems]
        if pod is not None:
            pods.append(pod)
    if not pods and not said:
        said.append(f"{shown}: there is no pod in it")
    return pods, said


def _pod(plain: object, place: str, node: str) -> tuple[pod_pb2.Pod | None, list[Problem]]:
    if not isinstance(plain, dict):
        return None, [Problem((), "expected a Pod")]
    for key, right in zip(("apiVersion", "kind"), _KIND, strict=True):
        if plain.get(key) != right:
            return None, [Problem((key,), f'must be "{right}" here')]
    message, problems = codec.read(_POD, plain)
    if problems:
        return None, problems
    assert isinstance(message, pod_pb2.Pod)
    pod, problems = static_pod.make(message, node, place)
    return (None, problems) if problems else (pod, [])


def _at(one: Document, problem: Problem, where: document.Place) -> str:
    return f"{one.name}:{where.line}:{where.column}: {problem}"


def _bytes(path: Path) -> bytes:
    # O_NONBLOCK: should it have become a pipe meanwhile, nobody waits for it.
    found = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(found, "rb") as file:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise OSError(0, "is not a regular file")
        return file.read(MOST_BYTES + 1)
