"""Looks the records of an evidence file up again, with nothing of this project: says which claim fell.

    python examples/recheck.py evidence.json --broker 127.0.0.1:19092
"""

import argparse
import json
import re
import sys
from hashlib import sha256
from struct import pack

from confluent_kafka import Consumer, TopicPartition

parser = argparse.ArgumentParser()
parser.add_argument("file", type=argparse.FileType("rb"))
parser.add_argument("--broker", required=True)
args = parser.parse_args()
client = Consumer({"bootstrap.servers": args.broker, "group.id": "recheck", "enable.auto.commit": False,
                   "auto.offset.reset": "earliest", "enable.partition.eof": True, "fetch.wait.max.ms": 10})
cluster = client.list_topics(timeout=10)


def framed(part):
    return pack(">i", -1) if part is None else pack(">i", len(part)) + part


def problem(topic, partition, offset, digest):
    if topic not in cluster.topics or partition not in cluster.topics[topic].partitions:
        return "no such topic or partition"
    client.assign([TopicPartition(topic, partition, offset)])
    message = client.poll(10)
    if message is None or message.error() or message.offset() != offset:
        return "not there any more"
    headers = message.headers() or []
    raw = pack(">q", message.timestamp()[1]) + framed(message.key()) + framed(message.value())
    raw += pack(">I", len(headers)) + b"".join(framed(k.encode()) + framed(v or b"") for k, v in headers)
    return None if sha256(raw).hexdigest() == digest else "other bytes"


first, *lines = (data := args.file.read()).split(b"\n")
head = re.fullmatch(rb'{"schema":"quantum.evidence/1","header":(.*),"sha256":"(.*)","claims":\[', first)
if head is None or sha256(head[1]).hexdigest().encode() != head[2]:
    sys.exit("header FELL: the file was altered")
header, fell, cache = json.loads(head[1]), [], {}
if cluster.cluster_id != header["cluster_id"]:
    sys.exit(f"evidence of cluster {header['cluster_id']}, but {args.broker} is {cluster.cluster_id}")
claims = {sha256(x[9:-77]).hexdigest(): x for x in (line.removesuffix(b",") for line in lines)}  # cut out of its line
for name, digest in header["claims"].items():
    line, why = claims.get(digest, b""), "the file was altered"
    if line == b'{"claim":%s,"sha256":"%s"}' % (line[9:-77], digest.encode()):
        places = {(r["topic"], r["partition"], r["offset"]): r["sha256"] for r in json.loads(line)["claim"]["records"]}
        for place in places.keys() - cache.keys():
            cache[place] = problem(header["topic_prefix"] + place[0], *place[1:], places[place])
        why = next((f"{topic}-{p}@{o}: {cache[topic, p, o]}" for topic, p, o in places if cache[topic, p, o]), None)
    print(name, "HOLDS" if why is None else f"FELL: {why}")
    fell += [] if why is None else [name]
if not fell and data != first + b"\n" + b",\n".join(claims[d] for d in header["claims"].values()) + b"\n]}\n":
    fell = ["file, outside of its claims"]
sys.exit(f"FELL: {', '.join(fell)}" if fell else 0)
