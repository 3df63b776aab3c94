"""``python -m workers --model shapes``."""

import sys

from contracts.signals import end_when_told

end_when_told()

from workers.main import main  # noqa: E402 -- what it imports takes a second

sys.exit(main())
