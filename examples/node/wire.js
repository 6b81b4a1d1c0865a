/** Records as Quantum Streams writes and reads them: C3 01, the CRC-64-AVRO of the writer's schema, then Avro. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import avro from 'avsc';
import kafkajs from 'kafkajs';
import lz4 from 'lz4js';

const { CompressionCodecs, CompressionTypes, Kafka, logLevel, Partitioners } = kafkajs;

const { QUANTUM_BROKER = '127.0.0.1:19092', QUANTUM_TOPIC_PREFIX = '', QUANTUM_SCHEMAS = 'schemas' } = process.env;

// Most records here are compressed with LZ4, which kafkajs does not read by itself.
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async ({ buffer }) => Buffer.from(lz4.compress(buffer)),
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
});

/** Connected to the broker. A symbol's partition is that of Java's clients (murmur2). */
export const kafka = new Kafka({ brokers: QUANTUM_BROKER.split(','), logLevel: logLevel.ERROR });
export const producing = { createPartitioner: Partitioners.DefaultPartitioner, idempotent: true };

/** C3 01 and the fingerprint of a schema's canonical form, which avsc prints but does not hash in this way. */
function mark(type) {
  const EMPTY = 0xc15d213aa4d7a795n;
  let hash = EMPTY;
  for (const byte of Buffer.from(JSON.stringify(type.schema()))) {
    hash ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) hash = hash & 1n ? (hash >> 1n) ^ EMPTY : hash >> 1n;
  }
  const out = Buffer.from([0xc3, 0x01, 0, 0, 0, 0, 0, 0, 0, 0]);
  out.writeBigUInt64LE(hash, 2);
  return out;
}

/** Encodes by the newest schema of a topic, decodes what any release wrote. */
export class Wire {
  constructor(name) {
    this.topic = QUANTUM_TOPIC_PREFIX + name;
    const read = (...path) => avro.Type.forSchema(JSON.parse(readFileSync(join(QUANTUM_SCHEMAS, ...path))));
    this.type = read('avsc', `${name}.avsc`);
    this.mark = mark(this.type);
    const released = readdirSync(join(QUANTUM_SCHEMAS, 'history', name)).map((file) => read('history', name, file));
    this.resolvers = new Map(released.map((type) => [mark(type).toString('hex'), this.type.createResolver(type)]));
    this.resolvers.set(this.mark.toString('hex'), undefined);
  }

  encode(record) {
    return Buffer.concat([this.mark, this.type.toBuffer(record)]);
  }

  decode(value) {
    const written = value.subarray(0, 10).toString('hex');
    if (!this.resolvers.has(written))
      throw new Error(`${this.topic}: no schema here has the mark ${written}; fetch the newest schemas`);
    return this.type.fromBuffer(value.subarray(10), this.resolvers.get(written));
  }
}

/** What is left to read of a topic, to the end that it has now: end offsets by partition. */
export async function ends(admin, topic) {
  const found = await admin.fetchTopicOffsets(topic);
  return new Map(found.filter((p) => BigInt(p.high) > BigInt(p.low)).map((p) => [p.partition, BigInt(p.high)]));
}
