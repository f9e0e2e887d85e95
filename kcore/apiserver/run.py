"""The room's composition: a kernel, and all that callers see of it.

    await run(kernel, Listeners(socket=…, tls="[::]:6443", …), clock, chance)

serves until it is cancelled, and ends gracefully: no new calls, streams and watches are told, calls
under way have some seconds. `Apiserver` is the same for whoever wants to hold it: simulations and
tests, which take sessions from it without any listener.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kcore.apiserver import serve
from kcore.apiserver.allowance import Allowance
from kcore.apiserver.authorize import Authorizer
from kcore.apiserver.broker import Broker
from kcore.apiserver.identity import ADMIN, Tokens, User, of_certificate, of_socket
from kcore.apiserver.metrics import Metrics
from kcore.apiserver.probe import Probe
from kcore.apiserver.services import Services
from kcore.apiserver.session import Session
from kcore.apiserver.streams import Streams
from kcore.apiserver.token import Accounts
from kcore.chance import Chance
from kcore.clock import Clock
from kcore.kernel.kernel import Kernel
from kcore.tasks import Tasks
from kcore.wire.errors import ApiError

logger = logging.getLogger(__name__)

GRACE_SECONDS = 3.0
# A watch or a stream outlives its permission by no more.
RECHECK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Listeners:
    """Where to listen; what is empty is not listened at."""

    # The socket for root.
    socket: Path | None = None
    # TLS with bearer tokens, and TLS with client certificates: "[::]:6443", "[::]:6442".
    tls: str = ""
    mutual: str = ""
    # HTTP for probes and Prometheus; on the loopback: "127.0.0.1:6445".
    probe: str = ""
    # Of the server; the authority's is who signed the clients'.
    certificate: Path = Path()
    key: Path = Path()
    authority: Path = Path()
    # Files that hold a bearer token each, and whose it is.
    tokens: Mapping[Path, User] = field(default_factory=dict)
    # What service accounts' tokens are signed with; None: there are none.
    account_key: Path | None = None
    # Whether reflection answers those, too, who do not say who they are.
    reflects_all: bool = False


class Apiserver:
    """What a kernel is reached through, in process."""

    def __init__(
        self,
        kernel: Kernel,
        tasks: Tasks,
        clock: Clock,
        chance: Chance,
        *,
        reflects_all: bool = False,
        account_key: bytes = b"",
    ) -> None:
        """`tasks`: where streams live. `account_key`: signs the tokens of service accounts."""
        self.kernel = kernel
        self._clock = clock
        self.accounts = Accounts(account_key, kernel, clock, chance) if account_key else None
        lasts = self.accounts.lasts if self.accounts is not None else lambda _: True
        self.authorizer = Authorizer(kernel, lasts)
        self.broker = Broker(tasks, chance)
        self.allowance = Allowance()
        self.metrics = Metrics(
            {
                "apiserver_current_inflight_requests": (
                    "Calls under way, without streams.",
                    lambda: float(self.allowance.calls),
                ),
                "apiserver_longrunning_requests": (
                    "Streams that are open.",
                    lambda: float(self.allowance.streams),
                ),
                "kcore_unread_bytes": (
                    "Of answers that their callers have not read yet.",
                    lambda: float(self.allowance.bytes),
                ),
                "kcore_store_waiting_seconds": (
                    "For how long the store has not answered.",
                    lambda: kernel.waiting_seconds,
                ),
                "kcore_commit_head_revision": (
                    "The last revision.",
                    lambda: float(kernel.head),
                ),
                "kcore_feed_watchers": (
                    "Watches that are open.",
                    lambda: float(kernel.feed.readers),
                ),
                "kcore_node_links": (
                    "Nodes whose kubelets are linked.",
                    lambda: float(len(self.broker.nodes)),
                ),
                "kcore_pod_streams": (
                    "Streams to pods that are open.",
                    lambda: float(self.broker.streams),
                ),
            }
        )
        self.services = Services(
            kernel, self.metrics, clock, reflects_all=reflects_all, accounts=self.accounts
        )

    def session(self, user: User) -> Session:
        """The Api for somebody in this process."""
        return Session(self.kernel, user, self.authorizer)

    async def recheck(self) -> None:
        """Ends what goes on when its permission ends, for ever."""
        while True:
            await self._clock.sleep(RECHECK_SECONDS)
            # While the store is read again nothing can be said; later, then.
            with contextlib.suppress(ApiError):
                self.kernel.feed.recheck()
                self.broker.recheck()

    def streams(self, user: User) -> Streams:
        """PodStreams and NodeLink for somebody in this process."""
        return Streams(self.session(user), self.broker)


@asynccontextmanager
async def serving(
    kernel: Kernel, listeners: Listeners, clock: Clock, chance: Chance
) -> AsyncIterator[tuple[Apiserver, serve.Server]]:
    """An apiserver that listens; leaving the block ends it gracefully."""
    async with Tasks() as tasks:
        key = listeners.account_key
        apiserver = Apiserver(
            kernel,
            tasks,
            clock,
            chance,
            reflects_all=listeners.reflects_all,
            account_key=key.read_bytes() if key is not None else b"",
        )
        server = serve.Server(
            kernel,
            apiserver.services,
            apiserver.broker,
            apiserver.authorizer,
            apiserver.metrics,
            clock,
            _listeners(listeners, apiserver.accounts),
            apiserver.allowance,
        )
        probe = Probe(apiserver.metrics.text, {"kernel": apiserver.services.ready})
        try:
            await server.start()
            tasks.start(apiserver.recheck(), "apiserver-recheck")
            if listeners.probe:
                host, _, port = listeners.probe.rpartition(":")
                try:
                    await probe.start(host.strip("[]"), int(port))
                except OSError as error:
                    raise serve.CannotListen(listeners.probe, str(error)) from error
            yield apiserver, server
        finally:
            apiserver.broker.close()
            kernel.feed.close()
            await probe.stop()
            await server.stop(GRACE_SECONDS)
            tasks.cancel()


async def run(kernel: Kernel, listeners: Listeners, clock: Clock, chance: Chance) -> None:
    """Serves until cancelled."""
    async with serving(kernel, listeners, clock, chance):
        logger.info("serving at %s", ", ".join(_words(listeners)))
        await asyncio.get_running_loop().create_future()


def _listeners(listeners: Listeners, accounts: Accounts | None) -> list[serve.Listener]:
    found = []
    if listeners.socket is not None:
        found.append(serve.Listener(f"unix:{listeners.socket}", of_socket))
    if listeners.tls:
        users = {path.read_text().strip(): user for path, user in listeners.tokens.items()}
        tokens = Tokens(users, accounts.user if accounts is not None else None)
        wrapped = serve.credentials(listeners.certificate, listeners.key)
        found.append(serve.Listener(listeners.tls, tokens, wrapped))
    if listeners.mutual:
        wrapped = serve.credentials(listeners.certificate, listeners.key, listeners.authority)
        found.append(serve.Listener(listeners.mutual, of_certificate, wrapped))
    return found


def _words(listeners: Listeners) -> list[str]:
    named = (str(listeners.socket or ""), listeners.tls, listeners.mutual, listeners.probe)
    return [one for one in named if one]


def owner(token: Path) -> Mapping[Path, User]:
    """The tokens of a cluster with one owner."""
    return {token: ADMIN}
