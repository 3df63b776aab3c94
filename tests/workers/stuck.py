"""A worker whose engine loads without end: ``python -m tests.workers.stuck --model shapes``."""

import sys

from tests.workers import sabotage
from workers import main, resident

if __name__ == "__main__":  # not in the engine, whose start imports the program's module again
    resident.run_engine = sabotage.never_loaded
    sys.exit(main.main())
