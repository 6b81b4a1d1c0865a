"""A subscriber of kafkajs, whose client begins anew whenever it joins its group again, acts on each decision once."""

from __future__ import annotations

import msgspec
import pytest

from streams import topics
from streams.log import LogReader
from streams.settings import Settings
from tests.examples.programs import Tree, missing
from tests.streams.log_fixtures import CODEC, own_names, policy, produce, record
from tests.streams.test_why import decision

DECIDED, APPLIED, CURRENT = "rl.meta.strategy_selected", "policy.applied", "policy.current"
SYMBOL = "BTCUSDT"
INTRUDER = """
import kafkajs from 'kafkajs';
const kafka = new kafkajs.Kafka({ brokers: [process.env.QUANTUM_BROKER], logLevel: 0 });
const [group, topic] = process.argv.slice(2);
const consumer = kafka.consumer({ groupId: group });
await consumer.connect();
await consumer.subscribe({ topic });
const joined = new Promise((done) => consumer.on(consumer.events.GROUP_JOIN, done));
await consumer.run({ autoCommit: false, eachMessage: async () => undefined });
await joined;
await consumer.disconnect();
"""


def test_joining_again_repeats_no_decision(broker: Settings) -> None:
    absent = missing("node")
    if absent is not None:
        pytest.skip(absent)
    settings = own_names(broker)
    topics.apply(settings)
    tree = Tree()
    tree.build("node")
    (tree.folder / "examples/node/intruder.mjs").write_text(INTRUDER)
    produce(settings, [record(CURRENT, policy(1, SYMBOL))])
    client, _ = topics.connect(settings)
    asked = [msgspec.structs.replace(decision(10, symbol=SYMBOL), decision_id=f"{SYMBOL}/q_learning/{n}",
                                     policy_id=f"q_learning/{SYMBOL}") for n in range(3)]
    with tree.started("node", "subscriber", settings, settings.app_id, SYMBOL) as program:
        program.until(lambda lines: any(line.startswith("ready") for line in lines))
        (group,) = [g.group_id for g in client.list_consumer_groups().result().valid
                    if g.group_id.startswith(settings.app_id)]
        for n, one in enumerate(asked):
            if n:  # another member comes and goes: the group is joined again, twice
                topic = f"{settings.topic_prefix}{DECIDED}"
                joined = tree.shell(f"node examples/node/intruder.mjs {group} {topic}", settings)
                assert joined.returncode == 0, joined.stderr
            produce(settings, [record(DECIDED, one)])
            program.until(lambda lines, one=one: any(line.startswith(one.decision_id) for line in lines))
    with LogReader(settings) as log:
        reports = [CODEC.decode(APPLIED, r.value).decision_id for r in log.read(APPLIED)]
    assert reports == [one.decision_id for one in asked]
