"""A worker process of the fitting agent, to be killed by tests.

Usage: fitting_worker.py BROKER PREFIX APP_ID DATA_DIR AGENT
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from schemas import catalogue
from streams.settings import Settings
from streams.worker import serve
from tests.streams.trainers.fitter import NAME, Fitter, catalogue_of_fitter


def main(broker: str, prefix: str, app_id: str, data_dir: str, name: str) -> int:
    """Run until a signal."""
    agents: Any = catalogue.AGENTS
    agents[NAME] = catalogue_of_fitter()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    settings = Settings(broker=broker, topic_prefix=prefix, app_id=app_id, data_dir=Path(data_dir))
    return 0 if serve(settings, {name: Fitter()}) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
