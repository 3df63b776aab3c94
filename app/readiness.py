"""Whether generations can run now, and if not, why."""

from collections.abc import Sequence

from redis.exceptions import RedisError

from app.services import Services
from contracts.beats import WorkerBeat, WorkerState


async def reasons_not_ready(services: Services) -> list[str]:
    """Return why generations cannot run now; nothing where they can."""
    try:
        workers = await services.store.workers()
        troubles = await services.store.troubles(services.settings.models)
    except RedisError:
        return ["Redis cannot be reached."]
    if not services.access.local:  # anybody may ask, and such a text names folders and repositories
        troubles = [trouble and "its worker's log says why" for trouble in troubles]
    models = zip(services.settings.models, troubles, strict=True)
    found = [why_not(model, workers, trouble) for model, trouble in models]
    return [reason for reason in found if reason]


def why_not(model: str, workers: Sequence[WorkerBeat], trouble: str | None) -> str | None:
    """Return why a model cannot run now, or None; `trouble`: why no engine of it could be started lately."""
    states = {worker.state for worker in workers if worker.model == model}
    if any(state.serving for state in states):
        return None
    reason = f"No live worker for model '{model}'."
    if WorkerState.WARMING in states:
        reason = f"The worker for model '{model}' has loaded it and is warming up."
    elif states:
        reason = f"The worker for model '{model}' is still loading it."
    return f"{reason} Its last engine could not be started: {trouble}." if trouble else reason
