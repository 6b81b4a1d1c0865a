/** A trading service: applies q_learning's policies to the decisions of its symbols, and reports on policy.applied. */
import { choose, outcome } from './contract.js';
import { Wire, ends, kafka, producing } from './wire.js';

const GRACE_MS = 5000; // how long a decision waits for the policy version that it names
const [applier, ...symbols] = process.argv.slice(2);
const current = new Wire('policy.current');
const decided = new Wire('rl.meta.strategy_selected');
const applied = new Wire('policy.applied');
const outcomes = new Wire('decision.outcome');
const policies = new Map();
const waiting = [];
const admin = kafka.admin();
const producer = kafka.producer(producing);
const consumer = kafka.consumer({ groupId: `${applier}-${process.pid}-${Date.now()}` }); // kafkajs needs one
await Promise.all([admin.connect(), producer.connect(), consumer.connect()]);

/** Whether the version that a decision names, or a later one, is held. */
const known = (d) => d.policy_id === null || policies.get(d.policy_id)?.version >= d.policy_version;

const send = (wire, record) =>
  producer.send({ topic: wire.topic, messages: [{ key: record.symbol, value: wire.encode(record) }] });

/** Choose the action, trade it, and say what was done. */
async function execute(d) {
  const [action, side, why] = choose(d, policies.get(d.policy_id));
  // Here the orders go out.
  if (d.policy_id !== null)
    await send(applied, { ...d, recommended_action: d.action, executed_action: action, applier });
  const ended = outcome(d, side, why);
  if (ended !== undefined) await send(outcomes, ended);
  console.log(`${d.decision_id}: ${action} ${side}, ${why}`);
}

function take(topic, { key, value }) {
  if (topic === decided.topic) {
    const decision = decided.decode(value);
    if (symbols.includes(decision.symbol) && decision.book_id === 'q_learning')
      waiting.push({ decision, until: Date.now() + GRACE_MS });
  } else if (value === null) {
    policies.delete(key.toString()); // retired seven days ago: its key is freed
  } else {
    const policy = current.decode(value);
    if (policy.version > (policies.get(policy.policy_id)?.version ?? 0)) policies.set(policy.policy_id, policy);
  }
}

const next = await ends(admin, decided.topic); // decisions from now on; older ones are too late to execute
const left = await ends(admin, current.topic);
let ready = false;
async function act() {
  if (!ready && !left.size) console.log(`ready with ${policies.size} policies`); // read to the end: now it may act
  ready = !left.size;
  while (ready && waiting.length && (known(waiting[0].decision) || Date.now() > waiting[0].until))
    await execute(waiting.shift().decision);
  setTimeout(act, 100);
}

// kafkajs begins anew whenever it joins its group again, as after a session that expired: no decision is taken twice.
consumer.on(consumer.events.GROUP_JOIN, () => {
  for (const [partition, end] of next) consumer.seek({ topic: decided.topic, partition, offset: String(end) });
});
await consumer.subscribe({ topics: [current.topic, decided.topic], fromBeginning: true });
await consumer.run({
  autoCommit: false,
  eachMessage: async ({ topic, partition, message }) => {
    const end = BigInt(message.offset) + 1n;
    if (topic === current.topic) {
      take(topic, message);
      if (end >= (left.get(partition) ?? 0n)) left.delete(partition);
    } else if (end > (next.get(partition) ?? 0n)) {
      next.set(partition, end);
      take(topic, message);
    }
  },
});
act();
