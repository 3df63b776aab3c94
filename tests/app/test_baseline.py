"""`baseline: true` over HTTP: its image, its place in quotes, caps and charges."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from redis import Redis

from app.keyring import Keyring, Limits, new_key
from contracts.jobs import Progress
from tests.app.hand import OTHER_PNG, PNG, Hand
from tests.app.test_bad_input import refused
from tests.app.test_quotes import ROUNDING

Submit = Callable[..., Hand]


def test_both_images_are_served_and_deleted(submit: Submit, client: httpx.Client, data_dir: Path) -> None:
    hand = submit(baseline=True)
    job = f"/v1/generations/{hand.id}"
    hand.start()
    refused(client.get(f"{job}/baseline"), 404, "artifact_not_found")
    hand.finish_with_baseline()
    result = client.get(job).json()["result"]
    answer = client.get(result["baseline"]["image"]["url"])
    assert (answer.content, answer.headers["content-type"]) == (OTHER_PNG, "image/png")
    assert client.get(result["images"][0]["url"]).content == PNG
    assert client.delete(job).status_code == 204
    refused(client.get(f"{job}/baseline"), 404, "generation_not_found")
    assert not (data_dir / "artifacts" / hand.id).exists()


def test_a_job_without_one_has_none(submit: Submit, client: httpx.Client) -> None:
    hand = submit()
    hand.start()
    hand.finish()
    assert client.get(f"/v1/generations/{hand.id}").json()["result"]["baseline"] is None
    refused(client.get(f"/v1/generations/{hand.id}/baseline"), 404, "artifact_not_found")


def test_a_quote_counts_both(submit: Submit, client: httpx.Client, redis: Redis) -> None:
    hand = submit(baseline=True)
    hand.start()
    hand.finish_with_baseline()
    redis.lrem("rq:queue:rollover:shapes", 1, hand.id)
    body = {"prompt": "x", "budget": {"nfe": 95}, "baseline": True}
    answer = client.post("/v1/quotes", json=body).json()
    assert answer["plan"]["nfe"] == 95
    assert {name: answer["baseline"][name] for name in ("nfe", "runs", "steps")} == {
        "nfe": 90,
        "runs": 9,
        "steps": 10,
    }
    # 60 NFE of search and 50 of its baseline took 6 s and 5 s.
    assert (answer["nfe_per_second"], answer["expected_seconds"]) == (10.0, 18.5)
    alone = client.post("/v1/quotes", json={**body, "baseline": False}).json()
    assert (alone["baseline"], alone["expected_seconds"]) == (None, 9.5)


def test_the_cap_counts_both(client: httpx.Client) -> None:
    body = {"prompt": "x", "baseline": True}
    assert client.post("/v1/generations", json={**body, "budget": {"nfe": 2500}}).status_code == 202
    answer = client.post("/v1/generations", json={**body, "budget": {"nfe": 2501}})
    [problem] = refused(answer, 422, "invalid_request")["errors"]
    assert problem["pointer"] == "/budget/nfe"
    assert "together they are 5001" in problem["detail"]


@pytest.mark.usefixtures("same_day")
def test_a_key_is_charged_for_both_and_gets_back_what_neither_spent(
    client: httpx.Client, redis: Redis, data_dir: Path
) -> None:
    key, secret = new_key("test", Limits(nfe_per_day=1000))
    Keyring(redis).add(key)
    headers = {"Authorization": f"Bearer {secret}"}

    def left(nfe: int, **body: object) -> tuple[str, str]:
        body = {"prompt": "x", "budget": {"nfe": nfe}, **body}
        answer = client.post("/v1/generations", json=body, headers=headers)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"], answer.headers["ratelimit"].split(";")[1]

    job, after = left(300, baseline=True)
    assert after == "r=400"
    hand = Hand(redis, data_dir / "artifacts", job)
    hand.start()
    hand.finish_with_baseline()
    assert client.delete(f"/v1/generations/{job}", headers=headers).status_code == 204
    assert left(50)[1] == f"r={1000 - 110 - 50}"


def test_progress_counts_both(submit: Submit, client: httpx.Client) -> None:
    hand = submit(budget={"nfe": 100}, baseline=True)
    hand.start()
    hand.write(progress=Progress(nfe_spent=100, nfe_budget=100, levels=10, baseline_nfe_spent=50))
    before, document, after = hand.age, client.get(f"/v1/generations/{hand.id}"), hand.age
    progress = document.json()["progress"]
    assert (progress["nfe_spent"], progress["nfe_budget"], progress["fraction"]) == (100, 100, 0.75)
    assert before / 3 - ROUNDING <= progress["eta_seconds"] <= after / 3 + ROUNDING
