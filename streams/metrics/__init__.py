"""What a worker says of itself over HTTP: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever keeps it up.

For people and alarms. Evidence comes from the log, never from here. Everything is read when it is asked for, from
counters that the hot path keeps anyway (`streams.stats`); nothing is labelled by symbol, so that a scrape costs the
same at a thousand of them.
"""

from __future__ import annotations


class PortTaken(Exception):
    """The address cannot be listened on; the message says which, and what to do."""
