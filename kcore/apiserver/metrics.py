"""What is counted, in Prometheus' format, under the names that Kubernetes and gRPC users know.

`Metrics(clock, gauges)` has a registry of its own. A face reports each call by `call` and each
commit by `commit`; gauges are functions, read when somebody asks. Labels are methods, resources and
codes: never an object's name, so the number of series does not grow with the objects.
"""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kcore.wire.errors import Reason

# A second series for each counter, of when it was made, helps nobody here.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_OPERATIONS = (1, 2, 5, 10, 20, 50, 100, 200, 512)

# Kubernetes' dashboards know answers by HTTP's codes.
_HTTP = {
    None: "200",
    Reason.NOT_FOUND: "404",
    Reason.ALREADY_EXISTS: "409",
    Reason.CONFLICT: "409",
    Reason.INVALID: "422",
    Reason.FORBIDDEN: "403",
    Reason.UNAUTHENTICATED: "401",
    Reason.GONE: "410",
    Reason.EXHAUSTED: "429",
    Reason.REFUSED: "403",
    Reason.UNAVAILABLE: "503",
    Reason.UNIMPLEMENTED: "501",
}
INTERNAL = "500"


def http_code(reason: Reason | None) -> str:
    """What Kubernetes would have answered; None: all is well."""
    return _HTTP[reason]


class _Gauges(Collector):
    """Values that are looked up when somebody asks."""

    def __init__(self, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for name, (words, read) in sorted(self._gauges.items()):
            yield GaugeMetricFamily(name, words, value=read())


class Metrics:
    """The counters of one apiserver."""

    def __init__(self, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        """`gauges`: name, what it says, and how it is read."""
        self._registry = CollectorRegistry()
        self._registry.register(_Gauges(gauges))
        self._requests = Histogram(
            "apiserver_request_duration_seconds",
            "Time to answer, by verb, resource and HTTP code; watches and streams are not in it.",
            ("verb", "resource", "subresource", "code"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._answered = Counter(
            "apiserver_request",
            "Requests that were answered, with the same labels.",
            ("verb", "resource", "subresource", "code"),
            registry=self._registry,
        )
        self._started = Counter(
            "grpc_server_started",
            "Calls that have begun, by method.",
            ("grpc_type", "grpc_service", "grpc_method"),
            registry=self._registry,
        )
        self._handled = Counter(
            "grpc_server_handled",
            "Calls that have ended, by method and code.",
            ("grpc_type", "grpc_service", "grpc_method", "grpc_code"),
            registry=self._registry,
        )
        self._watch_events = Counter(
            "apiserver_watch_events",
            "Events sent to watchers, by resource; empty for watches of several.",
            ("resource",),
            registry=self._registry,
        )
        self._watch_messages = Counter(
            "kcore_feed_messages",
            "Messages sent to watchers, each with any number of events.",
            registry=self._registry,
        )
        self._watch_bytes = Counter("kcore_feed_bytes", "Bytes of them.", registry=self._registry)
        self._transactions = Counter(
            "kcore_commit_transactions",
            "Transactions that were asked for, by outcome.",
            ("outcome",),
            registry=self._registry,
        )
        self._operations = Histogram(
            "kcore_commit_operations",
            "Operations in one commit.",
            buckets=_OPERATIONS,
            registry=self._registry,
        )
        self._commit_seconds = Histogram(
            "kcore_commit_duration_seconds",
            "Time from asking for a commit until it was durable.",
            buckets=_SECONDS,
            registry=self._registry,
        )

        # To find a series by its labels takes longer than to count in it.
        self._start_series: dict[tuple[str, ...], Counter] = {}
        self._call_series: dict[tuple[str, ...], Counter] = {}
        self._request_series: dict[tuple[str, ...], tuple[Histogram, Counter]] = {}

    def started(self, kind: str, service: str, method: str) -> None:
        """A gRPC call has begun."""
        labels = kind, service, method
        series = self._start_series.get(labels)
        if series is None:
            series = self._start_series[labels] = self._started.labels(*labels)
        series.inc()

    def call(self, kind: str, service: str, method: str, code: str) -> None:
        """A gRPC call has ended. `kind`: "unary", "server_stream" or "bidi_stream"."""
        labels = kind, service, method, code
        series = self._call_series.get(labels)
        if series is None:
            series = self._call_series[labels] = self._handled.labels(*labels)
        series.inc()

    def request(
        self, verb: str, resource: str, subresource: str, code: str, seconds: float
    ) -> None:
        """A request was answered."""
        labels = verb, resource, subresource, code
        series = self._request_series.get(labels)
        if series is None:
            series = self._requests.labels(*labels), self._answered.labels(*labels)
            self._request_series[labels] = series
        series[0].observe(seconds)
        series[1].inc()

    def commit(self, operations: int, applied: int, refused: int, seconds: float) -> None:
        """A commit was answered."""
        self._operations.observe(operations)
        self._commit_seconds.observe(seconds)
        if applied:
            self._transactions.labels("applied").inc(applied)
        if refused:
            self._transactions.labels("refused").inc(refused)

    def watched(self, resource: str, size: int, events: int) -> None:
        """A message was sent to a watcher."""
        self._watch_messages.inc()
        self._watch_bytes.inc(size)
        if events:
            self._watch_events.labels(resource).inc(events)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
