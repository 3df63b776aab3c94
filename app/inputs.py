"""Read the image of a submission: from base64 to pixels that a worker can rely on, or a refusal.

What is stored is a file of our own making: upright, without an alpha channel, and without whatever else the
posted one said of its maker. A worker never opens what a client has written.
"""

import asyncio
import base64
import hashlib
import io
import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image, ImageOps

from contracts.errors import FieldProblem, InvalidRequestError
from contracts.requests import LEAST_EDGE, InputImage

THREADS = 2
"""Images that are read at once: one of 16 million pixels takes up to 240 MB for a second or two."""
FORMATS = ("PNG", "JPEG")
DATA_URL = re.compile(r"data:image/(?:png|jpe?g)(?:;[\w.=-]+)*;base64,", re.ASCII | re.IGNORECASE)
DEEP = ("I", "F")
"""What the modes of grey pictures of more than 8 bits begin with."""
LONGEST_SHAPE = 8
"""How many times the other an edge may be: FLUX.2 takes no longer shapes."""
KEPT_PIXELS = 2048**2
"""Most pixels that are stored: no model looks at more than a million, and the store shall not fill up."""
SPEED = 1
"""Of PNG's compression: files are a tenth larger than by default, in two thirds of the time."""


class UnusableImageError(ValueError):
    """An image that is refused; the message says what is allowed."""


@dataclass(frozen=True)
class Input:
    """An image that was posted: its facts, and the PNG file that is stored."""

    facts: InputImage
    png: bytes


class Inputs:
    """Reads images, in threads of its own: decoding must not hold up what else the server does.

    Args:
        most_bytes: of a file.
        most_pixels: of a picture.
    """

    def __init__(self, most_bytes: int, most_pixels: int) -> None:
        self.most_bytes = most_bytes
        self.most_pixels = most_pixels
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="inputs")

    def close(self) -> None:
        """Wait for nothing that is under way."""
        self.threads.shutdown(wait=False, cancel_futures=True)

    async def read(self, text: str) -> Input:
        """Read an image as it was posted.

        Raises:
            InvalidRequestError: it cannot be used.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self.threads, self.decoded, text)
        except UnusableImageError as error:
            raise InvalidRequestError([FieldProblem(pointer="/image", detail=str(error))]) from None

    def decoded(self, text: str) -> Input:
        """Read an image. Raises UnusableImageError."""
        content = file_of(text, self.most_bytes)
        try:
            # Only what these two read is run on it.
            with Image.open(io.BytesIO(content), formats=FORMATS) as posted:
                self.check(posted)
                picture = upright(posted)
        except UnusableImageError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise self.too_large() from None
        except Exception as error:  # Pillow raises whatever its parts raise
            detail = "Must be a PNG or JPEG file that is whole: this one cannot be read."
            raise UnusableImageError(detail) from error
        stored = io.BytesIO()
        shrunk(picture).save(stored, "PNG", compress_level=SPEED)
        facts = InputImage(
            width=picture.width,
            height=picture.height,
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        return Input(facts, stored.getvalue())

    def check(self, posted: Image.Image) -> None:
        """Refuse by what the file says of itself, before any pixel is unpacked."""
        short, long = sorted(posted.size)
        if short * long > self.most_pixels:
            raise self.too_large()
        if short < LEAST_EDGE or long > LONGEST_SHAPE * short:
            raise UnusableImageError(
                f"Must have at least {LEAST_EDGE} pixels a side and at most {LONGEST_SHAPE} times as many "
                f"the other way; this one has {posted.width} x {posted.height}."
            )
        # Cameras put further pictures behind the one that a JPEG file shows.
        if posted.format == "PNG" and getattr(posted, "is_animated", False):
            raise UnusableImageError("Must be one picture: this PNG file is an animation.")
        if posted.mode.startswith(DEEP):
            raise UnusableImageError("Must have 8 bits a channel.")

    def too_large(self) -> UnusableImageError:
        """Describe a picture of too many pixels."""
        return UnusableImageError(f"Must have at most {self.most_pixels} pixels.")


def file_of(text: str, most: int) -> bytes:
    """Return the bytes of the file in a data URL, or in base64. Raises UnusableImageError."""
    if text[:5].lower() == "data:":
        head = DATA_URL.match(text)
        if not head:
            detail = "Must begin with 'data:image/png;base64,' or 'data:image/jpeg;base64,' as a data URL."
            raise UnusableImageError(detail)
        text = text[head.end() :]
    elif "://" in text[:100]:
        raise UnusableImageError(
            "Must be the file itself, in base64 or as a data URL: no address is fetched."
        )
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise UnusableImageError("Must be base64, or a data URL.") from None
    if not content or len(content) > most:
        raise UnusableImageError(f"Must be a file of 1 to {most} bytes; this one has {len(content)}.")
    return content


def upright(posted: Image.Image) -> Image.Image:
    """Return the picture as it is meant to be seen: RGB, turned as its EXIF says, on white where clear."""
    ImageOps.exif_transpose(posted, in_place=True)
    if not posted.has_transparency_data:
        return posted.convert("RGB")
    clear = posted.convert("RGBA")
    seen = Image.new("RGB", clear.size, "white")
    seen.paste(clear, mask=clear.getchannel("A"))
    return seen


def shrunk(picture: Image.Image) -> Image.Image:
    """Return the picture with at most `KEPT_PIXELS`."""
    scale = math.sqrt(KEPT_PIXELS / (picture.width * picture.height))
    if scale >= 1:
        return picture
    size = (math.floor(picture.width * scale), math.floor(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS)
