"""As much of a Kafka broker as answers who there is, and can forget for a while that it is there itself."""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType

API_VERSIONS, METADATA = 18, 3
NEWEST_METADATA = 4  # the last version before compact strings
UNSUPPORTED_VERSION, LEADER_NOT_AVAILABLE = 35, 5
NONE = struct.pack(">h", -1)


def _text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


class BareBroker:
    """A broker of one node that has whichever topics it is asked for.

    Attributes:
        bare: it lists no broker, as Kafka's does for a moment after it was frozen for longer than its session.
    """

    def __init__(self) -> None:
        self.bare = False
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> BareBroker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        for one in (self._socket, *self._connections):
            one.close()

    def _accept(self) -> None:
        try:
            while True:
                connection, _ = self._socket.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        except OSError:
            return  # closed

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection.makefile("rb") as stream:
                while len(length := stream.read(4)) == 4:
                    key, version, correlation, client = struct.unpack(">hhih", stream.read(10))
                    body = stream.read(struct.unpack(">i", length)[0] - 10)[max(client, 0):]
                    answer = struct.pack(">i", correlation)
                    answer += self._versions(version) if key == API_VERSIONS else self._metadata(body)
                    connection.sendall(struct.pack(">i", len(answer)) + answer)
        except OSError:
            return

    def _versions(self, version: int) -> bytes:
        known = ((API_VERSIONS, 0, 0), (METADATA, 0, NEWEST_METADATA))
        return struct.pack(">hi", UNSUPPORTED_VERSION if version else 0, len(known)) + b"".join(
            struct.pack(">hhh", *one) for one in known)

    def _metadata(self, body: bytes) -> bytes:
        """Of version 4: throttle time, brokers, cluster, controller, topics."""
        count, at, names = struct.unpack(">i", body[:4])[0], 4, []
        for _ in range(max(count, 0)):
            end = at + 2 + struct.unpack(">h", body[at:at + 2])[0]
            names.append(body[at + 2:end].decode())
            at = end
        answer = struct.pack(">ii", 0, 0 if self.bare else 1)
        if not self.bare:
            answer += struct.pack(">i", 1) + _text("127.0.0.1") + struct.pack(">i", self.port) + NONE
        answer += _text("a-cluster") + struct.pack(">ii", -1 if self.bare else 1, len(names))
        partition = struct.pack(">hiiii", LEADER_NOT_AVAILABLE if self.bare else 0, 0, -1 if self.bare else 1, 0, 0)
        return answer + b"".join(struct.pack(">h", 0) + _text(name) + struct.pack(">?i", False, 1) + partition
                                 for name in names)
