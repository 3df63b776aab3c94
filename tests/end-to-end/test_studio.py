"""The studio in a real browser, against the running stack."""

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from app.keyring import Keyring, Limits, new_key
from contracts.settings import Settings
from rollover import Client
from rollover.serve import Stack
from tests.app.conftest import serving
from tests.app.test_inputs import ENTRY, PNG
from tests.conftest import ENDLESS

DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1100,1400"
)
HOLD = """
const [route] = arguments, ask = window.fetch;
window.answers = 0;
window.fetch = async (path, ...more) => {
  const answer = await ask(path, ...more);
  if (path.includes(route) && !window.answers++) await new Promise((goOn) => (window.goOn = goOn));
  return answer;
};
"""
"""Holds up the next answer of a route, and counts them."""
FORM = """
[prompt.value, nfe.value] = arguments;
nfe.dispatchEvent(new Event("input", { bubbles: true }));
"""
"""Fills in at once: whoever types may be held up, and be answered in between."""
DRAW = """
const [rewards, end] = arguments, chart = document.querySelector("#chart");
document.querySelector("#generation").hidden = false;
const facts = { decision: "rejected" };
const candidates = rewards.map((reward, i) => ({ nfe: i + 1, reward, best_reward: reward, ...facts }));
import("/studio/chart.js").then(({ draw }) => {
  draw(chart, candidates, rewards.length, 0);
  const inside = (text) => text.getBBox().x >= 0 && text.getScreenCTM().a > 0.99;
  end([...chart.querySelectorAll("text")].map((text) => [text.textContent, inside(text)]));
});
"""
"""Draws rewards; each word of the chart, and whether it is all seen and no smaller than the page has it."""
ROUTE = "dispatchEvent(new HashChangeEvent('hashchange'));"
GO_ON = "const [end] = arguments; goOn(); fetch('/v1/models').then(() => fetch('/v1/models')).then(end);"
pytestmark = pytest.mark.skipif(not (DRIVER and BROWSER), reason="needs chromium and chromedriver")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('browser')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, Service(DRIVER))
    yield driver
    driver.quit()


@contextmanager
def opened(browser: Chrome, url: str) -> Iterator[Chrome]:
    """The studio of a server, loaded afresh; nothing may be in the browser's console afterwards."""
    browser.get("about:blank")
    browser.get(f"{url}/")
    until(browser, "#model option")
    browser.get_log("browser")
    yield browser
    # A refused submission is a line of its own there; scripts, styles and pictures that fail are faults.
    faults = [line["message"] for line in browser.get_log("browser") if "422" not in line["message"]]
    assert faults == []


@pytest.fixture
def page(browser: Chrome, stack: Stack) -> Iterator[Chrome]:
    with opened(browser, stack.url) as page:
        yield page


@pytest.fixture
def editors(redis_url: str, tmp_path: Path) -> Iterator[str]:
    """URL of a server with models that take an image; no worker runs what it is given."""
    entries = [ENTRY.format(name=f"editor-{image}", image=image) for image in ("required", "optional")]
    (tmp_path / "models.toml").write_text("".join(entries))
    settings = Settings(
        redis_url=redis_url,
        data_dir=tmp_path,
        catalogue=tmp_path / "models.toml",
        models=("shapes", "editor-required", "editor-optional"),
    )
    with serving(settings) as url:
        yield url


@pytest.fixture
def editing(browser: Chrome, editors: str) -> Iterator[Chrome]:
    """The studio of that server."""
    with opened(browser, editors) as page:
        yield page


@pytest.fixture
def secret(redis: Redis, redis_url: str, tmp_path: Path, browser: Chrome) -> Iterator[str]:
    """A key that a server wants, whose studio has just been opened."""
    key, secret = new_key("me", Limits())
    Keyring(redis).add(key)
    with serving(Settings(redis_url=redis_url, data_dir=tmp_path)) as url:
        browser.get("about:blank")
        browser.get(f"{url}/")
        yield secret


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(PNG)
    return path


def until(page: Chrome, selector: str, text: str = "") -> WebElement:
    """The first element of a selector once it is shown with a text that the pattern is found in."""

    def look(driver: Chrome) -> WebElement | None:
        found = driver.find_elements(By.CSS_SELECTOR, selector)
        return next((each for each in found if each.is_displayed() and re.search(text, each.text)), None)

    # The page may replace an element between two looks at it.
    found = WebDriverWait(page, 60, ignored_exceptions=[StaleElementReferenceException]).until(look)
    assert found
    return found


def answered(page: Chrome, count: int) -> None:
    """Wait until so many answers have come since HOLD, the first of them held up."""
    WebDriverWait(page, 30).until(lambda _: page.execute_script("return window.answers") >= count)


def fill(page: Chrome, **fields: str) -> None:
    for name, value in fields.items():
        field = page.find_element(By.ID, name)
        if field.tag_name == "select":
            Select(field).select_by_value(value)
        else:
            field.clear()
            field.send_keys(value)


def facts(page: Chrome) -> dict[str, str]:
    pairs = page.find_elements(By.CSS_SELECTOR, "#facts div")
    return {
        pair.find_element(By.TAG_NAME, "dt").text: pair.find_element(By.TAG_NAME, "dd").text for pair in pairs
    }


def loaded(page: Chrome, selector: str) -> list[int]:
    """The widths of pictures, 0 for one that did not load."""
    return page.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((image) => image.naturalWidth)", selector
    )


def test_a_search_from_the_form_to_its_picture(page: Chrome, client: Client) -> None:
    fill(page, prompt="a red circle", reward="brightness", nfe="60", seed="3")
    page.find_element(By.ID, "search").click()
    until(page, "#status", "^succeeded$")
    until(page, "#facts", "held out|final reward")
    shown = facts(page)
    assert shown["NFE"] == "60 of 60"
    assert shown["seed"] == "3"
    assert float(shown["final reward"]) > float(shown["first reward"])
    # The chart is drawn with the browser's next frame.
    WebDriverWait(page, 30).until(lambda _: len(page.find_elements(By.CSS_SELECTOR, "#chart circle")) == 60)
    job = client.get(page.current_url.rpartition("#")[2])
    assert job.result
    assert float(shown["final reward"]) == pytest.approx(job.result.images[0].reward, rel=1e-3)
    WebDriverWait(page, 30).until(lambda _: loaded(page, "#levels img") and all(loaded(page, "#levels img")))
    WebDriverWait(page, 30).until(lambda _: loaded(page, "#picture") == [64])
    assert until(page, "#recent a[href$='" + job.id + "']")


def test_a_refusal_names_the_field_and_what_is_allowed(page: Chrome) -> None:
    fill(page, prompt="a red circle", reward="brightness", nfe="5")
    page.find_element(By.ID, "search").click()
    until(page, "#problems", r"budget/nfe: .*\d+")
    until(page, "#nfe[aria-invalid='true']")
    fill(page, nfe="60")
    WebDriverWait(page, 30).until(lambda _: not page.find_element(By.ID, "problems").is_displayed())


def test_a_search_has_the_seconds_it_was_given_and_the_nfe_they_pay_for(page: Chrome, client: Client) -> None:
    client.submit("a red circle", reward="brightness", nfe=60, held_out=[], hold=60)  # a pace to go by
    fill(page, prompt="a red circle", reward="brightness", nfe="", seconds="1.5")
    until(page, "#quote", r"^\d+ NFE, about ")
    page.find_element(By.ID, "search").click()
    until(page, "#status", "^succeeded$")
    budget = client.get(page.current_url.rpartition("#")[2]).request["budget"]
    assert budget["seconds"] == 1.5
    assert budget["nfe"] != 200


def test_a_search_without_a_budget_is_not_sent(page: Chrome) -> None:
    fill(page, prompt="a red circle", nfe="", seconds="1.5")
    assert page.execute_script("return submission.checkValidity()")
    page.find_element(By.ID, "seconds").send_keys(Keys.BACKSPACE * 3)
    assert not page.execute_script("return submission.checkValidity()")


def test_why_a_search_failed_is_told_in_full_and_fits_the_page(page: Chrome) -> None:
    fill(page, prompt="an elephant that rides through the night " * 6, reward="scene_match", nfe="60")
    page.find_element(By.ID, "search").click()
    until(page, "#status", "^failed$")
    until(page, "#failure", "no coloured shape found in .*scene_match")
    assert not page.find_element(By.ID, "chart").is_displayed()
    width, room = page.execute_script("return [document.body.scrollWidth, document.body.clientWidth]")
    assert width == room


def test_a_search_that_is_chosen_far_below_is_brought_into_sight(page: Chrome, client: Client) -> None:
    job = client.submit("chosen", reward="brightness", nfe=60, held_out=[], hold=60)
    page.refresh()
    link = until(page, f"#recent a[href$='{job.id}']")
    page.execute_script("recent.style.marginTop = '3000px'; arguments[0].scrollIntoView()", link)
    link.click()
    until(page, "#title", "^chosen$")
    top, height = page.execute_script("return [generation.getBoundingClientRect().top, innerHeight]")
    assert -1 < top < height


@pytest.mark.parametrize(
    ("rewards", "words"),
    [((0.008244, 0.9759), ["0.008", "0.492", "0.976"]), ((-2130.6, 12.2), ["-2131", "-1059", "12"])],
)
def test_the_charts_words_fit_it(page: Chrome, rewards: tuple[float, float], words: list[str]) -> None:
    drawn = page.execute_async_script(DRAW, rewards)
    assert drawn == [[word, True] for word in (*words, "0", "2 NFE")]


def test_enter_after_the_key_opens_the_page(browser: Chrome, secret: str) -> None:
    until(browser, "#key").send_keys(secret + Keys.ENTER)
    until(browser, "#model option", "shapes")
    assert not browser.find_element(By.ID, "problems").is_displayed()


def test_cancel_keeps_the_best_so_far(page: Chrome) -> None:
    fill(page, prompt="a red circle", reward="brightness", nfe=str(ENDLESS))
    page.find_element(By.ID, "search").click()
    until(page, "#status", f"of {ENDLESS} NFE")
    until(page, "#cancel").click()
    until(page, "#status", "^canceled$")
    until(page, "#facts", "final reward")
    assert re.search(rf" of {ENDLESS}, \d+ unspent: the job was canceled$", facts(page)["NFE"])
    WebDriverWait(page, 30).until(lambda _: loaded(page, "#picture") == [64])


def test_a_prompt_is_text_and_never_markup(page: Chrome, client: Client) -> None:
    prompt = "<img src=x onerror=alert(1)> a red circle"
    job = client.wait(client.submit(prompt, reward="brightness", nfe=60, held_out=[]).id, within=60)
    page.get(page.current_url.partition("#")[0] + "#" + job.id)
    page.refresh()
    assert until(page, "#title", "onerror").text == prompt
    until(page, "#status", "^succeeded$")
    until(page, "#delete").click()
    WebDriverWait(page, 30).until(lambda _: job.id not in page.current_url + page.page_source)


def test_a_list_that_comes_late_does_not_replace_a_newer_one(page: Chrome, client: Client) -> None:
    job = client.wait(client.submit("gone", reward="brightness", nfe=60, held_out=[]).id, within=60)
    page.refresh()
    link = "#recent a[href$='" + job.id + "']"
    until(page, link)
    page.execute_script(HOLD + ROUTE, "/v1/generations?limit=")
    answered(page, 1)
    client.delete(job.id)
    page.execute_script(ROUTE)
    WebDriverWait(page, 30).until(lambda _: not page.find_elements(By.CSS_SELECTOR, link))
    page.execute_async_script(GO_ON)
    assert not page.find_elements(By.CSS_SELECTOR, link)


def test_a_refusal_that_comes_late_says_nothing_of_what_was_mended(page: Chrome) -> None:
    page.execute_script(HOLD, "/v1/quotes")
    page.execute_script(FORM, "a red circle", 1)
    answered(page, 1)
    page.execute_script(FORM, "a red circle", 200)
    answered(page, 2)
    page.execute_async_script(GO_ON)
    assert not page.find_element(By.ID, "problems").is_displayed()


def test_the_image_that_is_chosen_is_sent(editing: Chrome, editors: str, photo: Path) -> None:
    image = editing.find_element(By.ID, "image")
    assert not image.is_displayed()
    fill(editing, model="editor-required", prompt="make it red")
    editing.find_element(By.ID, "search").click()
    assert editing.execute_script("return document.querySelector('#image').validity.valueMissing")
    image.send_keys(str(photo))
    editing.find_element(By.ID, "search").click()
    until(editing, "#title", "^make it red$")
    with Client(editors) as client:
        [job] = client.list().items
    assert job.request["model"] == "editor-required"
    facts = {"width": 96, "height": 64, "bytes": len(PNG), "sha256": hashlib.sha256(PNG).hexdigest()}
    assert job.request["image"] == facts


def test_no_image_is_sent_where_none_is_chosen_or_taken(editing: Chrome, editors: str, photo: Path) -> None:
    fill(editing, model="editor-optional")
    editing.find_element(By.ID, "search").click()
    until(editing, "#generation", "queued")
    editing.find_element(By.ID, "image").send_keys(str(photo))
    fill(editing, model="shapes", prompt="a red circle")
    editing.find_element(By.ID, "search").click()
    until(editing, "#title", "^a red circle$")
    with Client(editors) as client:
        assert [job.request["image"] for job in client.list().items] == [None, None]


def test_a_file_that_is_no_image_is_refused_at_its_field(editing: Chrome, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("no image")
    fill(editing, model="editor-optional")
    editing.find_element(By.ID, "image").send_keys(str(tmp_path / "photo.jpg"))
    until(editing, "#problems", "^image: ")
    until(editing, "#image[aria-invalid='true']")
