"""The resident engine: one model and its rewards, loaded once and warm for every job."""

import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import torch
from PIL.Image import Image
from PIL.Image import new as new_image
from torch import Tensor

from contracts.jobs import Provenance
from contracts.models import ENTRIES, Entry
from contracts.requests import LEAST_EDGE, ResolvedRequest
from contracts.resolution import accept
from contracts.rewards import BROKEN, PLUGINS, REWARDS, default_params
from models import registry
from models.backend import FlowBackend, ModelLoadError
from models.rewards.composite import Composite, Part
from models.rewards.protocol import Reward, RewardLoadError, checked_score
from sampling.events import Round
from sampling.grids import linear
from sampling.problem import Problem
from sampling.sampler import Sampler
from sampling.search import search
from sampling.state import State
from sampling.strategies import make_strategy
from sampling.strategy import Strategy
from workers.devices import usable
from workers.diagnosis import cause_of, device_fault, out_of_memory
from workers.failures import JobFailedError, ModelFailedError, RewardFailedError
from workers.headroom import Headroom, Kind, memory_of
from workers.loading import refuse_too_large, source_of
from workers.meter import Asking, Clock, Metered, device_wait, nobody
from workers.provenance import device_name, library_versions, reward_versions, weights_sha256
from workers.settings import WorkerSettings
from workers.trial import passes

Needs = Mapping[str, Mapping[str, Any]]
"""For some rewards, by name, what they are made with beside their device."""
PROMPT = "two red circles and a blue square"
"""What a model is warmed up with: one that the rewards of the bundled world can read, too."""
log = logging.getLogger(__name__)


@dataclass
class Search:
    """One request, ready to run: `rounds` runs it, and the rest tells of it.

    The problem's `max_batch` shrinks where memory runs out; `halved` is then called with what it has become.
    """

    request: ResolvedRequest
    problem: Problem
    strategy: Strategy[Any]
    metered: Metered
    held_out: dict[str, Reward]
    provenance: Provenance
    halved: Callable[[int], None] = lambda rows: None  # noqa: ARG005 -- for callers who do not want to know

    @property
    def clock(self) -> Clock:
        """Where the time goes."""
        return self.metered.clock

    def hold_to(self, rows: int | None) -> None:
        """Have at most so many rows in a call; None: no limit."""
        self.problem = replace(self.problem, max_batch=rows)

    def rounds(self, state: State | None = None) -> Iterator[Round[State]]:
        """The search from a state on, round by round; the caller stops it by not asking for more.

        Where memory runs out, it goes on from the latest state with half as many rows in a call; the error
        of a call of one row is raised.
        """
        while True:
            self.metered.made = 0
            try:
                for around in search(self.problem, self.strategy, state):
                    state = around.state
                    self.metered.made = 0
                    yield around
            except Exception as error:
                if not self.fewer_may_do(error):
                    raise
            else:
                return
            self.halve()

    def fewer_may_do(self, error: Exception) -> bool:
        """Whether memory ran out for a call that could have had fewer rows."""
        return out_of_memory(error) and self.metered.rows > 1

    def halve(self) -> None:
        """Have half as many rows in a call as the latest, for which memory ran out.

        For callers that have left the handler of the error: its traceback holds the tensors that memory is
        needed for.
        """
        rows = self.metered.rows // 2
        log.warning("memory ran out for %d rows; at most %d from now on", self.metered.rows, rows)
        self.hold_to(rows)
        torch.cuda.empty_cache()
        self.halved(rows)

    def judge(self, images: Tensor, tick: Callable[[], None] = lambda: None) -> dict[str, list[float]]:
        """The held-out rewards of final pictures [b, 3, h, w], which never steered.

        One that cannot judge this prompt is logged and left out: what was found must not be lost for it.
        `tick` is called after each.
        """
        scores: dict[str, list[float]] = {}
        for name, reward in self.held_out.items():
            try:
                self.metered.asking(name)
                with self.clock.time("reward", RewardFailedError):
                    params = default_params(name)
                    scores[name] = checked_score(name, reward, images, self.request.prompt, params).tolist()
            except RewardFailedError as error:
                log.warning("the held-out reward %s is left out: %s", name, error.__cause__)
            finally:
                self.metered.asking(None)
            tick()
        return scores


@dataclass
class Engine:
    """A loaded model; rewards are loaded when first named, and kept while there is room. One thread uses it.

    `halved` is called whenever memory ran out and a search goes on with half as many rows in a call;
    `asking` whenever a reward is loaded or asked, with its name, and with None when that is over; `stepped`
    after each batch that went through the model or the rewards, and each answer of the scoring service.
    """

    model: str
    entry: Entry
    backend: FlowBackend
    device: torch.device
    weights: str
    needs: Needs = field(default_factory=dict[str, dict[str, Any]])
    reward_devices: Mapping[str, torch.device] = field(default_factory=dict[str, torch.device])
    rewards: dict[str, Reward] = field(default_factory=dict[str, Reward])
    headroom: Headroom = field(default_factory=Headroom)
    halved: Callable[[], None] = lambda: None
    asking: Asking = nobody
    stepped: Callable[[], None] = lambda: None

    @classmethod
    def load(
        cls,
        model: str,
        settings: WorkerSettings,
        needs: Needs | None = None,
        entries: Mapping[str, Entry] = ENTRIES,
    ) -> Self:
        """Load a model and the rewards that its jobs use by default.

        Args:
            model: id in the catalogue.
            settings: where and from what.
            needs: what rewards need to be loaded, by name.
            entries: the catalogue.

        Raises:
            models.registry.UnknownNameError: no such model.
            models.backend.ModelLoadError: its files are missing or not what they should be, or there is no
                device of a name in the settings.
        """
        entry = registry.lookup("model", model, entries)
        source = source_of(model, entry, settings.model_paths.get(model))
        device = usable(entry.device or settings.device)
        named = settings.reward_devices.items()
        devices = {reward: usable(place, "ROLLOVER_REWARD_DEVICES") for reward, place in named}
        refuse_too_large(source, device)
        backend = registry.load_model(source, device)
        engine = cls(model, entry, backend, device, weights_sha256(source.folder), needs or {})
        engine.headroom = Headroom(memory_of(device), entry.max_batch)
        engine.reward_devices = devices
        engine.preload()
        return engine

    def warm_up(self) -> None:
        """Make the calls of a search by default once, so that the first job is not slow.

        Raises:
            models.backend.ModelLoadError: there is no memory for a call of one row.
        """
        try:
            search = self._usual()
            for call in passes(search.metered, self.device, guided=search.problem.guided):
                for rows in (1, 2) if self.entry.compile else (1,):
                    call(rows)
        except Exception as error:
            if out_of_memory(error):
                raise ModelLoadError(no_room(self.entry, self.device)) from error
            if device_fault(error):
                raise
            log.warning("not warmed up, the first job will find what is wrong: %s", cause_of(error))

    def _usual(self) -> Search:
        """A search by default, about a black image where the model needs one."""
        facts = self.entry.facts(self.model)
        size = (max(facts.width.default, LEAST_EDGE), max(facts.height.default, LEAST_EDGE))
        image = new_image("RGB", size) if facts.image == "required" else None
        posted = {"prompt": PROMPT, "image": image and "black"}
        return self.open(accept(posted, {self.model: facts}), image=image)

    def preload(self) -> None:
        """Load the default rewards. One that fails is logged and fails only the jobs that name it."""
        for name in (self.entry.reward, *self.entry.held_out):
            try:
                self.reward(name)
            except Exception:
                log.exception("The reward %s could not be loaded; jobs that name it will fail.", name)

    def reward(self, name: str) -> Reward:
        """A reward, loaded on first use.

        Raises:
            models.registry.UnknownNameError: no such reward.
            models.rewards.protocol.RewardLoadError: it, or the package that brings it, cannot be used.
        """
        if name in BROKEN and name not in REWARDS:
            raise RewardLoadError(BROKEN[name])
        if name not in self.rewards:
            factory = PLUGINS[name].factory if name in PLUGINS else None
            needs = dict(self.needs.get(name, {}))
            if "send" in needs:
                needs["send"] = partial(self._sent, needs["send"])
            self.headroom.forget()
            device = self.reward_devices.get(name, self.device)
            self.asking(name)
            try:
                self.rewards[name] = registry.load_reward(name, device, factory=factory, **needs)
            finally:
                self.asking(None)
        return self.rewards[name]

    def _sent(self, send: Callable[[bytes], bytes], body: bytes) -> bytes:
        """What a service answers; a verdict on many pictures takes many answers, and each is a step."""
        answer = send(body)
        self.stepped()
        return answer

    def open(self, request: ResolvedRequest, before: int = 0, image: Image | None = None) -> Search:
        """Make a request ready: encode its prompt, fetch its rewards. The time goes to `load`.

        Where there is no memory for that, rewards that it does not name make room.

        Args:
            request: its budget is added to what was spent before.
            before: evaluations made by the searches that it goes on from.
            image: that its prompt is about, where it has one.

        Raises:
            workers.failures.JobFailedError: the model or a reward could not be made ready, or there is no
                memory for a call of one row.
        """
        named = {term.name for term in request.reward} | {*request.held_out}
        try:
            return self._opened(request, before, image)
        except JobFailedError as error:
            if not out_of_memory(error) or self.rewards.keys() <= named:
                raise
        # Outside the handler: the error's traceback holds the tensors that memory is needed for.
        self._forget_rewards(self.rewards.keys() - named)
        return self._opened(request, before, image)

    def _forget_rewards(self, names: set[str]) -> None:
        """Have the memory of some rewards back; they are loaded again when a request names them."""
        log.warning("memory ran out; rewards that make room: %s", ", ".join(sorted(names)))
        for name in names:
            del self.rewards[name]
        self.headroom.forget()
        gc.collect()
        torch.cuda.empty_cache()

    def _opened(self, request: ResolvedRequest, before: int, image: Image | None) -> Search:
        """What `open` returns."""
        clock = Clock(device_wait(self.device))
        with clock.time("load", RewardFailedError):
            rewards = {term.name: self.reward(term.name) for term in request.reward}
            held_out = {name: self.reward(name) for name in request.held_out}
        # A backend of an installed package may know nothing of images.
        given = {} if image is None else {"image": image}
        with clock.time("load", ModelFailedError):
            session = self.backend.prepare(
                request.prompt, request.width, request.height, request.guidance_scale, **given
            )
        steering = composite(request, rewards)
        metered = Metered(session, steering, request.prompt, clock, self.asking, self.stepped)
        problem = Problem(
            velocity=metered.velocity,
            score=metered.score,
            slope=metered.slope,
            shape=session.latent_shape,
            seed=request.seed,
            nfe=before + request.budget.nfe,
            sampler=Sampler(**request.sampler.model_dump()),
            forwards_per_nfe=session.forwards_per_nfe,
            keep=request.num_images,
            device=self.device,
            # Nor need it know of times.
            schedule=getattr(session, "schedule", linear),
        )
        strategy = make_strategy(request.search.strategy, request.search.parameters(request.sampler))
        provenance = self._provenance(request, rewards | held_out)
        kind = kind_of(request, problem, with_image=image is not None)
        lower = partial(self._lower, kind)
        opened = Search(request, problem, strategy, metered, held_out, provenance, lower)
        with clock.time("load", ModelFailedError):
            trial = passes(metered, self.device, guided=problem.guided)
            opened.hold_to(self.headroom.rows(kind, trial))
        return opened

    def _lower(self, kind: Kind, rows: int) -> None:
        """Memory ran out: later searches of the kind begin with what was left."""
        self.headroom.lower(kind, rows)
        self.halved()

    def _provenance(self, request: ResolvedRequest, rewards: dict[str, Reward]) -> Provenance:
        return Provenance(
            model=self.model,
            weights_sha256=self.weights,
            rewards=reward_versions(rewards),
            libraries=library_versions(),
            device=device_name(self.device),
            seed=request.seed,
            mode=getattr(request.search, "mode", None),
        )


def kind_of(request: ResolvedRequest, problem: Problem, *, with_image: bool) -> Kind:
    """What decides how much memory a row of this search takes."""
    names = frozenset(term.name for term in request.reward)
    passes = problem.forwards_per_nfe
    return Kind(request.width, request.height, passes, names, problem.guided, with_image)


def no_room(entry: Entry, device: torch.device) -> str:
    """Say that a model does not fit, and what to do."""
    size = f"{entry.width.default} x {entry.height.default}"
    return (
        f"not enough memory on {device} for one picture of {size} pixels: set dtype = 'bfloat16', "
        "quantisation, vae_tiling = true or a smaller default size in the catalogue, or choose another device"
    )


def composite(request: ResolvedRequest, rewards: dict[str, Reward]) -> Composite:
    """The weighted sum that steers: each reward normalised by the catalogue's constants."""
    parts: dict[str, Part] = {}
    for term in request.reward:
        facts = REWARDS[term.name]
        parts[term.name] = Part(rewards[term.name], term.weight, facts.mean, facts.scale, term.params)
    return Composite(parts)
