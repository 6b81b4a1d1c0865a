"""A trading service: applies q_learning's policies to the decisions of its symbols, and reports on policy.applied.

python examples/python/subscriber.py engine-7 BTCUSDT ETHUSDT
"""

import sys
import time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from wire import BROKER, Wire

BOOK = "q_learning"  # whose decisions are executed
GRACE_S = 5.0  # how long a decision waits for the policy version that it names
applier, *symbols = sys.argv[1:]
current, decided, applied = (Wire(t) for t in ("policy.current", "rl.meta.strategy_selected", "policy.applied"))
producer = Producer({"bootstrap.servers": BROKER, "enable.idempotence": True, "partitioner": "murmur2_random"})
consumer = Consumer({"bootstrap.servers": BROKER, "group.id": "none", "enable.auto.commit": False,
                     "enable.partition.eof": True})


def partitions(topic):
    return list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)


def known(decision):
    """Whether the version that a decision names, or a later one, is held."""
    name = decision["policy_id"]
    return name is None or (name in policies and policies[name]["version"] >= decision["policy_version"])


def execute(decision):
    """Choose the action, trade it, and say what was done."""
    action, why, policy = decision["action"], "as recommended", policies.get(decision["policy_id"])
    if decision["policy_id"] is None:
        return print(f"{decision['decision_id']}: {action}, no policy yet", flush=True)  # nothing to report
    if policy is None:
        action, why = decision["baseline_action"], "its policy is unknown"
    elif policy["status"] == "RETIRED":
        action, why = policy["fallback"], "its policy is retired"
    elif policy["valid_until_ms"] is not None and decision["ts_ms"] > policy["valid_until_ms"]:
        action, why = policy["fallback"], "its policy is past its end"
    # Here the orders go out.
    report = {name: decision[name] for name in ("decision_id", "symbol", "ts_ms", "policy_id", "policy_version",
                                                "baseline_action", "source", "origin")}
    report |= {"recommended_action": decision["action"], "executed_action": action, "applier": applier}
    producer.produce(applied.topic, applied.encode(report), decision["symbol"])
    if producer.flush(30):
        sys.exit("the broker does not acknowledge")
    return print(f"{decision['decision_id']}: {action}, {why}", flush=True)


policies, waiting, left = {}, [], set(partitions(current.topic))
ends = [TopicPartition(decided.topic, p) for p in partitions(decided.topic)]
for end in ends:  # decisions from now on; older ones are too late to execute
    end.offset = consumer.get_watermark_offsets(end, timeout=10)[1]
consumer.assign([*ends, *(TopicPartition(current.topic, p, 0) for p in left)])
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
