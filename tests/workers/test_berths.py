"""Workers that share a device: who gets in, who is asked to leave, and jobs of models that take turns."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from contracts.beats import WorkerState
from contracts.jobs import Status
from contracts.keys import totals_key
from contracts.settings import Settings
from tests.workers.conftest import Desk, wait_for
from workers.berths import Berths
from workers.hold import connect
from workers.messages import Ending, Spec
from workers.resident import Resident
from workers.settings import WorkerSettings
from workers.store import ArtifactStore
from workers.supervisor import Supervisor

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a+")
fcntl.flock(file, fcntl.LOCK_EX)
file.write('{"size": 60, "used": 0.0, "busy": false}')
file.flush()
print("held", flush=True)
time.sleep(60)
"""

Maker = Callable[..., Berths]


@pytest.fixture
def berths(tmp_path: Path) -> Iterator[Maker]:
    """Berths of a device of 100 bytes, by worker; with a size it has been there before."""
    with ExitStack() as made:

        def berths(worker: str, size: int | None = None, *, busy: bool = False) -> Berths:
            one = Berths(tmp_path / "device", worker, 100)
            made.callback(one.leave)
            if size is not None:
                one.size, one.limit = size, 1000
                assert one.enter()
                one.note(busy=busy)
                one.limit = 100
            return one

        yield berths


def test_models_that_fit_together_stay(berths: Maker) -> None:
    first, second = berths("a", 60), berths("b", 40)
    second.leave()
    assert second.enter()
    assert not first.wanted


def test_who_needs_room_gets_it_once_another_has_left(berths: Maker) -> None:
    first, second = berths("a", 60), berths("b", 50)
    second.leave()
    assert not second.enter()
    assert first.wanted
    first.leave()
    assert not first.wanted
    assert second.enter()
    assert not second.wanted


def test_the_least_recently_used_are_asked_and_no_more_than_needed(berths: Maker) -> None:
    new = berths("new", 30)
    new.leave()
    oldest, older, newest = (berths(name, 30) for name in ("c", "a", "b"))
    oldest.note(busy=False)
    assert not new.enter()
    assert [guest.wanted for guest in (older, newest, oldest)] == [True, False, False]
    assert not new.enter()
    assert [guest.wanted for guest in (older, newest, oldest)] == [True, False, False]
    older.leave()
    assert new.enter()


def test_who_runs_a_job_is_asked_last(berths: Maker) -> None:
    busy, idle = berths("a", 50, busy=True), berths("b", 50)
    assert not berths("new").enter()
    assert busy.wanted, "one whose size is not known needs all there is"
    assert idle.wanted
    idle.leave()
    small = berths("small", 40)
    small.leave()
    assert small.enter()


def test_a_model_larger_than_all_lies_there_alone(berths: Maker) -> None:
    large = berths("a", 500)
    large.leave()
    assert large.enter()
    assert not berths("b").enter()
    assert large.wanted


def test_nobody_waits_for_a_worker_that_was_killed(berths: Maker, tmp_path: Path) -> None:
    one = berths("a")
    file = tmp_path / "device" / "b.berth"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        assert not one.enter()
        holder.kill()
    assert one.enter()
    assert [path.name for path in file.parent.glob("*.*")] == ["a.berth"]


def test_a_worker_that_must_stop_does_not_wait_on(berths: Maker) -> None:
    berths("a", 100)
    stopping = threading.Event()
    stopping.set()
    assert not berths("b").board(stopping)


def test_a_device_is_shared_only_where_a_setting_says_so(settings: Settings) -> None:
    assert Berths.of("cuda:1", "a", settings, WorkerSettings()) is None
    shared = Berths.of("cuda:1", "a", settings, WorkerSettings(shared_gib=1.5))
    assert shared
    assert shared.limit == 3 << 29
    assert (settings.data_dir / "devices" / "cuda-1").is_dir()


@pytest.fixture
def shown() -> list[tuple[str, WorkerState]]:
    return []


@pytest.fixture
def supervisors(
    settings: Settings, tiny_model: Path, shown: list[tuple[str, WorkerState]]
) -> Iterator[tuple[Supervisor, Supervisor]]:
    """Two workers of one device, whose memory does for one model at a time."""
    own = WorkerSettings(device="cpu", model_paths={"shapes": tiny_model}, shared_gib=0.001)
    with connect(settings.redis_url or "") as connection, ExitStack() as started:
        made: list[Supervisor] = []
        for name in ("worker-1", "worker-2"):
            berths = Berths.of("cpu", name, settings, own)
            spec = Spec("shapes", name, settings.redis_url or "", settings, own)
            engine = Resident(spec, threading.Event(), berths=berths)
            started.callback(engine.kill)
            store = ArtifactStore.open(settings.artifacts)
            made.append(
                Supervisor(connection, engine, store, 3, lambda state, name=name: shown.append((name, state)))
            )
        yield made[0], made[1]


def while_idle(idle: Supervisor, work: Callable[[], Ending]) -> Ending:
    """What a worker's work comes to while another has no job, and so looks every moment how things stand."""
    endings: list[Ending] = []
    thread = threading.Thread(target=lambda: endings.append(work()), daemon=True)
    thread.start()
    wait_for(lambda: idle.mend() and endings)
    thread.join()
    return endings[0]


def test_models_that_do_not_fit_together_take_turns(
    desk: Desk, supervisors: tuple[Supervisor, Supervisor], shown: list[tuple[str, WorkerState]]
) -> None:
    first, second = supervisors
    assert first.mend()
    jobs = [desk.submit(search={"strategy": "base"}, budget={"nfe": 10}) for _ in range(3)]
    assert first.run(jobs[0]) is Ending.DONE
    assert while_idle(first, lambda: second.run(jobs[1])) is Ending.DONE
    assert first.away
    assert not first.engine.alive
    restarts = desk.redis.hget(totals_key("shapes"), "engine_restarts")
    shown.clear()
    assert while_idle(second, lambda: first.run(jobs[2])) is Ending.DONE
    assert first.engine.alive
    assert second.away
    assert {state for name, state in shown if name == "worker-1"} == {WorkerState.BUSY}, "it can take jobs"
    assert desk.redis.hget(totals_key("shapes"), "engine_restarts") == restarts
    digests = {desk.record(job).result.images[0].sha256 for job in jobs}  # pyright: ignore[reportOptionalMemberAccess]
    assert len(digests) == 1
    assert all(desk.record(job).status is Status.SUCCEEDED for job in jobs)
