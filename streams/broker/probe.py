"""Ask a broker whether it is there: a metadata request, because an open port proves nothing."""

from __future__ import annotations

import logging
import socket

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

_silent = logging.Logger("quantum.probe")  # outside of the tree of loggers: a refused connection is an answer here
_silent.addHandler(logging.NullHandler())


def answers(address: str, cluster_id: str, timeout_s: float = 2.0) -> bool:
    """Whether the broker at the address is registered with its controller and belongs to this cluster."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=0.5).close()
    except OSError:
        return False
    client = AdminClient({"bootstrap.servers": address}, logger=_silent)
    try:
        metadata = client.list_topics(timeout=timeout_s)
    except KafkaException:
        return False
    return bool(metadata.brokers) and metadata.cluster_id == cluster_id
