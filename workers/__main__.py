"""``python -m workers --model shapes``."""

import sys

from workers.main import main

sys.exit(main())
