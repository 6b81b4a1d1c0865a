"""A worker process of the columnar agent, to be killed and frozen by tests.

Usage: window_worker.py BROKER PREFIX APP_ID DATA_DIR AGENT
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.engines.window import WindowAgent, installed
from streams.settings import Settings
from streams.worker import serve


def main(broker: str, prefix: str, app_id: str, data_dir: str, name: str) -> int:
    """Run until a signal."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    settings = Settings(broker=broker, topic_prefix=prefix, app_id=app_id, data_dir=Path(data_dir))
    with installed(name):
        return 0 if serve(settings, {name: WindowAgent()}) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
