/** Closed trades to execution.trade.closed: one fill a line on standard input, JSON. */
import { createInterface } from 'node:readline';
import { Wire, kafka, producing } from './wire.js';

/** The trade of a fill: what follows from prices, quantity and costs is reckoned here. */
function closed(fill) {
  const sign = fill.side === 'LONG' ? 1 : -1;
  const notional = fill.entry_price * fill.quantity;
  const risk = Math.abs(fill.entry_price - fill.stop_price) * fill.quantity;
  const pnl = sign * (fill.exit_price - fill.entry_price) * fill.quantity - fill.fees - fill.funding;
  return {
    ...fill,
    notional_at_open: notional,
    leverage: notional / fill.equity_at_open,
    risk_at_open: risk,
    pnl_usd: pnl,
    pnl_pct: pnl / fill.equity_at_open,
    r_multiple: pnl / risk,
  };
}

const wire = new Wire('execution.trade.closed');
const producer = kafka.producer(producing);
await producer.connect();
for await (const line of createInterface({ input: process.stdin })) {
  const trade = closed(JSON.parse(line));
  const messages = [{ key: trade.symbol, value: wire.encode(trade) }];
  const [at] = await producer.send({ topic: wire.topic, acks: -1, messages });
  console.log(`${at.topicName}-${at.partition}@${at.baseOffset}`);
}
await producer.disconnect();
