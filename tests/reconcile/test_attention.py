"""What counts as listening, and what the loop makes of silence, in virtual time."""

import hypothesis.strategies as st
from hypothesis import given
from kcore_api.kcore.core.v1 import node_pb2

from kcore.clock import LoopClock
from kcore.controllers import node_lifecycle
from kcore.reconcile import attention
from kcore.reconcile.attention import Attention
from kcore.reconcile.view import Batch, View
from tests.controllers import test_node_lifecycle as nodes
from tests.reconcile.server import Server
from tests.reconcile.test_loop import play

Node = node_pb2.Node


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 30)), max_size=40), st.integers(0, 40))
def test_a_span_is_never_longer_than_it_was(steps: list[tuple[bool, float]], begins: int) -> None:
    now = 100.0
    heard = Attention(now)
    began: tuple[float, float] | None = None
    for number, (proved, seconds) in enumerate(steps):
        now += seconds
        if number == begins:
            began = now, heard.most(now)
        if proved:
            # A proof is of a moment ago, when it was asked for.
            heard.proved(now - seconds / 2)
        if began is not None:
            assert heard.seconds - began[1] <= now - began[0] + 1e-6


def test_what_was_not_listened_to_does_not_count() -> None:
    heard = Attention(0.0)
    for at in (5.0, 10.0, 15.0):
        heard.proved(at)
    assert heard.seconds == 15
    heard.proved(3600.0)
    assert heard.seconds == 15 + attention.MOST_SECONDS
    heard.proved(3599.0)
    assert heard.since == 3600


def test_a_trait_is_held_until_it_changes_or_the_object_is_another() -> None:
    view = View([Node], traits={Node: {"taints": node_lifecycle.taints}})
    here = nodes.World((node_lifecycle.CONTROLLER,))
    live = nodes.node("n1")
    live.spec.taints.add(key="a", effect="NoExecute")
    here.add(live)
    view.apply(Batch(0, fresh=True, synced=True))

    def tell(seconds: float) -> Node:
        view.seconds = view.most_seconds = seconds
        told, here.history = here.history, []
        view.apply(Batch(here.revision, told))
        found = view.get(Node, "", "n1")
        assert found is not None
        return found

    assert view.held_seconds(tell(10), "taints", "a:NoExecute") == 0
    live = here.get(Node, "", "n1")
    live.spec.taints.add(key="b", effect="NoExecute")
    here.change(live)
    known = tell(30)
    assert view.held_seconds(known, "taints", "a:NoExecute") == 20
    assert view.held_seconds(known, "taints", "b:NoExecute") == 0
    assert view.held_seconds(known, "taints", "c:NoExecute") == 0
    here.delete(live)
    again = nodes.node("n1")
    again.spec.taints.add(key="a", effect="NoExecute")
    here.add(again)
    assert view.held_seconds(tell(40), "taints", "a:NoExecute") == 0


def test_a_node_that_falls_silent_is_found_though_nothing_else_happens() -> None:
    async def scene(server: Server, clock: LoopClock) -> None:
        _begin(server)
        for _ in range(30):
            assert nodes.ready(server.world, "n1") == "True"
            await clock.sleep(1.0)
        await clock.sleep(30.0)
        assert nodes.ready(server.world, "n1") == "Unknown"

    play(scene, nodes.CONTROLLERS)


def test_an_apiserver_that_was_away_makes_no_node_silent() -> None:
    async def scene(server: Server, clock: LoopClock) -> None:
        _begin(server)
        for _ in range(3):
            await clock.sleep(25.0)
            server.leave()
            await clock.sleep(300.0)
            server.away = False
            server.touch()
            # Kubelets find it again, too.
            await clock.sleep(4.0)
            nodes.answer(server.world, "n1")
            server.touch()
        await clock.sleep(30.0)
        assert nodes.ready(server.world, "n1") == "True"
        assert not [line for line in server.world.log if line.startswith("patch Node")]

    play(scene, nodes.CONTROLLERS)


def _begin(server: Server) -> None:
    made = nodes.node("n1")
    lease = nodes.Lease()
    lease.metadata.namespace, lease.metadata.name = nodes.SPACE, "n1"
    server.world.add(made, lease)
    server.touch()
