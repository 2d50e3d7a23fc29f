"""The report in a real browser: nothing is loaded, nothing hostile runs, and the filters do what they say.

Chromium is driven over its DevTools protocol, so that every request, console message and policy breach is seen.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from report_dataset import HOSTILE, candidate, clip, failure, rejected, video, write_dataset, write_reel, write_run

from beam_pipeline.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
connect = pytest.importorskip(
    "websockets.sync.client", reason="needs the package websockets to drive a browser"
).connect

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium on the PATH")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)

#: Filled by the browser at every violation of the page's content policy, before any script of the page runs.
WATCH_POLICY = """
window.breaches = [];
document.addEventListener("securitypolicyviolation", (event) => breaches.push(event.violatedDirective));
"""


class Page:
    """One tab of a browser."""

    def __init__(self, socket: Any):
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.send("Page.addScriptToEvaluateOnNewDocument", source=WATCH_POLICY)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters, **self._session}))
        while True:
            message = json.loads(self._socket.recv(timeout=30))
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self.events.append(message)

    def open(self, path: str, address: str = "") -> None:
        self.send("Page.navigate", url="about:blank")
        self.events.clear()
        self.send("Page.navigate", url=pathlib.Path(path).resolve().as_uri() + address)
        self.wait(lambda: self.run("document.readyState === 'complete' && location.protocol === 'file:'"))

    def run(self, expression: str) -> Any:
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "the page did not get there within 20 s"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        text = {"text": key} if len(key) == 1 else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def type_text(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def shown(self) -> list[str]:
        """Clip ids of the visible cards, in the order of the page."""
        return self.run("[...document.querySelectorAll('.clip')].filter(c => c.offsetParent).map(c => c.id.slice(5))")

    def complaints(self) -> list[str]:
        """Console messages, uncaught exceptions, and log entries since the page was opened."""
        self.run("0")
        told = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in told]

    def requests(self) -> list[str]:
        """What was asked for since the page was opened, pictures inside the page left out."""
        asked = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        urls = [event["params"]["request"]["url"] for event in asked]
        return [url for url in urls if not url.startswith(("data:", "about:"))]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    profile = tmp_path_factory.mktemp("browser")
    browser = subprocess.Popen(
        [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not port.exists() or len(port.read_text().split()) < 2:
            assert browser.poll() is None, "the browser ended before it could be reached"
            assert time.monotonic() < deadline, "the browser did not start within a minute"
            time.sleep(0.05)
        number, path = port.read_text().split()
        with connect(f"ws://127.0.0.1:{number}{path}", max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        browser.terminate()
        browser.wait(timeout=20)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three videos: 'a' and 'b' with two clips each, all of whose words are hostile where strangers write them."""
    directory = tmp_path_factory.mktemp("shared") / "hostile-dataset"
    clips = [
        clip("a", 0.0, 4.0, [candidate("frame", "a dog runs", 0.5), candidate("text", HOSTILE, 0.25)], title=HOSTILE),
        clip(
            "a", 4.0, 14.0, [candidate("text", "a cat sleeps", 0.875), candidate("frame", "a bed", 0.75)], title=HOSTILE
        ),
        clip("b", 1.0, 3.0, [candidate("frame", HOSTILE, 0.125)], abstained=True, subtitles=HOSTILE),
        clip("b", 3.0, 9.0, [candidate("text", "a dog barks", 0.75), candidate("frame", "noise", 0.0)]),
    ]
    for row, blur in zip(clips, (0.0, 0.0, 0.0, 0.5), strict=True):
        row |= {"blur": blur, "category": HOSTILE, "duplicate_of": HOSTILE, "crop": [0, 0, 64, 36]}
    write_dataset(
        directory,
        videos=[video("a", 14.0, title=HOSTILE), video("b", 9.0), video("c", None, "failed", uri=HOSTILE)],
        clips=clips,
        rejected=[rejected("b", 0.0, 1.0, HOSTILE, HOSTILE, 0.5, 0.25)],
        failures=[failure("split", "c", HOSTILE, HOSTILE, uri=HOSTILE, detail=HOSTILE, teacher=HOSTILE)],
    )
    for video_id in ("a", "b"):
        write_reel(directory, video_id, 14.0, (398, 224))
    write_run(directory, started_at=HOSTILE, counts={HOSTILE: 1}, seconds={HOSTILE: 1.0}, config={"x": HOSTILE})
    return write_report(str(directory))


A1, A2, B1, B2 = "a-0-4000", "a-4000-14000", "b-1000-3000", "b-3000-9000"


def test_page_asks_for_nothing_but_itself_and_complains_of_nothing(page, report):
    page.open(report)
    for section in ("teachers", "distributions", "videos", "rejected", "failures", "run", "clips"):
        page.run(f"location.hash = '#{section}'")
        page.wait(lambda name=section: page.run("document.querySelector('nav [aria-current]')?.hash") == f"#{name}")
        assert page.run("[...document.querySelectorAll('main > section')].filter(s => s.offsetParent).length") == 1
    assert page.complaints() == []
    assert page.requests() == [pathlib.Path(report).resolve().as_uri()]
    assert page.run("breaches") == []


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        ("", "", "drops 0.0 % of the clips"),
        ("0", "", "drops 0.0 % of the clips"),
        ("0.1", "", "drops 75.0 % of the clips"),
        ("", "0", "drops 25.0 % of the clips"),
        ("", "0.5", "drops 0.0 % of the clips"),
        ("0.1", "0.4", "drops 100.0 % of the clips"),
    ],
)
def test_bounds_tell_which_share_of_the_clips_they_would_drop(page, report, low, high, told):
    page.open(report, "#distributions")
    bounds = "document.querySelector('figure.score form.bounds')"
    page.run(f"{bounds}.elements.low.value = '{low}'; {bounds}.elements.high.value = '{high}'")
    page.run(f"{bounds}.dispatchEvent(new Event('input'))")
    assert page.run(f"{bounds}.querySelector('output').textContent") == told


def test_policy_holds_against_a_script_that_gets_into_the_page(page, report):
    page.open(report)
    page.run(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}),"
        " Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))"
    )
    page.wait(lambda: len(page.run("breaches")) == 2)
    assert sorted(page.run("breaches")) == ["img-src", "script-src-elem"]
    assert page.run("typeof window.ran") == "undefined"


def test_hostile_text_is_shown_to_the_letter_and_does_nothing(page, report):
    page.open(report)
    literal = json.dumps(HOSTILE)
    assert page.run("document.title") == "hostile-dataset · reelscribe report"
    assert page.run(f"document.querySelector('#clip-{B1} .caption').textContent") == HOSTILE
    assert page.run(f"document.querySelector('#clip-{B1} .subtitles').textContent") == f"Subtitles {HOSTILE}"
    assert page.run("document.querySelector('.letter .message').textContent") == HOSTILE
    assert page.run("document.querySelectorAll('script').length") == 1
    assert page.run("[...document.images].filter(i => !i.src.startsWith('data:image/jpeg')).length") == 0
    assert (
        page.run(f"JSON.parse(document.querySelector('#section-run pre').textContent).config.x === {literal}") is True
    )


def test_pictures_of_the_clips_are_whole(page, report):
    page.open(report)
    page.run("Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode(); })).then(() => 0)")
    sizes = page.run("[...document.images].map(i => [i.naturalWidth, i.naturalHeight, i.width, i.height])")
    # Frames of 398 x 224 become 213 x 120, 5 of them with 4 pixels between; the clip of 2 s has 4 frames in its reel.
    assert sizes == [[1081, 120, 1081, 120], [1081, 120, 1081, 120], [864, 120, 864, 120], [1081, 120, 1081, 120]]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("", [A1, A2, B1, B2]),
        ("?q=DOG", [A1, B2]),
        ("?q=dog%20runs", [A1]),
        ("?q=bed", [A2]),
        ("?q=onerror", [A1, A2, B1]),
        ("?teacher=text", [A2, B2]),
        ("?video=b", [B1, B2]),
        ("?min=0.5", [A1, A2, B2]),
        ("?min=0.5&max=0.8", [A1, B2]),
        ("?abstained=1", [B1]),
        ("?sort=score-down", [A2, B2, A1, B1]),
        ("?sort=score-up", [B1, A1, B2, A2]),
        # B1 has one caption and so no margin: it stands last both ways.
        ("?sort=margin-down", [B2, A1, A2, B1]),
        ("?sort=margin-up", [A2, A1, B2, B1]),
        ("?sort=duration-up&video=a", [A1, A2]),
        ("?sort=duration-down&q=dog", [B2, A1]),
        ("?q=nothing-like-it", []),
        ("?teacher=nobody&video=%22%5D", [A1, A2, B1, B2]),
    ],
)
def test_address_sets_the_filters(page, report, address, expected):
    page.open(report, f"#clips{address}")
    assert page.shown() == expected
    assert page.run("document.getElementById('shown').textContent") == f"{len(expected)} of 4 clips"
    assert page.run("document.getElementById('none').offsetParent !== null") is (expected == [])
    assert page.complaints() == []


def test_keyboard_alone_searches_steps_through_the_clips_and_clears(page, report):
    page.open(report)
    page.press("/")
    page.type_text("dog")
    assert page.shown() == [A1, B2]
    assert page.run("location.hash") == "#clips?q=dog"
    page.run("document.activeElement.blur()")
    stepped = []
    for key in ("j", "j", "j", "k"):
        page.press(key)
        stepped.append(page.run("document.activeElement.id"))
    assert stepped == [f"clip-{A1}", f"clip-{B2}", f"clip-{B2}", f"clip-{A1}"]
    page.press("/")
    page.press("Escape")
    page.wait(lambda: page.shown() == [A1, A2, B1, B2])
    assert page.run("location.hash") == "#clips"


def test_leaderboard_and_videos_lead_to_their_clips(page, report):
    page.open(report, "#teachers")
    page.run("document.querySelector('#leaderboard tbody a').click()")
    page.wait(lambda: page.run("location.hash").startswith("#clips?teacher="))
    page.wait(lambda: len(page.shown()) == 2)
    page.open(report, "#videos")
    page.run("[...document.querySelectorAll('.video a')].find(a => a.textContent === 'b.mp4').click()")
    page.wait(lambda: page.shown() == [B1, B2])


def test_page_fits_a_phone_in_every_section(page, report):
    page.send("Emulation.setDeviceMetricsOverride", width=375, height=760, deviceScaleFactor=1, mobile=True)
    try:
        for section in ("clips", "teachers", "distributions", "videos", "rejected", "failures", "run"):
            page.open(report, f"#{section}")
            assert page.run("document.documentElement.scrollWidth") == 375, section
            boxes = "[...document.querySelectorAll('.clip, figure, .video, .failure, form')]"
            wide = page.run(f"{boxes}.filter(box => box.scrollWidth > box.clientWidth).map(box => box.className)")
            assert wide == [], section
    finally:
        page.send("Emulation.clearDeviceMetricsOverride")


def test_dark_preference_turns_the_page_dark(page, report):
    page.open(report)
    colours = {}
    for scheme in ("light", "dark"):
        page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        colours[scheme] = page.run("getComputedStyle(document.body).backgroundColor")
    page.send("Emulation.setEmulatedMedia", features=[])
    assert colours == {"light": "rgb(247, 247, 245)", "dark": "rgb(20, 21, 19)"}


def test_report_of_an_empty_dataset_is_calm(page, tmp_path):
    page.open(write_report(str(write_dataset(tmp_path / "empty"))))
    assert page.run("document.querySelector('#section-clips .empty').textContent") == "This dataset has no clips yet."
    assert page.complaints() == []
