"""Fill in every default of a submission and check it against what the server can run."""

import secrets
from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import JsonValue, ValidationError

from contracts.baseline import reserved_nfe
from contracts.calibration import scaled_level
from contracts.catalogue import ModelFacts, RewardFacts, SizeFacts
from contracts.destinations import destination
from contracts.errors import FieldProblem, InvalidRequestError
from contracts.heeded import heed_problems, unheeded
from contracts.models import MODELS
from contracts.names import did_you_mean
from contracts.parsing import parse, pointer, posted_path, reward_params_problems, steps_of
from contracts.requests import PRIORITIES, Budget, Caps, GenerationRequest, ResolvedRequest, RewardTerm
from contracts.rewards import BROKEN, REWARD_PARAMS, REWARDS
from contracts.search import (
    AUTHORS,
    OWN_WAY,
    BaseParams,
    BestOfNParams,
    RbfParams,
    Sampler,
    SamplerRequest,
    SearchParams,
    SopParams,
    Strict,
    ZeroOrderParams,
    default_scale,
    rbf_defaults,
)
from contracts.timed import laid_out, timed
from contracts.webhooks import Webhook

StrictT = TypeVar("StrictT", bound=Strict)


def accept(
    payload: object,
    models: Mapping[str, ModelFacts] = MODELS,
    caps: Caps | None = None,
    nfe_per_second: float | None = None,
) -> ResolvedRequest:
    """Check posted JSON and fill in every default: `parse`, then `resolve`.

    Raises:
        InvalidRequestError: with every problem found, each pointing into the JSON as it was posted.
    """
    request = parse(payload)
    try:
        return resolve(request, models, caps, nfe_per_second)
    except InvalidRequestError as error:
        raise InvalidRequestError([as_posted(problem, payload) for problem in error.problems]) from None


def as_posted(problem: FieldProblem, payload: object) -> FieldProblem:
    """Point a problem of the resolved form at the posted one."""
    path = posted_path(steps_of(problem.pointer or ""), payload)
    return problem.model_copy(update={"pointer": pointer(path)})


def resolve(
    request: GenerationRequest,
    models: Mapping[str, ModelFacts] = MODELS,
    caps: Caps | None = None,
    nfe_per_second: float | None = None,
) -> ResolvedRequest:
    """Return the submission with nothing left to default.

    Args:
        request: the submission as posted.
        models: the models this server runs, by id; the first is the default.
        caps: what the server allows in one submission.
        nfe_per_second: of its model, for a budget of time alone; None: not known.

    Raises:
        InvalidRequestError: with every problem found.
    """
    name = request.model or next(iter(models))
    if name not in models:
        raise InvalidRequestError([unknown("/model", "model", name, list(models))])
    model = models[name]
    resolved = filled(with_nfe(request, model, caps or Caps(), nfe_per_second), model, caps or Caps())
    problems = [
        *prompt_problems(resolved.prompt, caps or Caps()),
        *reward_problems(resolved, caps or Caps()),
        *slope_problems(resolved, caps or Caps()),
        *size_problems("/width", resolved.width, model.width),
        *size_problems("/height", resolved.height, model.height),
        *guidance_problems(resolved.guidance_scale, model),
        *input_problems(given=request.image is not None, model=model),
        *heed_problems(request, resolved.sampler.kernel),
        *rbf_problems(resolved),
        *sop_problems(resolved),
        *image_problems(resolved),
        *budget_problems(resolved, caps or Caps()),
        *priority_problems(resolved, caps or Caps()),
        *webhook_problems(resolved.webhook, caps or Caps()),
    ]
    if problems:
        raise InvalidRequestError(problems)
    return resolved


def default_problems(model: ModelFacts) -> list[FieldProblem]:
    """What is wrong with a submission of nothing but a prompt: with the model's own defaults, then."""
    try:
        resolve(GenerationRequest(prompt="a"), {model.id: model}, Caps(rewards=frozenset(REWARDS)))
    except InvalidRequestError as error:
        return [problem for problem in error.problems if problem.pointer != "/image"]
    return []


def with_nfe(
    request: GenerationRequest, model: ModelFacts, caps: Caps, nfe_per_second: float | None
) -> GenerationRequest:
    """Lay out a budget of time alone, for no fewer NFE than its search needs and names."""
    if not timed(request.budget):
        return request
    most, needed = caps.max_nfe // (2 if request.baseline else 1), 1
    while True:  # what rbf needs may depend on its budget
        budget = laid_out(request.budget, nfe_per_second, needed, most)
        laid = request.model_copy(update={"budget": budget})
        resolved = filled(laid, model, caps)
        needed = max(needed_nfe(resolved), planned_nfe(resolved.search))
        if budget.nfe >= min(needed, most):
            return laid


def filled(request: GenerationRequest, model: ModelFacts, caps: Caps) -> ResolvedRequest:
    """Fill in defaults, unchecked."""
    posted = with_defaults(request, model)
    sampler = filled_sampler(posted.sampler, model)
    sampler = sampler.model_copy(update=dict(unheeded(sampler.kernel)))
    terms = tuple(with_params(term) for term in request.reward or (RewardTerm(name=model.reward),))
    return ResolvedRequest(
        prompt=request.prompt,
        model=model.id,
        reward=terms,
        held_out=default_held_out(model, terms) if request.held_out is None else request.held_out,
        budget=request.budget,
        search=filled_search(posted.search, sampler, posted.budget.nfe),
        sampler=sampler,
        num_images=request.num_images,
        width=model.width.default if request.width is None else request.width,
        height=model.height.default if request.height is None else request.height,
        guidance_scale=default_guidance(model) if request.guidance_scale is None else request.guidance_scale,
        seed=secrets.randbelow(2**32) if request.seed is None else request.seed,
        output_format=request.output_format,
        previews=request.previews,
        priority=request.priority or min(("normal", caps.priority), key=PRIORITIES.index),
        baseline=request.baseline,
        webhook=request.webhook,
        metadata=request.metadata,
    )


def with_params(term: RewardTerm) -> RewardTerm:
    """Fill in a reward's parameters where they can be; `reward_params_problems` tells where not."""
    try:
        params = REWARD_PARAMS[term.name].model_validate(term.params)
    except (KeyError, ValidationError):
        return term
    return term.model_copy(update={"params": params.model_dump(mode="json")})


def with_defaults(request: GenerationRequest, model: ModelFacts) -> GenerationRequest:
    """Fill in the model's own settings where the request leaves them open.

    Those of `rbf` hold where the levels lie as on the model's own grid, of whatever number of steps. What is
    made of whole runs goes the way of the model's own pipeline.
    """
    defaults, search = model.defaults, request.search
    own_way = dict(OWN_WAY) if search.own_way else {}
    sampler, own = (
        opened(posted, {**defaults.sampler, **own_way}) for posted in (request.sampler, SamplerRequest())
    )
    as_its_own = (sampler.interpolant, sampler.grid) == (own.interpolant, own.grid)
    if isinstance(search, RbfParams) and not search.upstream and as_its_own:
        steps, own_steps = sampler.steps or model.steps, own.steps or model.steps
        first = RbfParams.model_validate(defaults.rbf).first_level
        placed = {"first_level": scaled_level(first, own_steps, steps)} if steps != own_steps else {}
        search = opened(search, {**defaults.rbf, **placed})
    return request.model_copy(update={"sampler": sampler, "search": search})


def opened(posted: StrictT, defaults: Mapping[str, JsonValue]) -> StrictT:
    """Return the posted settings with defaults for those that were not named."""
    given = posted.model_dump(include=posted.model_fields_set)
    return type(posted).model_validate({**defaults, **given})


def filled_sampler(sampler: SamplerRequest, model: ModelFacts) -> Sampler:
    """Fill in the model's steps and the diffusion's own scale."""
    scale = sampler.diffusion_scale
    return Sampler(
        interpolant=sampler.interpolant,
        kernel=sampler.kernel,
        steps=sampler.steps or model.steps,
        grid=sampler.grid,
        diffusion=sampler.diffusion,
        diffusion_scale=default_scale(sampler.diffusion) if scale is None else scale,
        eta=sampler.eta,
        reward_guidance=sampler.reward_guidance,
    )


def filled_search(search: SearchParams, sampler: Sampler, nfe: int) -> SearchParams:
    """Fill in parameters whose default depends on the sampler or the budget."""
    if isinstance(search, BestOfNParams | ZeroOrderParams) and search.steps is None:
        return search.model_copy(update={"steps": sampler.steps})
    if isinstance(search, RbfParams):
        defaults = AUTHORS if search.upstream else rbf_defaults(nfe, search.model_fields_set)
        unnamed = {name: value for name, value in defaults.items() if name not in search.model_fields_set}
        return search.model_copy(update={**unnamed, "finish_steps": search.finish})
    return search


def default_held_out(model: ModelFacts, terms: Sequence[RewardTerm]) -> tuple[str, ...]:
    """The model's held-out rewards, less those that steer this search."""
    steering = {term.name for term in terms}
    return tuple(name for name in model.held_out if name not in steering)


def default_guidance(model: ModelFacts) -> float | None:
    """The model's guidance scale, where it takes one."""
    return model.guidance.default if model.guidance else None


def unknown(pointer: str, kind: str, name: str, known: Sequence[str]) -> FieldProblem:
    """Describe a name outside a closed table."""
    detail = f"Unknown {kind} '{name[:100]}'.{did_you_mean(name, known)}"
    return FieldProblem(pointer=pointer, detail=detail, allowed=sorted(known))


def prompt_problems(prompt: str, caps: Caps) -> list[FieldProblem]:
    """A prompt has text in it, and no more than the server allows."""
    if not prompt.strip():
        return [FieldProblem(pointer="/prompt", detail="Must not be blank.")]
    if len(prompt) > caps.max_prompt_chars:
        detail = f"Must be at most {caps.max_prompt_chars} characters; this one has {len(prompt)}."
        return [FieldProblem(pointer="/prompt", detail=detail)]
    return []


def reward_problems(resolved: ResolvedRequest, caps: Caps) -> list[FieldProblem]:
    """Steering rewards are known, fit the model and weigh something; held-out ones are known and others."""
    terms, places = resolved.reward, [f"/reward/{i}" for i in range(len(resolved.reward))]
    names = [term.name for term in terms]
    problems = [
        problem
        for place, name in zip(places, names, strict=True)
        for problem in reward_name_problems(f"{place}/name", name, resolved.model, caps)
    ]
    problems += reward_params_problems(terms, places)
    if len(set(names)) < len(names):
        problems.append(FieldProblem(pointer="/reward", detail="Names a reward twice."))
    if all(term.weight == 0 for term in terms):
        problems.append(FieldProblem(pointer="/reward", detail="At least one weight must not be 0."))
    return problems + held_out_problems(resolved, names, caps)


def held_out_problems(resolved: ResolvedRequest, steering: Sequence[str], caps: Caps) -> list[FieldProblem]:
    """A held-out reward must not steer, or over-optimisation would hide."""
    problems: list[FieldProblem] = []
    for index, name in enumerate(resolved.held_out):
        place = f"/held_out/{index}"
        problems += reward_name_problems(place, name, resolved.model, caps)
        if name in steering:
            detail = f"'{name}' steers this search, so it cannot be held out."
            problems.append(FieldProblem(pointer=place, detail=detail))
    return problems


def reward_name_problems(place: str, name: str, model: str, caps: Caps) -> list[FieldProblem]:
    """A reward is in the catalogue, makes sense for the model, and has on this server what it needs."""
    usable = usable_rewards(model, caps)
    if name in usable:
        return []
    if name in REWARDS and not fits(REWARDS[name], model):
        detail = f"'{name}' does not apply to model '{model}'."
    elif name in REWARDS:
        detail = f"'{name}' is not set up on this server: its {REWARDS[name].setting} says nothing of it."
    elif name in BROKEN:
        detail = f"The package that brings '{name}' cannot be used on this server; its log says why."
    else:
        return [unknown(place, "reward", name, usable)]
    return [FieldProblem(pointer=place, detail=detail, allowed=sorted(usable))]


def usable_rewards(model: str, caps: Caps) -> list[str]:
    """Rewards that make sense for the model, and have on this server what they need."""
    return [
        name
        for name, facts in REWARDS.items()
        if fits(facts, model) and (facts.setting is None or name in caps.rewards)
    ]


def fits(facts: RewardFacts, model: str) -> bool:
    """Whether a reward makes sense for the model."""
    return facts.models is None or model in facts.models


def slope_problems(resolved: ResolvedRequest, caps: Caps) -> list[FieldProblem]:
    """Rewards that guide have a gradient, all of them."""
    if not resolved.sampler.reward_guidance:
        return []
    usable = sorted(name for name in usable_rewards(resolved.model, caps) if REWARDS[name].differentiable)
    return [
        FieldProblem(
            pointer=f"/reward/{index}/name",
            detail=f"'{term.name}' is not differentiable, which `sampler.reward_guidance` above 0 needs.",
            allowed=usable,
        )
        for index, term in enumerate(resolved.reward)
        if term.name in REWARDS and not REWARDS[term.name].differentiable
    ]


def size_problems(place: str, size: int, facts: SizeFacts) -> list[FieldProblem]:
    """A width or height in pixels is one the model can make."""
    if facts.minimum <= size <= facts.maximum and size % facts.multiple == 0:
        return []
    if facts.minimum == facts.maximum:
        detail = f"Must be {facts.minimum} for this model."
    else:
        detail = (
            f"Must be a multiple of {facts.multiple} from {facts.minimum} to {facts.maximum} for this model."
        )
    return [FieldProblem(pointer=place, detail=detail)]


def guidance_problems(scale: float | None, model: ModelFacts) -> list[FieldProblem]:
    """A guidance scale is in the model's range, and absent where the model takes none."""
    facts = model.guidance
    if scale is None or (facts and facts.minimum <= scale <= facts.maximum):
        return []
    limits = f"from {facts.minimum} to {facts.maximum}" if facts else "null"
    return [FieldProblem(pointer="/guidance_scale", detail=f"Must be {limits} for model '{model.id}'.")]


def input_problems(*, given: bool, model: ModelFacts) -> list[FieldProblem]:
    """There is an image where the model needs one, and none where it takes none."""
    if given and model.image == "none":
        detail = f"Must be null for model '{model.id}', which draws from a prompt alone."
    elif not given and model.image == "required":
        detail = f"Is required: model '{model.id}' draws from a prompt and an image that it is about."
    else:
        return []
    return [FieldProblem(pointer="/image", detail=detail)]


def rbf_problems(resolved: ResolvedRequest) -> list[FieldProblem]:
    """The parameters of rbf fit each other: nothing is accepted that the search would not heed."""
    search = resolved.search
    if not isinstance(search, RbfParams):
        return []
    rules = [
        (resolved.sampler.steps >= 2, "/sampler/steps", "Must be at least 2 for strategy 'rbf'.", None),
        (
            resolved.sampler.steps < 2 or resolved.sampler.steps >= search.first_level + 2,
            "/search/first_level",
            f"Must be at least 2 less than the sampler's steps, which are {resolved.sampler.steps}.",
            None,
        ),
        (
            not search.upstream or search.first_level == 0,
            "/search/first_level",
            "Must be 0 in mode 'upstream'.",
            "0",
        ),
        (not search.upstream or search.width == 1, "/search/width", "Must be 1 in mode 'upstream'.", "1"),
        (
            not search.upstream or search.finish == 0,
            "/search/finish_steps",
            "Must be 0 in mode 'upstream'.",
            "0",
        ),
        (
            not search.upstream or search.start == "best",
            "/search/start",
            "Must be 'best' in mode 'upstream'.",
            "best",
        ),
        (
            search.start == "best" or search.initial_noises >= search.chains,
            "/search/initial_noises",
            "Must be at least the number of chains with start 'top'.",
            None,
        ),
    ]
    problems = [
        FieldProblem(pointer=place, detail=detail, allowed=[only] if only else None)
        for holds, place, detail, only in rules
        if not holds
    ]
    return problems + plan_problems(search.plan_nfe, search.minimum_nfe(resolved.sampler), resolved.budget)


def plan_problems(planned: int | None, needed: int, budget: Budget) -> list[FieldProblem]:
    """A plan pays for the least search and lies within the budget."""
    if planned is None or needed <= planned <= budget.nfe:
        return []
    detail = f"Must be at least {needed} with these settings, and at most the budget of {budget.nfe}."
    return [FieldProblem(pointer="/search/plan_nfe", detail=detail)]


def planned_nfe(search: SearchParams) -> int:
    """The NFE that the quotas are to be laid out for; 0: those of the budget."""
    return (search.plan_nfe or 0) if isinstance(search, RbfParams) else 0


def sop_problems(resolved: ResolvedRequest) -> list[FieldProblem]:
    """A search over paths comes to an end."""
    search = resolved.search
    if not isinstance(search, SopParams) or search.apart:
        return []
    detail = f"Must be at least 0.01 more than `forward`, which is {search.forward}."
    return [FieldProblem(pointer="/search/back", detail=detail)]


def image_problems(resolved: ResolvedRequest) -> list[FieldProblem]:
    """A search that ends with one picture makes one image."""
    single = isinstance(resolved.search, BaseParams) or (
        isinstance(resolved.search, RbfParams) and resolved.search.upstream
    )
    if single and resolved.num_images > 1:
        detail = "Must be 1 for strategy 'base' and for mode 'upstream', which end with one picture."
        return [FieldProblem(pointer="/num_images", detail=detail)]
    return []


def budget_problems(resolved: ResolvedRequest, caps: Caps) -> list[FieldProblem]:
    """The NFE budget pays for the strategy's least search and stays under the cap."""
    nfe, needed = resolved.budget.nfe, needed_nfe(resolved)
    if over := cap_problems(resolved, caps):
        return over
    if nfe < needed:
        strategy = resolved.search.strategy
        detail = (
            f"Strategy '{strategy}' with these settings needs at least {needed} NFE; the budget is {nfe}."
        )
        return [FieldProblem(pointer="/budget/nfe", detail=detail)]
    return []


def priority_problems(resolved: ResolvedRequest, caps: Caps) -> list[FieldProblem]:
    """A priority is one that the caller may ask for."""
    allowed = PRIORITIES[: PRIORITIES.index(caps.priority) + 1]
    if resolved.priority in allowed:
        return []
    detail = f"Must be at most '{caps.priority}' with this API key."
    return [FieldProblem(pointer="/priority", detail=detail, allowed=list(allowed))]


def cap_problems(resolved: ResolvedRequest, caps: Caps) -> list[FieldProblem]:
    """A search and its baseline together stay under the cap."""
    reserved = reserved_nfe(resolved)
    if reserved <= caps.max_nfe:
        return []
    both = f" with the baseline's, and together they are {reserved}" if resolved.baseline else ""
    detail = f"Must be at most {caps.max_nfe} {caps.whose}{both}."
    return [FieldProblem(pointer="/budget/nfe", detail=detail)]


def needed_nfe(resolved: ResolvedRequest) -> int:
    """The least NFE that yields the images asked for."""
    search, sampler = resolved.search, resolved.sampler
    return max(search.minimum_nfe(sampler), search.candidate_nfe(sampler) * resolved.num_images)


def webhook_problems(webhook: Webhook | None, caps: Caps) -> list[FieldProblem]:
    """A webhook goes where webhooks may go, and names each event once."""
    if webhook is None:
        return []
    problems: list[FieldProblem] = []
    try:
        destination(webhook.url, caps.networks)
    except ValueError as error:
        problems.append(FieldProblem(pointer="/webhook/url", detail=str(error)))
    if len(set(webhook.events)) < len(webhook.events):
        problems.append(FieldProblem(pointer="/webhook/events", detail="Names an event twice."))
    return problems
