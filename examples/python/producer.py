"""Closed trades to execution.trade.closed: one fill a line on standard input, JSON.

python examples/python/producer.py < examples/fills.jsonl
"""

import json
import sys

from confluent_kafka import Producer
from wire import BROKER, Wire


def closed(fill):
    """The trade of a fill: what follows from prices, quantity and costs is reckoned here."""
    sign = 1 if fill["side"] == "LONG" else -1
    notional = fill["entry_price"] * fill["quantity"]
    risk = abs(fill["entry_price"] - fill["stop_price"]) * fill["quantity"]
    gross = sign * (fill["exit_price"] - fill["entry_price"]) * fill["quantity"]
    pnl = gross - fill["fees"] - fill["funding"]
    return fill | {
        "notional_at_open": notional,
        "leverage": notional / fill["equity_at_open"],
        "risk_at_open": risk,
        "pnl_usd": pnl,
        "pnl_pct": pnl / fill["equity_at_open"],
        "r_multiple": pnl / risk,
    }


def told(error, message):
    if error is not None:
        sys.exit(f"not acknowledged: {error.str()}")
    print(f"{message.topic()}-{message.partition()}@{message.offset()}")


# murmur2 puts a symbol on the partition that Java's clients choose; another partitioner does no harm.
producer = Producer({"bootstrap.servers": BROKER, "enable.idempotence": True, "partitioner": "murmur2_random"})
wire = Wire("execution.trade.closed")
for line in sys.stdin:
    trade = closed(json.loads(line))
    producer.produce(wire.topic, wire.encode(trade), trade["symbol"], on_delivery=told)
if producer.flush(30):
    sys.exit("the broker did not acknowledge everything in 30 s; sending the same lines again does no harm")
