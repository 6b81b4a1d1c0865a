"""Every time-out of a worker, in one place, with how they fit together.

    poll a record --> fold --> flush --> acknowledge --> commit         while the broker answers
    heartbeat, in librdkafka's own thread                               never waits for any of it

- A broker that is away is waited for without an end: no message times out (`MESSAGE_TIMEOUT_MS`), and what takes
  partitions up asks again until it is told to stop. Only a person, or the group, ends that wait.
- A stop is short whatever hangs: partitions are let go within `DRAIN_S`, the app is down within `STOP_S`, and the
  process ends within `PROMISE_S`, also where the broker is away. What was not flushed by then is folded again.
- The group may wait `MAX_POLL_MS` for a member in a rebalance: it waits for our callbacks (`REBALANCE_S`), and those
  for a drain. Heartbeats go on meanwhile, so the session is no bound of theirs.
- The session is longer than a broker's restart takes (some 4 s for the embedded one), so that a restart costs no
  rebalance, and a member that is gone is missed after `SESSION_MS`.

`misfits` is the same as arithmetic; a test wants it empty, and `docs/operating.md` tells it to people.
"""

from __future__ import annotations

SESSION_MS = 10_000  # a member without a heartbeat for so long has lost its partitions; Kafka allows 6 s to 30 min
HEARTBEAT_MS = 1_000
MAX_POLL_MS = 300_000  # longest time between two polls, and in a rebalance; the poll thread polls every second
MESSAGE_TIMEOUT_MS = 0  # never: a record that timed out would leave a hole

REBALANCE_S = 60.0  # longest wait of a rebalance's callback for the event loop
ANSWER_S = 2.0  # one question for committed offsets or the ends of a partition; asked again
CLOSE_S = 1.0  # of the rest of a stop, for the consumer to leave its group

DRAIN_S = 5.0  # partitions are let go: flush, acknowledge, commit
ALERT_S = 3.0  # what stands in an alert must be acknowledged before the process ends; while it stops
STOP_S = 9.0  # an app is down
PROMISE_S = 10.0  # the process has ended

WATCH_S = 3.0  # between two looks at the broker and the topics, and how long one may take
MISSING_S = 6.0  # a topic that is not there is asked for again for so long: another broker's answer may be stale

BROKER_MIN_SESSION_MS = 6_000  # group.min.session.timeout.ms, Kafka's default
BROKER_RESTART_MS = 4_000  # the embedded broker on an idle machine


def misfits() -> list[str]:
    """What does not fit together, in words; empty when all is well."""
    rules = {
        "a session lasts three heartbeats at least": SESSION_MS >= 3 * HEARTBEAT_MS,
        "brokers accept the session": SESSION_MS >= BROKER_MIN_SESSION_MS,
        "a session outlasts a restart of the broker": SESSION_MS > BROKER_RESTART_MS,
        "no message times out": MESSAGE_TIMEOUT_MS == 0,
        "a drain ends before a session does: a successor never waits longer for it": DRAIN_S * 1000 < SESSION_MS,
        "a rebalance's callback outlasts a drain": DRAIN_S < REBALANCE_S,
        "a rebalance's callback ends before the group gives the member up": REBALANCE_S * 1000 < MAX_POLL_MS,
        "a session ends before the longest poll": SESSION_MS < MAX_POLL_MS,
        "who takes partitions up hears of a stop in time": ANSWER_S < DRAIN_S,
        "a stop outlasts a drain and leaving the group": DRAIN_S + CLOSE_S < STOP_S,
        "an alert is out before the stop ends": ALERT_S < STOP_S,
        "the process ends as promised": STOP_S < PROMISE_S,
        "a topic is missed after two looks at least": MISSING_S >= 2 * WATCH_S,
        "a look ends before a session: who is told of a loss is told in time": WATCH_S * 1000 < SESSION_MS,
    }
    return [rule for rule, holds in rules.items() if not holds]
