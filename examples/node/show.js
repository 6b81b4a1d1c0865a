/** Everything on topics as JSON lines. */
import { Wire, ends, kafka } from './wire.js';

/** Bytes (the weights of a network) as Avro's JSON has them. */
const plain = (_, v) => (v?.type === 'Buffer' ? Buffer.from(v.data).toString('latin1') : v);

const admin = kafka.admin();
await admin.connect();
for (const wire of process.argv.slice(2).map((topic) => new Wire(topic))) {
  const left = await ends(admin, wire.topic);
  const consumer = kafka.consumer({ groupId: `show-${process.pid}-${Date.now()}` });
  await consumer.connect();
  await consumer.subscribe({ topic: wire.topic, fromBeginning: true });
  await new Promise((done, failed) => {
    if (!left.size) return done();
    consumer.on(consumer.events.CRASH, ({ payload }) => payload.restart || failed(payload.error));
    return consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        if (message.value !== null) console.log(JSON.stringify(wire.decode(message.value), plain));
        if (left.has(partition) && BigInt(message.offset) + 1n >= left.get(partition)) left.delete(partition);
        if (!left.size) done();
      },
    });
  });
  await consumer.disconnect();
}
await admin.disconnect();
