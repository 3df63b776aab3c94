"""What the search tells, in the words of the contracts."""

from contracts.events import CandidateEvent, Decision, LevelEvent
from contracts.jobs import LevelRecord, Progress
from contracts.requests import ResolvedRequest
from sampling.events import Candidate, Level
from sampling.state import State


def candidate_event(candidate: Candidate) -> CandidateEvent:
    """The event of one evaluation."""
    return CandidateEvent(
        nfe=candidate.nfe,
        chain=candidate.chain,
        level=candidate.level,
        t=candidate.t,
        t_next=candidate.t_next,
        draw=candidate.draw,
        parent=candidate.parent,
        reward=candidate.reward,
        rewards=candidate.rewards,
        best_reward=candidate.best_reward,
        decision=Decision(candidate.decision),
        quota=candidate.quota,
        carried=candidate.carried,
    )


def level_event(level: Level) -> LevelEvent:
    """The event of a chain that has done with a level."""
    return LevelEvent(**level_record(level).model_dump())


def level_record(level: Level) -> LevelRecord:
    """The line of the result that tells of a level."""
    return LevelRecord(
        chain=level.chain,
        level=level.level,
        t=level.t,
        reward=level.reward,
        best_reward=level.best_reward,
        draws=level.draws,
        quota=level.quota,
        carried=level.carried,
    )


def progress(state: State, request: ResolvedRequest, before: int = 0) -> Progress:
    """How far a search is since `before` evaluations; its level is that of the chain that is furthest."""
    steps = request.sampler.steps
    return Progress(
        nfe_spent=state.ledger.nfe_spent - before,
        nfe_budget=request.budget.nfe,
        level=min(max((level.level for level in state.levels), default=0), steps),
        levels=steps,
        best_reward=state.best_reward,
    )
