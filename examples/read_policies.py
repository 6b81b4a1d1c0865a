"""Newest version of every policy, with nothing of this project but a schema file.

    python examples/read_policies.py 127.0.0.1:19092 policy.current
"""

import io
import json
import sys

import fastavro
from confluent_kafka import Consumer, KafkaError, TopicPartition

broker, topic = sys.argv[1:]
with open("schemas/avsc/policy.current.avsc") as file:
    schema = fastavro.parse_schema(json.load(file))

consumer = Consumer({"bootstrap.servers": broker, "group.id": "example", "enable.auto.commit": False,
                     "enable.partition.eof": True})
left = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
consumer.assign([TopicPartition(topic, partition, 0) for partition in left])
policies = {}
while left:  # read to the end before acting
    message = consumer.poll(10)
    if message is None:
        sys.exit("the broker went silent")
    if message.error() is not None:
        if message.error().code() != KafkaError._PARTITION_EOF:
            sys.exit(str(message.error()))
        left.discard(message.partition())
    elif message.value() is None:  # a retired policy's key was freed
        policies.pop(message.key().decode(), None)
    else:  # C3 01 and the schema's fingerprint, 10 bytes; then Avro
        policy = fastavro.schemaless_reader(io.BytesIO(message.value()[10:]), schema, None)
        held = policies.get(policy["policy_id"])
        if held is None or policy["version"] > held["version"]:
            policies[policy["policy_id"]] = policy
consumer.close()
for policy in policies.values():
    cells = (policy["tabular"] or {"cells": []})["cells"]
    print(policy["policy_id"], policy["version"], policy["status"], {c["state_key"]: c["greedy"] for c in cells})
