"""Serve the API: `python -m app`."""

import sys

from contracts.signals import end_when_told

end_when_told()

from app.program import main  # noqa: E402 -- what it imports takes a second

sys.exit(main())
