"""Whose turn it is: no job is lost or doubled by any order of moves, and lines share by their weights."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from contracts.requests import PRIORITIES, Priority
from contracts.turns import (
    ADVANCE_SCRIPT,
    AHEAD_SCRIPT,
    GIVE_BACK_SCRIPT,
    LEAVE_SCRIPT,
    LINE,
    WEIGHTS,
    cost,
    line_keys,
    member_of,
    turn_of,
)

KEYS = line_keys("rq:queue:rollover:m", "m")
LIST, LINE_KEY, TURN_KEY = KEYS
TAKEN, RUNNING = f"{LIST}:intermediate", "rq:wip:rollover:m"
JOIN_SCRIPT = f"{LINE}\njoin(KEYS[1], KEYS[2], KEYS[3], ARGV[1], tonumber(ARGV[2]))"


@dataclass(frozen=True)
class Waiting:
    """A job and what decides its turn."""

    id: str
    owner: str
    priority: Priority
    nfe: int

    @property
    def member(self) -> str:
        return member_of(self.id, self.owner, self.priority)

    @property
    def line(self) -> tuple[str, Priority]:
        return self.owner, self.priority

    @property
    def cost(self) -> float:
        return cost(self.nfe, self.priority)


@dataclass
class Queue:
    """The line in a real store, moved as the API and the workers move it."""

    redis: Any
    taken: list[Waiting] = field(default_factory=list[Waiting])
    waiting: dict[str, Waiting] = field(default_factory=dict[str, Waiting])
    numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.redis.flushall()

    def join(self, owner: str = "a", priority: Priority = "normal", nfe: int = 100) -> Waiting:
        job = Waiting(f"gen_{next(self.numbers):06}", owner, priority, nfe)
        self.redis.eval(JOIN_SCRIPT, 3, *KEYS, job.member, job.cost)
        self.waiting[job.id] = job
        return job

    def advance(self) -> None:
        self.redis.eval(ADVANCE_SCRIPT, 3, *KEYS)

    def pop(self) -> Waiting | None:
        """Take a job as BLMOVE does, and no more: the taker may die after it."""
        found = self.redis.lmove(LIST, TAKEN, "LEFT", "RIGHT")
        if found is None:
            return None
        job = self.waiting.pop(found)
        self.taken.append(job)
        return job

    def take(self) -> Waiting | None:
        """Take a job as a worker does that lives."""
        self.advance()
        job = self.pop()
        self.advance()
        return job

    def leave(self, job: Waiting) -> bool:
        left = bool(self.redis.eval(LEAVE_SCRIPT, 4, *KEYS, f"rq:job:{job.id}", job.member))
        self.waiting.pop(job.id, None)
        return left

    def begin(self, job: Waiting, execution: str = "ours") -> None:
        """Have an execution of a job, as RQ has it."""
        self.redis.lrem(TAKEN, 1, job.id)
        self.redis.hset(f"rq:job:{job.id}", mapping={"origin": "rollover:m", "status": "started"})
        self.redis.zadd(RUNNING, {f"{job.id}:{execution}": 1})

    def put_back(self, job: Waiting, *, behind: bool = False) -> bool:
        keys = [*KEYS, TAKEN, RUNNING, f"rq:job:{job.id}"]
        turn = [job.member, job.cost] if behind else []
        return bool(self.redis.eval(GIVE_BACK_SCRIPT, len(keys), *keys, job.id, f"{job.id}:ours", *turn))

    def give_back(self, job: Waiting, *, behind: bool = False) -> None:
        self.begin(job)
        assert self.put_back(job, behind=behind)
        assert not self.put_back(job, behind=behind), "done twice it is done once"
        self.taken.remove(job)
        self.waiting[job.id] = job

    def ahead(self, owner: str, priority: Priority, nfe: int) -> int:
        return self.redis.eval(AHEAD_SCRIPT, 3, *KEYS, member_of("", owner, priority), cost(nfe, priority))

    def shown(self) -> list[str]:
        return self.redis.lrange(LIST, 0, -1)

    def held(self) -> list[str]:
        """Every job that waits anywhere, as often as it does."""
        behind = [member.partition(":")[0] for member in self.redis.zrange(LINE_KEY, 0, -1)]
        return sorted([*self.shown(), *behind])

    def drained(self) -> list[Waiting]:
        return list(iter(self.take, None))


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return Queue(redis)


jobs = st.tuples(st.sampled_from("abc"), st.sampled_from(PRIORITIES), st.integers(1, 500))
moves = st.one_of(
    st.tuples(st.just("join"), jobs),
    st.tuples(st.sampled_from(["pop", "take", "advance"]), st.none()),
    st.tuples(st.sampled_from(["leave", "give_back", "give_back_behind", "leave_taken"]), st.integers(0, 99)),
)


def moved(queue: Queue, move: str, what: Any) -> None:  # noqa: ANN401 -- what a move is made with
    """Make one move, if there is anything to make it with."""
    if move == "join":
        queue.join(*what)
    elif move in {"pop", "take", "advance"}:
        getattr(queue, move)()
    elif move == "leave" and queue.waiting:
        assert queue.leave(list(queue.waiting.values())[what % len(queue.waiting)])
    elif move == "give_back" and queue.taken:
        queue.give_back(queue.taken[what % len(queue.taken)])
    elif move == "give_back_behind" and queue.taken:
        queue.give_back(queue.taken[what % len(queue.taken)], behind=True)
    elif move == "leave_taken" and queue.taken:
        assert not queue.leave(queue.taken[what % len(queue.taken)])


@given(plan=st.lists(moves, max_size=40))
@settings(max_examples=60, deadline=None)
def test_a_job_waits_in_exactly_one_place_after_any_moves(valkey_url: str, plan: list[Any]) -> None:
    with Redis.from_url(valkey_url, decode_responses=True) as redis:
        queue = Queue(redis)
        for move, what in plan:
            moved(queue, move, what)
            assert queue.held() == sorted(queue.waiting)
        waited = set(queue.waiting)
        queue.advance()
        assert bool(queue.shown()) == bool(waited)
        assert {job.id for job in queue.drained()} == waited
        assert queue.waiting == {}
        assert redis.keys("rollover:*") == []


@given(plan=st.lists(st.one_of(jobs, st.none()), max_size=60))
@settings(max_examples=60, deadline=None)
def test_the_order_is_that_of_the_finish_tags(valkey_url: str, plan: list[Any]) -> None:
    with Redis.from_url(valkey_url, decode_responses=True) as redis:
        queue = Queue(redis)
        tags: dict[str, float] = {}
        last: dict[Any, float] = defaultdict(float)
        clock = 0.0
        for what in [*plan, *[None] * len(plan)]:
            if what:
                job = queue.join(*what)
                last[job.line] = tags[job.id] = max(clock, last[job.line]) + job.cost
                continue
            expected = min(tags, key=lambda id_: (tags[id_], id_), default=None)
            job = queue.take()
            assert (job.id if job else None) == expected
            if not job:
                clock = 0.0
                last.clear()
                continue
            clock = tags.pop(job.id)
            if not tags:
                clock = 0.0
                last.clear()


@given(backlog=st.lists(jobs, min_size=2, max_size=40))
@settings(max_examples=60, deadline=None)
def test_lines_that_wait_share_the_nfe_by_their_weights(valkey_url: str, backlog: list[Any]) -> None:
    """Golestani's bound: what two lines got in proportion to their weights is never further apart."""
    with Redis.from_url(valkey_url, decode_responses=True) as redis:
        queue = Queue(redis)
        joined = [queue.join(*job) for job in backlog]
        costs = {line: [job.cost for job in joined if job.line == line] for line in {j.line for j in joined}}
        got = dict.fromkeys(costs, 0.0)
        while (job := queue.take()) is not None:
            got[job.line] += job.cost
            still = {other.line for other in queue.waiting.values()}
            for one in still:
                for other in still:
                    assert abs(got[one] - got[other]) <= max(costs[one]) + max(costs[other]) + 1e-6


def test_a_single_job_does_not_wait_for_another_keys_thousand(queue: Queue) -> None:
    for _ in range(1000):
        queue.join("greedy")
    queue.take()
    assert queue.ahead("modest", "normal", 100) == 1
    single = queue.join("modest")
    assert single in [queue.take(), queue.take()]


def test_keys_take_turns_whatever_each_has_queued(queue: Queue) -> None:
    for owner, many in (("a", 30), ("b", 3), ("c", 10)):
        for _ in range(many):
            queue.join(owner)
    assert "".join(job.owner for job in queue.drained()).startswith("abcabcabcacacacacacacacaa")


def test_a_key_whose_jobs_are_large_gets_fewer_turns(queue: Queue) -> None:
    for _ in range(8):
        queue.join("large", nfe=400)
        for _ in range(4):
            queue.join("small", nfe=100)
    order = [job.owner for job in queue.drained()]
    assert [order[:10].count(owner) for owner in ("large", "small")] == [2, 8]


def test_priorities_of_one_key(queue: Queue) -> None:
    names: tuple[Priority, ...] = ("low", "normal", "high")
    for priority in names:
        for _ in range(30):
            queue.join("a", priority)
    order = [job.priority for job in queue.drained()]
    assert order[:9] == ["high"] * 9
    assert [order[:33].count(name) for name in names] == [0, 3, 30]
    assert order.index("low") < 45  # it is not last: ten normal ones to one of it


def test_a_high_job_comes_before_the_one_that_was_next(queue: Queue) -> None:
    queue.join()
    queue.take()
    queue.join()
    assert queue.ahead("a", "high", 100) == 0
    high = queue.join(priority="high")
    assert queue.shown() == [high.id]
    assert queue.take() == high


def test_a_low_job_is_not_kept_waiting_for_ever(queue: Queue) -> None:
    low = queue.join("a", "low")
    queue.join("b")
    turns = 0
    while queue.take() != low:
        queue.join("b")
        turns += 1
    assert turns + 1 == WEIGHTS["normal"] / WEIGHTS["low"]


def test_what_was_canceled_costs_its_key_no_turn(queue: Queue) -> None:
    queue.join("b")
    canceled = [queue.join("a") for _ in range(50)]
    for job in canceled:
        queue.leave(job)
    for _ in range(3):
        queue.join("b")
    assert queue.join("a") in [queue.take(), queue.take()]


def test_canceling_the_next_job_makes_no_later_one_wait_longer(queue: Queue) -> None:
    canceled = queue.join("a", nfe=500)
    waiting = queue.join("b", nfe=600)
    assert queue.leave(canceled)
    later = queue.join("c", nfe=200)
    assert [queue.take(), queue.take()] == [later, waiting]


def test_a_job_given_back_goes_first(queue: Queue) -> None:
    first = queue.join()
    queue.take()
    queue.join(priority="high")
    queue.give_back(first)
    assert queue.take() == first


def test_jobs_that_are_put_back_again_and_again_keep_nobody_waiting(queue: Queue) -> None:
    deferred = [queue.join("a", nfe=nfe) for nfe in (100, 100, 10)]
    others = [queue.join("a") for _ in range(4)] + [queue.join("b", "low", nfe=20) for _ in range(4)]
    taken: list[Waiting] = []
    for _ in range(100):
        job = queue.take()
        assert job
        taken.append(job)
        if job in deferred:
            queue.give_back(job, behind=True)
        if set(others) <= set(taken):
            break
    assert set(others) <= set(taken)
    assert set(deferred) == set(queue.drained())


@pytest.mark.parametrize("request_", ["{}", "null", "not json", '{"priority": "normal", "budget": 1}'])
def test_of_what_is_no_job_no_turn_is_told(request_: str) -> None:
    with pytest.raises(ValueError, match=r"no job|Expecting"):
        turn_of({"id": "gen_1", "request": request_})


def test_a_stored_job_tells_its_turn_whatever_else_it_has(queue: Queue) -> None:
    job = queue.join("key", "low", nfe=60)
    request = json.dumps({"priority": "low", "budget": {"nfe": 60, "of_the_next_version": 1}, "new": []})
    fields = {"id": job.id, "owner": "key", "request": request, "more": "x"}
    assert turn_of(fields) == (job.member, job.cost)


def test_a_job_that_is_somebodys_is_not_put_back_a_second_time(queue: Queue) -> None:
    job, other = queue.join(), queue.join()
    queue.take()
    assert not queue.put_back(job), "one has taken it"
    queue.begin(job, "theirs")
    queue.begin(job)
    assert not queue.put_back(job), "another runs it"
    assert queue.redis.zrange(RUNNING, 0, -1) == [f"{job.id}:theirs"]
    queue.redis.delete(RUNNING, f"rq:job:{job.id}")
    assert not queue.put_back(job), "it has ended"
    assert queue.shown() == [other.id]


def test_a_taker_that_dies_at_once_keeps_nobody_waiting(queue: Queue) -> None:
    first, second = queue.join(), queue.join()
    assert queue.pop() == first
    assert queue.take() == second
    assert queue.take() is None
