"""Moments of the past as people name them: a revision, a time, or how long ago.

4711      2026-01-31T12:00:00Z      10m
"""

from datetime import UTC, datetime

import click
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli.options import SECONDS


def at(said: str, now: float) -> pb.At:
    """The moment that the words mean. click.UsageError where they mean none."""
    if said.isdecimal():
        return pb.At(revision=int(said))
    found = pb.At()
    try:
        moment = datetime.fromisoformat(said.replace("Z", "+00:00"))
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        try:
            seconds = now - SECONDS.convert(said.removesuffix(" ago"), None, None)
        except click.BadParameter:
            known = "a revision, a time (2026-01-31T12:00:00Z) or a span ago (10m)"
            raise click.UsageError(f'--at takes {known}, not "{said}"') from None
    found.time.FromNanoseconds(int(seconds * 1e9))
    return found
