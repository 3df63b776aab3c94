"""Reward given by a scoring service of the server's owner."""

import base64
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from models.rewards.protocol import Facts, RewardLoadError, RewardValueError

MOST = 16
"""Pictures in one request."""
WANTED = 'it must answer with {"scores": [{"id": ..., "score": number}, ...]}, one for each image sent'
BOUND = torch.finfo(torch.float32).max
Send = Callable[[bytes], bytes]
"""Posts a JSON document and returns the one that came back, or raises."""


class Http:
    """What a service answers to the prompt and the pictures, each sent as PNG with an id that must come back.

    The request is `{"prompt": text, "images": [{"id": text, "png": base64}, ...]}`, with at most 16 images.
    The same picture must get the same score in any company.
    """

    facts: ClassVar[Facts] = Facts(
        minimum=None, maximum=None, differentiable=False, source="the service's owner"
    )

    def __init__(self, device: torch.device | str = "cpu", send: Send | None = None) -> None:
        if send is None:
            raise RewardLoadError("reward 'http' has no service on this server: set ROLLOVER_REWARD_URL")
        self.device = torch.device(device)
        self.send = send

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """See `models.rewards.protocol.Reward.score`.

        Raises:
            RewardValueError: the answer is not what a service must answer; it says what was wrong.
        """
        scores = [score for batch in images.split(MOST) for score in self._asked(batch, prompt)]
        return torch.tensor(scores, dtype=torch.float32, device=self.device)

    def _asked(self, images: Tensor, prompt: str) -> list[float]:
        # No two requests share an id, so that a service which answers to another one is found out.
        pictures = {f"{row}-{secrets.token_hex(4)}": png(image) for row, image in enumerate(images)}
        sent = [{"id": name, "png": base64.b64encode(data).decode()} for name, data in pictures.items()]
        answer = self.send(json.dumps({"prompt": prompt, "images": sent}).encode())
        return in_order(answer, list(pictures))


def png(image: Tensor) -> bytes:
    """PNG file of a picture [3, h, w] in [0, 1]."""
    pixels = (image.detach().float() * 255).round().clamp(0, 255).to("cpu", torch.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def in_order(answer: bytes, names: Sequence[str]) -> list[float]:
    """The scores of the pictures with these ids, in this order, whatever the answer's is.

    Raises:
        RewardValueError: an id is missing, strange or twice there, a score is no finite number, or the
            answer is of another form.
    """
    try:
        pairs = list(scored(json.loads(answer)))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RewardValueError(f"reward 'http': {WANTED}") from error
    found = dict(pairs)
    if len(pairs) != len(names) or found.keys() != set(names):
        strange = len(found.keys() - set(names))
        raise RewardValueError(
            f"reward 'http': it answered with {len(pairs)} scores for {len(names)} images, "
            f"{strange} of them with an id that was not sent; {WANTED}"
        )
    bad = [name for name in names if not -BOUND < found[name] < BOUND]
    if bad:
        raise RewardValueError(f"reward 'http': the score {str(found[bad[0]])[:20]} is not finite; {WANTED}")
    return [found[name] for name in names]


def scored(answer: Any) -> Iterator[tuple[str, float]]:  # noqa: ANN401 JSON of somebody else's
    """The ids and scores of an answer; raises TypeError or KeyError where it is of another form."""
    for entry in answer["scores"]:
        name, score = entry["id"], entry["score"]
        if not isinstance(name, str) or isinstance(score, bool) or not isinstance(score, int | float):
            raise TypeError
        yield name, score
