"""Whether generations can run now, and if not, why."""

from collections.abc import Sequence

from redis.exceptions import RedisError

from app.services import Services
from contracts.beats import WorkerBeat, WorkerState


async def reasons_not_ready(services: Services) -> list[str]:
    """Return why generations cannot run now; nothing where they can."""
    try:
        workers = await services.store.workers()
    except RedisError:
        return ["Redis cannot be reached."]
    found = [why_not(model, workers) for model in services.settings.models]
    return [reason for reason in found if reason]


def why_not(model: str, workers: Sequence[WorkerBeat]) -> str | None:
    """Return why a model cannot run now, or None."""
    states = {worker.state for worker in workers if worker.model == model}
    if not states:
        return f"No live worker for model '{model}'."
    if states == {WorkerState.LOADING}:
        return f"The worker for model '{model}' is still loading it."
    return None
