"""A headless Chromium, driven over its own pipe: real clicks and keys, the page's text, screenshots.

The browser is Debian's package `chromium` or whatever of that family is on the path. Messages are JSON objects that
end with a zero byte, on file descriptors 3 (to the browser) and 4 (from it).
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 20.0  # seconds for one answer, on a busy machine


# Puts the pipes where the browser looks for them and becomes the browser.
LAUNCH = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"


def _above(fd: int) -> int:
    """The same pipe under a number that the two to be assigned cannot hit."""
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD, 10)
    os.close(fd)
    return copy


def executable() -> str | None:
    """The browser's path, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page in a browser of its own profile; use as a context manager."""

    def __init__(self, profile: Path, width: int = 1280, height: int = 900) -> None:
        into, self._to = os.pipe()
        self._from, out = os.pipe()
        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--remote-debugging-pipe",
        ]
        options += [
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            "--disable-dev-shm-usage",
        ]
        # nothing but this machine: an address elsewhere must fail, not be fetched
        options += [
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--disable-background-networking",
            "--disable-sync",
        ]
        command = [str(executable()), *options, "about:blank"]
        into, out = (_above(fd) for fd in (into, out))
        line = [sys.executable, "-c", LAUNCH, str(into), str(out), *command]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(line, pass_fds=(into, out), stdin=quiet, stdout=quiet, stderr=quiet)
        os.close(into)
        os.close(out)
        self._buffer, self._number, self.events = b"", 0, []
        target = next(t for t in self._send("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self._send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session: str | None = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._send(f"{domain}.enable")

    _session = None

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        os.close(self._to)
        os.close(self._from)

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._read(deadline)
            if answer.get("id") == self._number:
                if "error" in answer:
                    msg = f"{method}: {answer['error']}"
                    raise RuntimeError(msg)
                return answer["result"]
            self.events.append(answer)

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._from], [], [], left)[0]:
                msg = f"the browser gave no answer in {PATIENCE} s"
                raise TimeoutError(msg)
            part = os.read(self._from, 1 << 16)
            if not part:
                msg = "the browser has ended"
                raise RuntimeError(msg)
            self._buffer += part
        first, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(first)

    def open(self, address: str) -> None:
        """Go to an address and wait until the page has loaded."""
        self._send("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression: str) -> Any:
        """The JSON value of an expression in the page."""
        got = self._send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in got:
            msg = f"{expression}: {got['exceptionDetails'].get('exception', {}).get('description')}"
            raise RuntimeError(msg)
        return got["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.value(expression):
            if time.monotonic() > deadline:
                msg = f"never became true: {expression}"
                raise TimeoutError(msg)
            time.sleep(0.05)

    def click(self, selector: str, across: float = 0.5) -> None:
        """Press and release the mouse on an element, at a share of its width."""
        place = self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
            f" const r = e.getBoundingClientRect(); return [r.left + {across} * r.width, r.top + r.height / 2]; }})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._send(
                "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1
            )

    def key(self, name: str, code: int) -> None:
        """Press and release a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self._send("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)

    def type(self, text: str) -> None:
        """Type a text into the element with the focus."""
        for letter in text:
            self._send("Input.dispatchKeyEvent", type="keyDown", text=letter, key=letter)
            self._send("Input.dispatchKeyEvent", type="keyUp", key=letter)

    def picture(self, path: Path) -> Path:
        """A screenshot."""
        path.write_bytes(base64.b64decode(self._send("Page.captureScreenshot", format="png")["data"]))
        return path

    def asked_elsewhere(self) -> list[str]:
        """Addresses outside the file system that the pages have asked for."""
        self.value("1")  # takes in what has been reported so far
        asked = [
            e["params"]["request"]["url"]
            for e in self.events
            if e.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith(("file:", "data:", "about:", "blob:"))]

    def complaints(self) -> list[str]:
        """Errors that the pages' scripts have raised."""
        self.value("1")
        raised = [
            e["params"]["exceptionDetails"]
            for e in self.events
            if e.get("method") == "Runtime.exceptionThrown"
        ]
        return [str(r.get("exception", {}).get("description") or r.get("text")) for r in raised]
