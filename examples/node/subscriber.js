/** A trading service: applies q_learning's policies to the decisions of its symbols, and reports on policy.applied. */
import { Wire, ends, kafka, producing } from './wire.js';

const GRACE_MS = 5000; // how long a decision waits for the policy version that it names
const [applier, ...symbols] = process.argv.slice(2);
const current = new Wire('policy.current');
const decided = new Wire('rl.meta.strategy_selected');
const applied = new Wire('policy.applied');
const policies = new Map();
const waiting = [];
const admin = kafka.admin();
const producer = kafka.producer(producing);
const consumer = kafka.consumer({ groupId: `${applier}-${process.pid}-${Date.now()}` }); // kafkajs needs one
await Promise.all([admin.connect(), producer.connect(), consumer.connect()]);

/** Whether the version that a decision names, or a later one, is held. */
const known = (d) => d.policy_id === null || policies.get(d.policy_id)?.version >= d.policy_version;

/** The action to execute, and why. */
function choose(decision) {
  const policy = policies.get(decision.policy_id);
  if (decision.policy_id === null) return [decision.action, 'no policy yet'];
  if (policy === undefined) return [decision.baseline_action, 'its policy is unknown'];
  if (policy.status === 'RETIRED') return [policy.fallback, 'its policy is retired'];
  if (policy.valid_until_ms !== null && decision.ts_ms > policy.valid_until_ms)
    return [policy.fallback, 'its policy is past its end'];
  return [decision.action, 'as recommended'];
}

/** Choose the action, trade it, and say what was done. */
async function execute(d) {
  const [action, why] = choose(d);
  // Here the orders go out.
  if (d.policy_id !== null) {
    const report = { ...d, recommended_action: d.action, executed_action: action, applier };
    await producer.send({ topic: applied.topic, messages: [{ key: d.symbol, value: applied.encode(report) }] });
  }
  console.log(`${d.decision_id}: ${action}, ${why}`);
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

const now = await ends(admin, decided.topic); // decisions from now on; older ones are too late to execute
const left = await ends(admin, current.topic);
let ready = false;
async function act() {
  if (!ready && !left.size) console.log(`ready with ${policies.size} policies`); // read to the end: now it may act
  ready = !left.size;
  while (ready && waiting.length && (known(waiting[0].decision) || Date.now() > waiting[0].until))
    await execute(waiting.shift().decision);
  setTimeout(act, 100);
}

await consumer.subscribe({ topics: [current.topic, decided.topic], fromBeginning: true });
await consumer.run({
  autoCommit: false,
  eachMessage: async ({ topic, partition, message }) => {
    const end = BigInt(message.offset) + 1n;
    if (topic === current.topic || end > (now.get(partition) ?? 0n)) take(topic, message);
    if (topic === current.topic && end >= (left.get(partition) ?? 0n)) left.delete(partition);
  },
});
for (const [partition, end] of now) consumer.seek({ topic: decided.topic, partition, offset: String(end) });
act();
