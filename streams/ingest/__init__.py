"""Candles in: read files or make synthetic ones, check them, publish them paced with the clock.

    loaded = load(["BTCUSDT-1h-2024-01.zip", "klines/"])      # streams.ingest.merge
    done = publish(settings, loaded, speed=None, lead=24)      # streams.ingest.publish

`files` knows the layouts, `merge` puts series together and says what is wrong with them, `publish` writes instruments,
candles and ticks, `lead` holds the publisher back so that the agents' loop stays closed.
"""

from streams.ingest.files import BadInput
from streams.ingest.merge import Loaded, SeriesReport, load
from streams.ingest.publish import Costs, Published, publish

__all__ = ["BadInput", "Costs", "Loaded", "Published", "SeriesReport", "load", "publish"]
