"""The page in a real browser, as a user has it: each page in both themes and languages, by mouse and keys.

With `SCREENSHOTS=DIR` each page is also kept as a picture, to be looked at.
"""

import json
import os
import time
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pytest

from daemon.messages import Line, Sample, Stamp
from daemon.store.reader import StoreReader
from daemon.store.segments import SegmentWriter
from tests.fixtures.pages import NOW
from tests.fixtures.web import served
from tests.test_web import PAGES, settings  # noqa: F401 - a fixture

CHROMIUM, DRIVER = which("chromium"), which("chromedriver")
READY = CHROMIUM and DRIVER and find_spec("selenium") and find_spec("axe_core_python")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not READY, reason="needs chromium, chromium-driver, selenium: make test-browser"),
]
SHOWN = [path for path in PAGES if path != "/now"]
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1100,900",
)  # fmt: skip
# What the axe of 2022 does not know yet, or what is no page's affair.
AXE = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    """One browser for all tests of this file."""
    from selenium import webdriver  # noqa: PLC0415 - where there is a browser

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chrome')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(chrome, settings):  # noqa: F811
    """The browser before a page that is served, with a quarter of an hour of the usual metrics."""
    writer = SegmentWriter(settings.state / "telemetry", 14, 512)
    for second in range(900):
        stamp = Stamp("b", 3000.0 + second, time.time() - 900 + second)
        values = {
            "cpu.busy": 0.2 + 0.1 * (second % 60) / 60,
            "mem.available": 0.6,
            "psi.io.some": 0.01,
            "load.1": 0.5,
        }
        words = "disk sdb has gone away" if second == 700 else f"served request {second} of /index.html"
        spoken = (
            [Line(stamp, "journal", words, 6, "web.service")] if second % 20 == 0 and second < 701 else []
        )
        writer.write([Sample(stamp, "host", values), *spoken], stamp)
    writer.close()
    with served(settings) as port:
        chrome.delete_all_cookies()
        chrome.set_window_size(1100, 900)
        theme(chrome, "light")
        yield Page(chrome, port)


def theme(chrome, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


class Page:
    """What a user does and sees."""

    def __init__(self, chrome, port):
        self.chrome, self.port = chrome, port

    def open(self, path):
        self.chrome.get(f"http://127.0.0.1:{self.port}{path}")
        self.wait(lambda: self.js("return document.readyState") == "complete")

    def js(self, script, *arguments):
        return self.chrome.execute_script(script, *arguments)

    def press(self, keys):
        from selenium.webdriver.common.action_chains import ActionChains  # noqa: PLC0415

        ActionChains(self.chrome).send_keys(keys).perform()

    def wait(self, condition, seconds=10.0):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if condition():
                return
            time.sleep(0.05)
        raise AssertionError(f"waited {seconds} s; the page says: {self.text[:500]}")

    @property
    def text(self):
        return self.js("return document.body.innerText")

    @property
    def path(self):
        return self.chrome.current_url.partition(f":{self.port}")[2]

    def complaints(self):
        return [
            one["message"] for one in self.chrome.get_log("browser") if one["level"] in {"SEVERE", "WARNING"}
        ]

    def keep(self, name):
        if folder := os.environ.get("SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            height = self.js("return document.documentElement.scrollHeight")
            width = self.js("return innerWidth")
            self.chrome.set_window_size(width, min(3000, max(700, height + 150)))
            self.chrome.save_screenshot(f"{folder}/{name}.png")


def drawn(page):
    """Wait until what a script draws is there."""
    page.wait(
        lambda: page.js("return [...document.querySelectorAll('.last')].every(e => e.textContent !== '…')")
    )
    if page.js("return !!document.getElementById('explorer')"):
        page.wait(lambda: page.js("return !!document.querySelector('#explorer canvas')"))


@pytest.mark.parametrize("path", SHOWN)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("lang", ["en", "de"])
def test_page_is_accessible_and_the_console_is_silent(page, path, scheme, lang):
    theme(page.chrome, scheme)
    page.open(f"/language/{lang}")
    page.open(path)
    drawn(page)
    assert page.complaints() == []
    found = axe(page)
    name = path.strip("/").replace("/", "-") or "now"
    page.keep(f"{name}-{scheme}-{lang}")
    assert found == []


def axe(page):
    """What axe-core objects to, each with the first element."""
    import axe_core_python  # noqa: PLC0415 - where there is a browser

    page.js((Path(axe_core_python.__file__).parent / "axe.min.js").read_text())
    done = page.chrome.execute_async_script(
        "const done = arguments[1];"
        "axe.run(document, arguments[0]).then(found => done(JSON.stringify(found.violations)));",
        AXE,
    )
    return [f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}" for one in json.loads(done)]


@pytest.mark.parametrize("path", SHOWN)
def test_page_fits_a_phone(page, path):
    page.chrome.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True},
    )
    try:
        page.open(path)
        drawn(page)
        name = path.strip("/").replace("/", "-") or "now"
        if folder := os.environ.get("SCREENSHOTS"):
            page.chrome.save_screenshot(f"{folder}/{name}-phone.png")
        assert page.js("return document.documentElement.scrollWidth") <= 390
    finally:
        page.chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_first_page_is_there_at_once_and_small(page):
    page.open("/")  # whatever is read once
    page.chrome.execute_cdp_cmd("Network.clearBrowserCache", {})
    took = []
    for _ in range(5):
        page.open("/")
        took.append(page.js("return performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"))
    drawn(page)
    size = page.js(
        "return performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'))"
        ".reduce((sum, one) => sum + one.encodedBodySize, 0)"
    )
    print(f"first page: {sorted(took)[2]:.0f} ms (median of 5), {size / 1000:.0f} kB with all it loads")
    assert sorted(took)[2] < 300
    assert size < 200_000


def test_everything_loaded_is_the_pages_own(page):
    for path in SHOWN:
        page.open(path)
        drawn(page)
        hosts = page.js("return performance.getEntriesByType('resource').map(one => new URL(one.name).host)")
        assert set(hosts) <= {f"127.0.0.1:{page.port}"}


def test_one_key_answers_and_says_so(page, settings):  # noqa: F811
    page.open("/incidents/abc2345")
    page.press("g")
    page.wait(lambda: "Kept." in page.text)
    with StoreReader(settings.store) as reader:
        assert [one.verdict for one in reader.feedback("abc2345")] == ["good"]


def test_advice_is_improved_by_keys_alone(page, settings):  # noqa: F811
    page.open("/incidents/abc2345")
    page.press("e")
    page.wait(lambda: page.js("return document.activeElement.tagName") == "TEXTAREA")
    page.press(" Empty /srv/tmp.")
    page.js("document.activeElement.form.requestSubmit()")
    page.wait(lambda: "Kept." in page.text)
    with StoreReader(settings.store) as reader:
        assert "Empty /srv/tmp." in reader.feedback("abc2345")[0].improved


def test_letters_typed_into_a_field_are_no_answers(page, settings):  # noqa: F811
    page.open("/incidents")
    page.press("/")
    page.wait(lambda: page.js("return document.activeElement.id") == "search")
    page.press("bags")
    assert page.js("return document.activeElement.value") == "bags"
    with StoreReader(settings.store) as reader:
        assert reader.feedback("abc2345") == []


def test_pages_and_incidents_are_reached_by_keys(page):
    page.open("/")
    page.press("i")
    page.wait(lambda: page.path == "/incidents")
    page.press("j")
    page.wait(lambda: page.js("return document.activeElement.className") == "open")
    page.press("\ue007")
    page.wait(lambda: page.path.startswith("/incidents/"))
    page.press("n")
    page.wait(lambda: page.path == "/")
    page.press("?")
    page.wait(lambda: page.js("return !!document.querySelector('dialog[open]')"))
    assert axe(page) == []


def test_theme_is_chosen_and_stays(page):
    page.open("/")
    before = page.js("return getComputedStyle(document.body).backgroundColor")
    page.js("document.getElementById('theme').click(); document.getElementById('theme').click()")
    after = page.js("return getComputedStyle(document.body).backgroundColor")
    assert before != after
    page.open("/incidents")
    assert page.js("return getComputedStyle(document.body).backgroundColor") == after
    page.js("localStorage.clear()")


def test_first_page_shows_what_opens_without_being_loaded_again(page, settings):  # noqa: F811
    from daemon.store.writer import StoreWriter  # noqa: PLC0415
    from tests.fixtures.pages import incident  # noqa: PLC0415

    page.open("/")
    assert "1 open incident" in page.text
    page.js("window.same = true")
    with StoreWriter(settings.store) as writer:
        writer.save([incident("new2345", evidence_at=NOW)], [])
    page.wait(lambda: "2 open incidents" in page.text, 15)
    assert page.js("return window.same") is True


def test_page_without_its_script_still_answers(chrome, settings):  # noqa: F811
    chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        with served(settings) as port:
            chrome.get(f"http://127.0.0.1:{port}/incidents/abc2345")
            chrome.find_element("css selector", 'button[data-key="a"]').click()
            assert "Kept." in chrome.find_element("tag name", "main").text
    finally:
        chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
