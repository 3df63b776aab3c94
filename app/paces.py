"""Submissions checked, those with a budget of time alone at the pace of what recent jobs took."""

import asyncio

from app.access import Caller
from app.services import Services
from contracts.parsing import parse
from contracts.requests import ResolvedRequest
from contracts.resolution import accept
from contracts.timed import timed


async def accepted(services: Services, caller: Caller, payload: object) -> ResolvedRequest:
    """Check a submission and fill in every default, once and for all.

    Raises:
        InvalidRequestError: it cannot be run.
    """
    request, models = parse(payload), services.settings.served
    model, rate = models.get(request.model or next(iter(models))), None
    if model and timed(request.budget):
        size = (request.width or model.width.default, request.height or model.height.default)
        rate = await nfe_per_second(services, model.id, size)
    return accept(payload, models, caller.caps(services.settings.caps), rate)


async def nfe_per_second(services: Services, model: str, size: tuple[int, int]) -> float | None:
    """Return the rate of a model's recent jobs of a size, else of any; None where nothing is measured."""
    at_size, at_any = await asyncio.gather(services.store.pace(model, size), services.store.pace(model))
    return at_size.nfe_per_second or at_any.nfe_per_second
