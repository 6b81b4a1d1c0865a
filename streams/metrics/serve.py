"""The HTTP server of a worker: a thread of its own, so that it answers while the event loop does not.

The event loop waits for it no longer than for one turn of the interpreter (`SWITCH_INTERVAL_S` of `streams.worker`).
The server is there before the apps are, so that a restoring worker can be watched, and ends with the worker.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from streams.host import AgentHost
from streams.metrics import PortTaken
from streams.metrics.collect import WorkerCollector
from streams.metrics.health import Answer, Pulse, alive, ready
from streams.settings import Settings

CLIENT_S = 5.0  # a client that says nothing for so long is hung up on
LISTEN_S = 0.1  # how long the end may have to wait


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    pages: dict[str, Callable[[str], tuple[int, str, bytes]]]

    def server_bind(self) -> None:
        """Bind; the base class would look the host's name up, which may take seconds."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_S
    server: _Server

    def do_GET(self) -> None:
        """Answer with a page."""
        page = self.server.pages.get(self.path.partition("?")[0])
        status, kind, body = (404, "text/plain; charset=utf-8", b"/metrics, /healthz, /readyz\n") if page is None \
            else page(self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes leave no line in the log."""


def _probe(question: Callable[[], Answer]) -> Callable[[str], tuple[int, str, bytes]]:
    def page(_: str) -> tuple[int, str, bytes]:
        answer = question()
        text = "".join(f"{reason}\n" for reason in answer.reasons) or "ok\n"
        return 200 if answer.good else 503, "text/plain; charset=utf-8", text.encode()

    return page


@contextlib.contextmanager
def served(settings: Settings, hosts: Sequence[AgentHost], pulse: Pulse) -> Iterator[str]:
    """Serve for as long as the block lasts; gives HOST:PORT.

    Args:
        settings: where to listen.
        hosts: of the agents that are told about.
        pulse: of the event loop that they run in.

    Raises:
        PortTaken: somebody else has the port, or the host is none of this machine.
    """
    registry = CollectorRegistry()
    registry.register(WorkerCollector(hosts, pulse))
    ProcessCollector(registry=registry)

    def metrics(accept: str) -> tuple[int, str, bytes]:
        encode, kind = choose_encoder(accept)
        return 200, kind, encode(registry)

    address = (settings.metrics_host, settings.metrics_port)
    try:
        server = _Server(address, _Handler)
    except OSError as exc:
        raise PortTaken(f"cannot listen on {address[0]}:{address[1]} for metrics: {exc.strerror or exc}. Choose "
                        "another with --metrics-port, or set QUANTUM_METRICS_HOST right") from None
    server.pages = {"/metrics": metrics, "/healthz": _probe(lambda: alive(pulse)),
                    "/readyz": _probe(lambda: ready(hosts, pulse))}
    thread = threading.Thread(target=server.serve_forever, args=(LISTEN_S,), name="metrics", daemon=True)
    thread.start()
    try:
        yield f"{server.server_name}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
