"""Images that come with prompts: what is made of them, what is refused, and where they go with the job."""

import asyncio
import base64
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from redis import Redis

from app.artifacts import Artifacts
from app.inputs import Inputs, UnusableImageError
from contracts.jobs import Record
from contracts.keys import input_path, job_key
from contracts.settings import Settings
from tests.app.conftest import serving
from tests.app.hand import Hand
from tests.app.test_bad_input import refused
from tests.app.test_extend import finished

ENTRY = """
[{name}]
folder = "nowhere"
width = {{ minimum = 16, maximum = 64, multiple = 16, default = 48 }}
height = {{ minimum = 16, maximum = 64, multiple = 16, default = 32 }}
reward = "brightness"
image = "{image}"
"""
MOST_BYTES, MOST_PIXELS = 60_000, 200 * 100
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
ORIENTATION = 0x0112
LEFT_IS_TOP = 8
"""The EXIF orientation of a picture whose left edge is its upper one."""


def halves(mode: str = "RGB", size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A picture, red on the left and blue on the right."""
    picture = Image.new("RGB", size, RED)
    picture.paste(BLUE, (size[0] // 2, 0, *size))
    return picture.convert(mode, dither=Image.Dither.NONE)


def file_of(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:  # noqa: ANN401 -- Pillow's own
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def turned() -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = LEFT_IS_TOP
    return file_of(halves(), "JPEG", exif=exif, quality=95)


def clear(mode: str) -> bytes:
    """Red on the left, nothing on the right."""
    picture = halves("RGBA")
    picture.paste((0, 0, 0, 0), (48, 0, 96, 64))
    return file_of(picture.convert(mode))


def animation() -> bytes:
    return file_of(halves(), save_all=True, append_images=[Image.new("RGB", (96, 64))])


PNG = file_of(halves())


@pytest.fixture(scope="module")
def inputs() -> Iterator[Inputs]:
    inputs = Inputs(MOST_BYTES, MOST_PIXELS)
    yield inputs
    inputs.close()


@pytest.mark.parametrize(
    ("content", "size", "first", "last"),
    [
        pytest.param(PNG, (96, 64), RED, BLUE, id="png"),
        pytest.param(file_of(halves(), "JPEG", quality=95), (96, 64), RED, BLUE, id="jpeg"),
        pytest.param(file_of(halves("CMYK"), "JPEG", quality=95), (96, 64), RED, BLUE, id="cmyk"),
        pytest.param(file_of(halves("P")), (96, 64), RED, BLUE, id="palette"),
        pytest.param(file_of(halves("L")), (96, 64), (76, 76, 76), (29, 29, 29), id="grey"),
        pytest.param(file_of(halves("1")), (96, 64), (0, 0, 0), (0, 0, 0), id="black and white"),
        pytest.param(clear("RGBA"), (96, 64), RED, WHITE, id="alpha"),
        pytest.param(clear("LA"), (96, 64), (76, 76, 76), WHITE, id="grey and alpha"),
        pytest.param(turned(), (64, 96), BLUE, RED, id="turned"),
        pytest.param(
            file_of(halves(), "MPO", save_all=True, append_images=[halves()], quality=95),
            (96, 64),
            RED,
            BLUE,
            id="a camera's jpeg with a second picture",
        ),
    ],
)
def test_what_is_stored_is_the_picture_as_it_is_meant_to_be_seen(
    inputs: Inputs, content: bytes, size: tuple[int, int], first: tuple[int, ...], last: tuple[int, ...]
) -> None:
    read = inputs.decoded(base64_of(content))
    assert (read.facts.width, read.facts.height) == size
    assert (read.facts.bytes, read.facts.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    with Image.open(io.BytesIO(read.png)) as stored:
        assert (stored.format, stored.mode, stored.size) == ("PNG", "RGB", size)
        assert not stored.getexif()
        corners = [stored.getpixel((2, 2)), stored.getpixel((size[0] - 3, size[1] - 3))]
    for corner, wanted in zip(corners, (first, last), strict=True):
        assert isinstance(corner, tuple)
        assert max(abs(a - b) for a, b in zip(corner, wanted, strict=True)) < 12


@pytest.mark.parametrize(
    "text",
    [
        f"data:image/png;base64,{base64_of(PNG)}",
        f"DATA:image/JPEG;name=x;base64,{base64_of(PNG)}",
        "\n".join(base64_of(PNG)[i : i + 76] for i in range(0, 10_000, 76)),
    ],
    ids=["data URL", "data URL of another kind", "lines"],
)
def test_a_file_may_be_posted_in_these_ways(inputs: Inputs, text: str) -> None:
    assert inputs.decoded(text) == inputs.decoded(base64_of(PNG))


def bomb() -> bytes:
    """A small file that says it has a great many pixels."""
    header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + PNG[24:29]
    return PNG[:12] + header + zlib.crc32(header).to_bytes(4, "big") + PNG[33:]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a file of 1 to 60000 bytes; this one has 0"),
        ("not base64!", "Must be base64, or a data URL"),
        ("http://127.0.0.1/x.png", "no address is fetched"),
        ("file:///etc/passwd", "no address is fetched"),
        ("data:image/gif;base64,R0lGODlh", "'data:image/png;base64,' or 'data:image/jpeg;base64,'"),
        ("data:image/png,abc", "Must begin with"),
        ("data:image/png;base64", "Must begin with"),
        ("data:image/png;base64,", "this one has 0"),
        (base64_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "Must be a PNG or JPEG file that is whole"),
        (base64_of(file_of(halves(), "GIF")), "Must be a PNG or JPEG file"),
        (base64_of(file_of(halves(), "WEBP")), "Must be a PNG or JPEG file"),
        (base64_of(file_of(halves(), "TIFF")), "Must be a PNG or JPEG file"),
        (base64_of(PNG[:-30]), "this one cannot be read"),
        (base64_of(file_of(halves(), "JPEG")[:400]), "this one cannot be read"),
        (base64_of(bytes(MOST_BYTES + 1)), "1 to 60000 bytes; this one has 60001"),
        (base64_of(bomb()), "at most 20000 pixels"),
        (base64_of(file_of(halves(size=(200, 101)))), "at most 20000 pixels"),
        (base64_of(file_of(halves(size=(63, 64)))), "at least 64 pixels a side"),
        (base64_of(file_of(halves(size=(64, 513)))[:400]), "at most 20000 pixels"),
        (base64_of(animation()), "is an animation"),
        (base64_of(file_of(Image.new("I;16", (64, 64)))), "8 bits a channel"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_can(inputs: Inputs, text: str, words: str) -> None:
    with pytest.raises(UnusableImageError, match=words):
        inputs.decoded(text)


def test_a_large_picture_is_stored_smaller(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.inputs.KEPT_PIXELS", 64 * 64)
    read = inputs.decoded(base64_of(PNG))
    assert (read.facts.width, read.facts.height) == (96, 64)
    with Image.open(io.BytesIO(read.png)) as stored:
        assert stored.size == (78, 52)


def test_an_object_store_is_written_to_as_a_folder_is() -> None:
    store = Artifacts("memory://inputs")

    async def written() -> bytes | None:
        await store.write("gen_a/input.png", PNG)
        return await store.read("gen_a/input.png")

    assert asyncio.run(written()) == PNG
    store.close()
    store.filesystem.rm(store.root, recursive=True)


def test_a_sliver_is_refused() -> None:
    inputs = Inputs(MOST_BYTES, 10**6)
    with pytest.raises(
        UnusableImageError, match="at most 8 times as many the other way; this one has 64 x 513"
    ):
        inputs.decoded(base64_of(file_of(halves(size=(64, 513)))))
    inputs.close()


@pytest.fixture(scope="module")
def editor_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("editor")


@pytest.fixture(scope="module")
def editor_url(valkey_url: str, editor_dir: Path) -> Iterator[str]:
    """A server of models that take images, which may not be large."""
    catalogue = editor_dir / "models.toml"
    kinds = ("none", "optional", "required")
    catalogue.write_text("".join(ENTRY.format(name=f"image-{kind}", image=kind) for kind in kinds))
    settings = Settings(
        redis_url=valkey_url,
        data_dir=editor_dir,
        keep_days=0,
        catalogue=catalogue,
        models=("image-required", "image-optional", "image-none"),
        max_image_bytes=MOST_BYTES,
        max_image_pixels=MOST_PIXELS,
        max_body_bytes=4096,
    )
    with serving(settings) as url:
        yield url


@pytest.fixture
def editor(editor_url: str, redis_url: str) -> Iterator[httpx.Client]:
    assert redis_url
    with httpx.Client(base_url=editor_url, timeout=30) as client:
        yield client


def post(client: httpx.Client, image: bytes | None = PNG, key: str = "", **body: object) -> httpx.Response:
    fields = body if image is None else {"image": base64_of(image), **body}
    headers = {"Idempotency-Key": key} if key else {}
    return client.post("/v1/generations", json={"prompt": "make it green", **fields}, headers=headers)


def folders(editor_dir: Path) -> set[str]:
    store = editor_dir / "artifacts"
    return {path.name for path in store.iterdir()} if store.exists() else set()


def test_a_job_has_its_image_as_a_fact_and_the_store_has_the_picture(
    editor: httpx.Client, editor_dir: Path, redis: Redis
) -> None:
    answer = post(editor)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    facts = {"width": 96, "height": 64, "bytes": len(PNG), "sha256": hashlib.sha256(PNG).hexdigest()}
    assert job["request"]["image"] == facts
    with Image.open(editor_dir / "artifacts" / input_path(job["id"])) as stored:
        assert stored.tobytes() == halves().tobytes()
    kept: Any = redis.hgetall(job_key(job["id"]))
    assert Record.from_hash(kept).request.image is not None
    assert base64_of(PNG)[:40] not in json.dumps(kept)
    assert editor.post(f"/v1/generations/{job['id']}/cancel").status_code == 200
    assert editor.delete(f"/v1/generations/{job['id']}").status_code == 204
    assert job["id"] not in folders(editor_dir)


def test_the_image_is_a_part_of_what_a_key_was_used_for(editor: httpx.Client, editor_dir: Path) -> None:
    first = post(editor, key="one")
    before = folders(editor_dir)
    again = post(editor, key="one")
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    refused(post(editor, file_of(halves(size=(64, 96))), key="one"), 422, "idempotency_mismatch")
    refused(post(editor, None, key="one", model="image-optional"), 422, "idempotency_mismatch")
    assert folders(editor_dir) == before


@pytest.mark.parametrize(
    ("model", "image", "words"),
    [
        ("image-none", PNG, "Must be null for model 'image-none'"),
        ("image-required", None, "Is required: model 'image-required' draws from a prompt and an image"),
        ("image-required", b"GIF89a", "PNG or JPEG"),
    ],
)
@pytest.mark.parametrize("route", ["/v1/generations", "/v1/quotes"])
def test_a_model_gets_an_image_where_it_takes_one(
    editor: httpx.Client, editor_dir: Path, route: str, model: str, image: bytes | None, words: str
) -> None:
    before = folders(editor_dir)
    body = {"prompt": "x", "model": model} | ({"image": base64_of(image)} if image else {})
    problem = refused(editor.post(route, json=body), 422, "invalid_request")
    [error] = problem["errors"]
    assert error["pointer"] == "/image"
    assert words in error["detail"]
    assert folders(editor_dir) == before


def test_where_it_may_have_one_it_may_have_none(editor: httpx.Client) -> None:
    assert post(editor, model="image-optional").json()["request"]["image"]["width"] == 96
    assert post(editor, None, model="image-optional").json()["request"]["image"] is None


def test_a_quote_tells_of_the_image_and_stores_nothing(editor: httpx.Client, editor_dir: Path) -> None:
    before = folders(editor_dir)
    answer = editor.post("/v1/quotes", json={"prompt": "x", "image": base64_of(PNG)})
    assert answer.json()["request"]["image"]["sha256"] == hashlib.sha256(PNG).hexdigest()
    assert folders(editor_dir) == before


def test_models_tell_whether_they_take_one(editor: httpx.Client) -> None:
    listed = {entry["id"]: entry for entry in editor.get("/v1/models").json()["data"]}
    assert {name: entry["image"] for name, entry in listed.items()} == {
        "image-required": "required",
        "image-optional": "optional",
        "image-none": "none",
    }
    assert listed["image-required"]["params"]["required"] == ["image"]
    assert listed["image-none"]["params"]["properties"]["image"] == {"type": "null"}


def test_bodies_are_larger_only_where_an_image_may_be_in_them(
    editor: httpx.Client, client: httpx.Client
) -> None:
    """The default server has models of no images."""
    large = b"\0" * MOST_BYTES
    problem = refused(post(editor, large), 422, "invalid_request")
    assert problem["errors"][0]["pointer"] == "/image"
    refused(post(editor, large * 2), 413, "body_too_large")
    refused(post(client, large), 413, "body_too_large")


@pytest.mark.parametrize("route", ["/v1/generations", "/v1/quotes"])
@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "x", "metadata": [{}] * 1600},
        {"prompt": "x" * 6000},
        {"prompt": "x", "image": "", "metadata": {"image": "x", "images": "x" * 6000}},
        {"prompt": "x", "image": base64_of(PNG), "metadata": [{}] * 1600},
    ],
    ids=["no image", "a long text", "not the image", "beside an image"],
)
def test_only_an_image_makes_a_body_larger(editor: httpx.Client, route: str, body: dict[str, Any]) -> None:
    problem = refused(editor.post(route, json=body), 413, "body_too_large")
    assert "4096 bytes beside its image" in problem["detail"]


@pytest.mark.parametrize("before", ['"metadata": {"image": "x"}, ', ""])
@pytest.mark.parametrize("escape", [str, lambda text: text.replace("/", "\\/")], ids=["plain", "escaped"])
def test_an_image_leaves_the_rest_of_a_body_its_room(
    editor: httpx.Client, before: str, escape: Callable[[str], str]
) -> None:
    """Some writers of JSON put a backslash before each slash, of which this has many."""
    image = escape(base64_of(PNG + b"\xff" * 30_000))
    for room, status in ((4096, 202), (4097, 413)):
        body = f'{{"prompt": "x", {before}"image" : "{image}"}}'.ljust(len(image) + room)
        answer = editor.post("/v1/generations", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, answer.text


def test_a_store_that_refuses_takes_no_job(editor: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.artifacts.replace_file", full)
    refused(post(editor), 503, "storage_unavailable")
    assert editor.get("/v1/generations").json()["data"] == []
    assert post(editor, None, model="image-none").status_code == 202


def test_an_extension_has_an_image_of_its_own(editor: httpx.Client, editor_dir: Path, redis: Redis) -> None:
    hand = Hand(redis, editor_dir / "artifacts", post(editor).json()["id"])
    job = finished(hand)
    child = editor.post(f"{job}/extend", json={"budget": {"nfe": 100}}).json()
    assert child["request"]["image"] == editor.get(job).json()["request"]["image"]
    assert editor.delete(job).status_code == 204
    copy = editor_dir / "artifacts" / input_path(child["id"])
    with Image.open(copy) as stored:
        assert stored.tobytes() == halves().tobytes()
    parent = finished(Hand(redis, editor_dir / "artifacts", child["id"]), spent=300)
    copy.unlink()
    refused(editor.post(f"{parent}/extend", json={"budget": {"nfe": 100}}), 409, "not_extendable")
    assert folders(editor_dir) & {hand.id, child["id"]} == {child["id"]}


def test_openais_route_has_no_images_to_take(editor: httpx.Client) -> None:
    body = {"prompt": "x", "model": "image-optional", "image": base64_of(PNG)}
    problem = refused(editor.post("/v1/images/generations", json=body), 422, "invalid_request")
    assert (problem["errors"][0]["pointer"], problem["errors"][0]["detail"][:15]) == (
        "/image",
        "Unknown field '",
    )
