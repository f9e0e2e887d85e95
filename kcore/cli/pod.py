"""Which pod people mean by `web-0`, `deploy/web` or `svc/web`, and which of its containers.

Whatever has a `spec.selector` stands for the pods that it selects; the one that can be used best is
taken. It must not know what is done with the pod.
"""

from typing import Any, Final

import click
from google.protobuf.message import Message

from kcore.cli import objects, rollouts, subject
from kcore.cli.rollout import selector_text
from kcore.cli.session import FAILED, Exit, Session
from kcore.client import codec
from kcore.client.kinds import Kind

DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
OVER: Final = ("Succeeded", "Failed")


async def kind(session: Session) -> Kind:
    """The kind of pods."""
    return (await session.kinds()).of_type("v1", "Pod")


async def find(session: Session, target: str) -> Message:
    """The pod that is named, or one of those that an owner has."""
    catalogue = await session.kinds()
    pods = await kind(session)
    asked = subject.one(target, catalogue, "pods")
    if asked.kind is pods:
        return await objects.get(session, pods, session.namespace, asked.name)
    labels = await labels_of(session, asked)
    listing = await objects.listing(session, pods, session.namespace, labels=labels)
    if not listing.items:
        raise Exit(FAILED, f"error: {asked} has no pods")
    return min(listing.items, key=_rank)


async def labels_of(session: Session, asked: subject.Subject) -> str:
    """The selector of the pods that an object stands for."""
    if not rollouts.has(asked.kind, "spec.selector"):
        raise click.UsageError(f"{asked.kind.options.plural} select no pods")
    message = await objects.get(session, asked.kind, session.namespace, asked.name)
    spec = codec.to_plain(message).get("spec") or {}
    text = selector_text(spec.get("selector") or {})
    if not text:
        raise Exit(FAILED, f"error: {asked} selects no pods")
    return text


def containers(pod: Message) -> list[str]:
    """The names of the containers that run side by side."""
    spec: Any = getattr(pod, "spec", None)
    return [one.name for one in spec.containers]


def default_container(pod: Message) -> str:
    """The container that is meant where none is named."""
    names = containers(pod)
    named: str = objects.metadata(pod).annotations.get(DEFAULT_CONTAINER, "")
    return named if named in names else next(iter(names), "")


def container(session: Session, pod: Message, named: str) -> str:
    """The container that is meant; where it was chosen among several, that is said."""
    if named:
        return named
    chosen, names = default_container(pod), containers(pod)
    spec: Any = getattr(pod, "spec", None)
    names += [f"{one.name} (init)" for one in spec.init_containers]
    if len(names) > 1 and not objects.metadata(pod).annotations.get(DEFAULT_CONTAINER):
        session.say(f'Defaulted container "{chosen}" out of: {", ".join(names)}')
    return chosen


def _rank(pod: Any) -> tuple[bool, bool, bool, str]:
    ready = any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions)
    going = pod.metadata.HasField("deletion_timestamp")
    return (pod.status.phase != "Running", going, not ready, pod.metadata.name)
