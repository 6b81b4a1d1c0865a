"""Everything on topics as JSON lines: python examples/python/show.py policy.applied execution.trade.closed"""

import json
import sys

from confluent_kafka import Consumer, TopicPartition
from wire import BROKER, Wire

consumer = Consumer({"bootstrap.servers": BROKER, "group.id": "none", "enable.auto.commit": False})
for wire in map(Wire, sys.argv[1:]):
    found = consumer.list_topics(wire.topic, timeout=10).topics[wire.topic].partitions
    places, left = [TopicPartition(wire.topic, partition) for partition in found], {}
    for place in places:
        place.offset, end = consumer.get_watermark_offsets(place, timeout=10)
        if end > place.offset:
            left[place.partition] = end
    consumer.assign(places)
    while left:
        message = consumer.poll(10)
        if message is None or message.error() is not None:
            sys.exit(f"{wire.topic}: {'the broker went silent' if message is None else message.error().str()}")
        if message.value() is not None:
            print(json.dumps(wire.decode(message.value()), default=lambda weights: weights.decode("latin-1")))
        if message.offset() + 1 >= left.get(message.partition(), 0):
            left.pop(message.partition(), None)
