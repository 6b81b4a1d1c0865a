"""A trading service: applies q_learning's policies to the decisions of its symbols, and reports on policy.applied.

python examples/python/subscriber.py engine-7 BTCUSDT ETHUSDT
"""

import sys
import time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from contract import choose, outcome, report
from wire import BROKER, Wire

BOOK = "q_learning"  # whose decisions are executed
GRACE_S = 5.0  # how long a decision waits for the policy version that it names
applier, *symbols = sys.argv[1:]
current, decided, applied, ends = map(Wire, ("policy.current", "rl.meta.strategy_selected", "policy.applied",
                                             "decision.outcome"))
producer = Producer({"bootstrap.servers": BROKER, "enable.idempotence": True, "partitioner": "murmur2_random"})
consumer = Consumer({"bootstrap.servers": BROKER, "group.id": "none", "enable.auto.commit": False,
                     "enable.partition.eof": True})


def partitions(topic):
    return list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)


def known(decision):
    """Whether the version that a decision names, or a later one, is held."""
    name = decision["policy_id"]
    return name is None or (name in policies and policies[name]["version"] >= decision["policy_version"])


def send(wire, record):
    producer.produce(wire.topic, wire.encode(record), record["symbol"])
    if producer.flush(30):
        sys.exit("the broker does not acknowledge")


def execute(decision):
    """Choose the action, trade it, and say what was done."""
    action, side, why = choose(decision, policies.get(decision["policy_id"]))
    # Here the orders go out.
    if decision["policy_id"] is not None:
        send(applied, report(decision, action, applier))
    ended = outcome(decision, side, why)
    if ended is not None:
        send(ends, ended)
    print(f"{decision['decision_id']}: {action} {side:+d}, {why}", flush=True)


policies, waiting, left = {}, [], set(partitions(current.topic))
now = [TopicPartition(decided.topic, p) for p in partitions(decided.topic)]
for end in now:  # decisions from now on; older ones are too late to execute
    end.offset = consumer.get_watermark_offsets(end, timeout=10)[1]
consumer.assign([*now, *(TopicPartition(current.topic, p, 0) for p in left)])
while True:
    message = consumer.poll(0.2)
    if message is not None and message.error() is not None:
        if message.error().code() != KafkaError._PARTITION_EOF:
            sys.exit(message.error().str())
        if left and message.topic() == current.topic:
            left.discard(message.partition())
            if not left:  # read to the end: now it may act
                print(f"ready with {len(policies)} policies", flush=True)
    elif message is not None and message.topic() == decided.topic:
        decision = decided.decode(message.value())
        if decision["symbol"] in symbols and decision["book_id"] == BOOK:
            waiting.append((time.monotonic() + GRACE_S, decision))
    elif message is not None and message.value() is None:
        policies.pop(message.key().decode(), None)  # retired seven days ago: its key is freed
    elif message is not None:
        policy = current.decode(message.value())
        if policy["version"] > policies.get(policy["policy_id"], {"version": 0})["version"]:
            policies[policy["policy_id"]] = policy
    while waiting and not left and (known(waiting[0][1]) or time.monotonic() > waiting[0][0]):
        execute(waiting.pop(0)[1])
