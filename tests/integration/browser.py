"""A real browser, driven as a person would, over its DevTools protocol."""

import asyncio
import contextlib
import re

import aiohttp

OPTIONS = (
    "--headless --no-sandbox --disable-gpu --enable-unsafe-swiftshader --disable-quic "
    "--no-first-run --disable-background-networking --disable-component-update --disable-sync "
    "--remote-debugging-port=0 --window-size=1300,1000"
)
LOADED = """new Promise(done => document.readyState === "complete"
    ? done(true) : addEventListener("load", () => done(true)))"""
_LIMIT = 120  # seconds that any one answer may take


class Page:
    """One open page.

    Attributes:
        errors: What it complained of, on its console or by an exception.
    """

    def __init__(self, socket):
        self.errors = []
        self._socket, self._calls = socket, 0

    async def call(self, method, **params):
        """A command of the protocol, and its result."""
        self._calls += 1
        wanted = self._calls
        await self._socket.send_json({"id": wanted, "method": method, "params": params})
        while True:
            told = await asyncio.wait_for(self._socket.receive_json(), _LIMIT)
            if told.get("id") == wanted:
                assert "error" not in told, told
                return told["result"]
            self._hear(told)

    async def value(self, expression):
        """The value of an expression in the page, a promise's once it is kept."""
        told = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def until(self, expression):
        """Waits, a frame at a time, for an expression to be true."""
        await self.value(
            "new Promise(done => { const look = () => "
            f"({expression}) ? done(true) : requestAnimationFrame(look); look(); }})"
        )

    async def drag(self, start, end):
        """Presses the mouse at one point of the window and lets go at another."""
        places = [(start[i] + (end[i] - start[i]) * part for i in (0, 1)) for part in (0.5, 1)]
        await self._mouse("mousePressed", *start, buttons=1)
        for place in places:
            await self._mouse("mouseMoved", *place, buttons=1)
        await self._mouse("mouseReleased", *end, buttons=0)

    async def press(self, key, code):
        """A key, down and up again."""
        event = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text="\r", **event)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    async def _mouse(self, kind, x, y, buttons):
        button = "left"
        event = {"x": x, "y": y, "button": button, "buttons": buttons, "clickCount": 1}
        await self.call("Input.dispatchMouseEvent", type=kind, **event)

    def _hear(self, told):
        params = told.get("params", {})
        if told["method"] == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"])
        if told["method"] == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(params["args"])
        if told["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])


@contextlib.asynccontextmanager
async def opened(chromium, profile, uri):
    """A page of a browser of its own, loaded."""
    process = await asyncio.create_subprocess_exec(
        chromium,
        *OPTIONS.split(),
        f"--user-data-dir={profile}",
        "about:blank",
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        address = await asyncio.wait_for(_address(process), _LIMIT)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{address}/json") as answer:
                pages = [found for found in await answer.json() if found["type"] == "page"]
            socket = await session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)
            async with socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Log"):
                    await page.call(f"{domain}.enable")
                await page.call("Page.navigate", url=uri)
                await page.until(f'location.href.startsWith("{uri}")')
                await page.value(LOADED)
                yield page
    finally:
        process.kill()
        await process.communicate()


async def _address(process):
    """Where it listens, from what it says when it does."""
    while line := await process.stderr.readline():
        if found := re.search(rb"DevTools listening on ws://([^/]+)/", line):
            return found[1].decode()
    raise AssertionError("the browser ended before it listened")
