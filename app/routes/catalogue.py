"""What this server can do."""

from fastapi import APIRouter, Depends

from app import catalogue
from app.callers import REFUSALS, caller_of
from app.services import ServicesDep

router = APIRouter(prefix="/v1", tags=["catalogue"], responses=REFUSALS, dependencies=[Depends(caller_of)])


@router.get("/models")
async def models(services: ServicesDep) -> catalogue.ModelList:
    """List the models, their limits, and whether a worker has them loaded."""
    return catalogue.models(services.settings.served, await services.store.workers())


@router.get("/rewards")
async def rewards(services: ServicesDep) -> catalogue.RewardList:
    """List the rewards, and whether this server has what they need."""
    return catalogue.rewards(services.settings.models, services.settings.rewards)


@router.get("/strategies")
async def strategies() -> catalogue.StrategyList:
    """List the search strategies and the sampler's settings."""
    return catalogue.strategies()
