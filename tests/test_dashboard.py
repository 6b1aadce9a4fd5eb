"""The dashboard in a real browser: what a coordinator sees and presses, on a desk and on a phone, with and without
JavaScript."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="a hub needs the extra 'hub'")
pytest.importorskip("playwright", reason="the browser's tests need the package 'playwright'")
from playwright import sync_api as playwright
from tests import rounds, test_agent
from tests.hub_process import Served

from fusionlearn import file, keys

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no browser here: install Debian's package 'chromium'")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    hub = Served(tmp_path_factory.mktemp("hub"))
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def published(served: Served, home: Path, name: str, *options: object) -> str:
    task = file.sign(dataclasses.replace(rounds.task(signed=False), name=name), keys.load(home / "key.pem"))
    file.write(home / "task", task)
    made = test_agent.as_user(home, "publish", home / "task", "--hub", served.url, *options)
    assert made["status"] == 0, made["said"]
    return file.digest(task)


def answer(served: Served, home: Path, folder: Path, task: str, number: int) -> None:
    code = test_agent.as_user(home, "invite", "--hub", served.url)["code"]
    data = test_agent.csv_of(folder / f"{number}.csv", rounds.records(number, 80))
    done = test_agent.as_user(
        folder / f"site{number}", "join", served.url, "--code", code, "--name", f"site {number}", "--task", task,
        "--data", data, "--accept-small-cells",
    )  # fmt: skip
    assert done["status"] == 0, done["said"]


def log_in(served: Served, home: Path, page: Any) -> None:
    link = test_agent.as_user(home, "dashboard", served.url, "--no-browser")["url"]
    page.goto(link)
    assert page.url == f"{served.url}/"


def test_a_coordinator_s_day(served: Served, browser: Any, tmp_path: Path):
    home = test_agent.owner_home(served, tmp_path)
    task = published(served, home, "a day")
    page = browser.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    log_in(served, home, page)
    page.get_by_role("link", name="a day").click()
    page.locator(".state.open").wait_for()
    assert page.get_by_role("button", name="Close and fuse now").is_disabled()
    for number in (1, 2, 3):
        answer(served, home, tmp_path, task, number)
    page.get_by_role("cell", name="site 3").wait_for(timeout=10_000)  # it came by itself, nobody loaded the page again
    page.get_by_role("button", name="Close and fuse now").click()
    page.get_by_role("heading", name="Model 1").wait_for(timeout=20_000)
    assert page.get_by_text("FedAvg would send").is_visible()
    assert page.get_by_role("columnheader", name="Loss without it").is_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the model").click()
    model = file.read(download.value.path())
    assert model.signer == keys.public_hex(keys.load(home / "key.pem"))
    page.get_by_label("leave out site 2").check()
    page.get_by_role("button", name="Fuse again").click()
    assert page.get_by_role("status").inner_text().startswith("A model was released already")
    page.get_by_label("leave out site 2").check()
    page.get_by_label("I know that").check()
    page.get_by_role("button", name="Fuse again").click()
    page.get_by_role("heading", name="Model 2").wait_for(timeout=20_000)
    assert page.get_by_text("excluded").is_visible() and page.get_by_text("Earlier releases").is_visible()
    assert faults == []
    page.get_by_role("button", name="Log out").click()
    assert page.get_by_role("heading", name="Log in").is_visible()
    page.goto(f"{served.url}/tasks/{task}")
    assert page.get_by_role("heading", name="Log in").is_visible()


def test_without_javascript_everything_can_be_pressed(served: Served, browser: Any, tmp_path: Path):
    home = test_agent.owner_home(served, tmp_path)
    task = published(served, home, "plain")
    answer(served, home, tmp_path, task, 4)
    page = browser.new_context(java_script_enabled=False).new_page()
    log_in(served, home, page)
    page.goto(f"{served.url}/tasks/{task}")
    page.get_by_role("button", name="Close and fuse now").click()
    for _ in range(40):
        page.goto(f"{served.url}/tasks/{task}")
        if page.get_by_role("heading", name="Model 1").count():
            break
        page.wait_for_timeout(250)
    assert page.get_by_role("heading", name="Model 1").is_visible()
    page.get_by_role("link", name="Clients").click()
    page.get_by_role("button", name="Make a join code").click()
    assert len(page.locator("section pre").inner_text()) >= 20
    page.get_by_role("link", name="Log").click()
    assert page.get_by_role("cell", name="publish").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it(served: Served, browser: Any, tmp_path: Path, scheme: str):
    home = test_agent.owner_home(served, tmp_path)
    task = published(served, home, f"on a phone, {scheme}", "--quorum", 1)
    answer(served, home, tmp_path, task, 5)
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    log_in(served, home, page)
    for path in ("/", f"/tasks/{task}", "/keys", "/log"):
        page.goto(served.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(ground.split("(")[1].split(",")[0]) < 60) == (scheme == "dark")


def test_the_keyboard_reaches_every_button(served: Served, browser: Any, tmp_path: Path):
    home = test_agent.owner_home(served, tmp_path)
    task = published(served, home, "by keyboard")
    answer(served, home, tmp_path, task, 6)
    page = browser.new_page()
    log_in(served, home, page)
    page.goto(f"{served.url}/tasks/{task}")
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.innerText || document.activeElement.tagName"))
    assert reached[0] == "Skip to content"
    assert {"Tasks", "Clients", "Log", "Log out", "Close and fuse now"} <= set(reached)
    page.get_by_role("button", name="Close and fuse now").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Model 1").wait_for(timeout=20_000)


def test_a_hundred_clients_are_counted_not_listed():
    """The page's values alone: a browser adds nothing."""
    from fusionlearn.hub import views

    rows = [
        {"digest": f"{n:064x}", "signer": f"{n:064x}", "bytes": 10, "state": "counted" if n else "late",
         "received": f"2026-11-23T1{n % 3}:00:00+00:00"}
        for n in range(101)
    ]  # fmt: skip
    hours = views._by_hour(rows)
    assert [entry["count"] for entry in hours] == [34, 34, 33] and hours[0]["share"] == 1
    assert views._counted(row["state"] for row in rows) == {"late": 1, "counted": 100}


def test_names_of_clients_are_text_not_markup(served: Served, browser: Any, tmp_path: Path):
    home = test_agent.owner_home(served, tmp_path)
    code = test_agent.as_user(home, "invite", "--hub", served.url)["code"]
    from fusionlearn.agent import contact, wire

    with wire.Hub(served.url, rounds.key(77)) as hub:
        contact.join(hub, "<img src=x onerror=alert(1)>", code=code)
    page = browser.new_page()
    log_in(served, home, page)
    page.goto(f"{served.url}/keys")
    assert page.get_by_text("<img src=x").is_visible() and page.locator("td img").count() == 0
