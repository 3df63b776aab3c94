"""The image that a prompt is about, from where the API has stored it."""

import io
import logging
from collections.abc import Callable

from PIL import Image

from contracts.jobs import Record
from contracts.keys import input_path
from workers.failures import StorageFailedError
from workers.store import ArtifactStore

LOST = "The image that the prompt is about is gone from the artifact store, or not whole: submit it again."
log = logging.getLogger(__name__)


def input_image(store: ArtifactStore, record: Record, tick: Callable[[], None]) -> Image.Image | None:
    """A job's image, RGB; None: it goes by its prompt alone.

    Args:
        store: of the job's files.
        record: the job.
        tick: called while the store is waited for.

    Raises:
        StorageFailedError: it is not there any more, or not whole; or the store refuses.
    """
    if record.request.image is None:
        return None
    content = store.need(input_path(record.id), tick)
    try:
        with Image.open(io.BytesIO(content or b""), formats=["PNG"]) as stored:
            return stored.convert("RGB")
    except Exception as error:  # noqa: BLE001 -- Pillow raises whatever its parts raise
        log.warning("the image of %s cannot be read: %s", record.id, error)
        raise StorageFailedError(LOST) from None
