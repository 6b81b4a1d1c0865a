"""The embedded broker: Apache Kafka itself, one KRaft node on loopback.

    running = up(Settings.load())      # fetches the pinned jars once, formats once, starts, waits until it answers
    running.address                    # "127.0.0.1:19092"
    down(settings)

`java` finds a Java runtime, `jars` fetches and checks the jars, `node` writes the node's configuration, `process`
starts, watches and stops it. Data lie in `<data_dir>/broker` and survive both `down` and a killed broker.
"""

from streams.broker.errors import BrokerError, FetchFailed, JarRefused, NoJava, StartFailed
from streams.broker.process import RunningBroker, Status, down, status, up

__all__ = [
    "BrokerError", "FetchFailed", "JarRefused", "NoJava", "RunningBroker", "StartFailed", "Status", "down", "status",
    "up",
]
