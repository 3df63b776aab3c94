"""Deliver webhooks: `python -m app.webhooks`."""

import sys

from contracts.signals import end_when_told

end_when_told()

from app.webhooks.program import main  # noqa: E402 -- what it imports takes a second

sys.exit(main())
