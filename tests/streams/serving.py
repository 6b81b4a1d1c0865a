"""HTTP servers of tests: on a free port of 127.0.0.1, in a thread, gone with the block."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

from streams.settings import LOOPBACK
from tests.patience import PATIENCE_S


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[str]:
    """Serve for as long as the block lasts; gives the URL."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE_S)


def on_loopback(handler: Any) -> ThreadingHTTPServer:
    """A server with this handler."""
    return ThreadingHTTPServer((LOOPBACK, 0), handler)
