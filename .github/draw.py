#!/usr/bin/env python3
"""Draws the README's pictures, in light and dark, from a real pass in a terminal.

    cargo build --release && .github/draw.py

Starts three nodes on loopback, one of them slow, runs target/release/backfiller in tmux, and turns
what the terminal shows into SVG beside this file: `pass-*.svg` while the pass is under way, and
`map-*.svg` once it is over. Needs python3 and tmux.
"""

import base64
import hashlib
import http.server
import json
import os
import pathlib
import random
import re
import subprocess
import tempfile
import threading
import time
import urllib.parse
from html import escape

HERE = pathlib.Path(__file__).resolve().parent
BINARY = HERE.parent / "target" / "release" / "backfiller"
COLUMNS, ROWS = 100, 24
COMMAND = "backfiller --coverage @nodes desertbus source 2018-11-10T04..2018-11-10T06"

# Bytes per second of each node, over all of its connections.
NODES = {"toodles": 12_000_000, "gargamel": 7_000_000, "snowball": 600_000}
SEGMENT_BYTES = 400_000

# Characters that fill a part of their cell: from the left in eighths, others.
EIGHTHS = "▏▎▍▌▋▊▉█"
BLOCKS = EIGHTHS + "▄░▒▓"
# The height of a filled cell.
CELL = 16

# The colours of a terminal, by the number that selects them, on a light and on a dark page. Each
# has a contrast of at least 4.5 to 1 with the background.
SCHEMES = {
    "light": {
        "background": "#f6f8fa", "border": "#d1d9e0", "text": "#1f2328",
        "31": "#cf222e", "32": "#1a7f37", "33": "#7d4e00", "34": "#0969da", "35": "#8250df",
        "36": "#1b7c83", "90": "#59636e",
    },
    "dark": {
        "background": "#0d1117", "border": "#3d444d", "text": "#f0f6fc",
        "31": "#ff7b72", "32": "#3fb950", "33": "#d29922", "34": "#58a6ff", "35": "#bc8cff",
        "36": "#39c5cf", "90": "#9198a1",
    },
}

COLOURS = SCHEMES["light"].keys() - {"background", "border", "text"}


def segments():
    """Every segment of three hours: (hour, name, content), from a seed of its own."""
    for hour in ("2018-11-10T04", "2018-11-10T05", "2018-11-10T06"):
        ends = 41 * 60 if hour.endswith("06") else 3600
        for second in range(0, ends, 2):
            stem = f"{second // 60:02}:{second % 60:02}.0-2.0-full"
            content = b""
            if not is_here(hour, stem):
                content = random.Random(hour + stem).randbytes(SEGMENT_BYTES)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            yield hour, f"{stem}-{digest}.ts", content


def is_here(hour, name):
    """Whether the archive has a segment before the pass."""
    minute = int(name[:2])
    return not (hour.endswith("05") and (12 <= minute < 19 or 35 <= minute < 38))


def is_held(node, hour, name):
    """Whether a node has a segment. What no node has stays a hole."""
    minute, second = int(name[:2]), int(name[3:5])
    if hour.endswith("05") and (minute in (35, 36) or minute == 37 and second < 30):
        return False
    return node != "snowball" or minute % 2 == 0


class Node(http.server.ThreadingHTTPServer):
    """A node with its share of the segments and a rate that all of its connections share."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, name, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.rate = files, NODES[name]
        self.free_at, self.turn = time.monotonic(), threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def take_turn(self, count):
        """Waits until this many bytes may be sent."""
        with self.turn:
            self.free_at = max(self.free_at, time.monotonic()) + count / self.rate
            wait = self.free_at - time.monotonic()
        time.sleep(max(0, wait))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        parts = urllib.parse.unquote(self.path.split("?")[0]).strip("/").split("/")
        files = self.server.files
        if parts[:3] == ["files", "desertbus", "source"]:
            names = files.get(parts[3], {}) if len(parts) > 3 else files
            self.answer(json.dumps(sorted(names)).encode())
        elif parts[0] == "segments" and parts[-1] in files.get(parts[-2], {}):
            self.answer(files[parts[-2]][parts[-1]])
        else:
            self.send_error(404)

    def answer(self, content):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for start in range(0, len(content), 4096):
            piece = content[start:start + 4096]
            self.server.take_turn(len(piece))
            try:
                self.wfile.write(piece)
            except ConnectionError:
                # The rest was fetched from another node.
                self.close_connection = True
                return

    def log_message(self, *_):
        pass


class Terminal:
    """A shell in a tmux session of its own."""

    def __init__(self, directory):
        self.socket = str(directory / "tmux")
        path = f"{BINARY.parent}:{os.environ['PATH']}"
        self.tmux("new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS), "-c", str(directory),
                  "env", "PS1=$ ", f"PATH={path}", "LC_ALL=C.UTF-8", "sh")

    def tmux(self, *arguments):
        command = ["tmux", "-f", "/dev/null", "-S", self.socket, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def type(self, line):
        self.tmux("send-keys", line, "Enter")

    def lines(self):
        """What is on the screen, with colours as escape sequences, without empty lines at the end."""
        return self.tmux("capture-pane", "-p", "-e").rstrip("\n").split("\n")

    def wait_for(self, pattern, seconds=60):
        """Waits until the screen shows this, and returns its lines."""
        deadline = time.monotonic() + seconds
        while True:
            lines = self.lines()
            if re.search(pattern, re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(lines)), re.MULTILINE):
                return lines
            if time.monotonic() > deadline:
                raise SystemExit(f"the terminal never shows {pattern}:\n" + "\n".join(lines))
            time.sleep(0.05)


def runs(line):
    """A line of the terminal as (text, codes): pieces with the same colours."""
    codes = set()
    for escapes, text in re.findall(r"((?:\x1b\[[0-9;]*m)*)([^\x1b]*)", line):
        for code in re.findall(r"[0-9]+|(?<=\[)(?=m)", escapes):
            if code in ("", "0", "39", "49"):
                codes = set()
            else:
                # A colour takes the place of the one before.
                codes = {other for other in codes if other not in COLOURS or code not in COLOURS}
                codes.add(code)
        if text:
            yield text, codes


def svg(lines, scheme, title):
    """Lines of a terminal as a picture."""
    colours = SCHEMES[scheme]
    advance, height, margin = 8.4, 19, 16
    width = COLUMNS * advance + 2 * margin
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width:.0f} '
        f'{len(lines) * height + 2 * margin}">',
        f"<title>{escape(title)}</title>",
        f'<rect x="0.5" y="0.5" width="{width - 1:.0f}" height="{len(lines) * height + 2 * margin - 1}" '
        f'rx="8" fill="{colours["background"]}" stroke="{colours["border"]}"/>',
        f'<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace" '
        f'font-size="14" fill="{colours["text"]}">',
    ]
    for number, line in enumerate(lines):
        baseline = margin + number * height + 14
        column = 0
        for text, codes in runs(line):
            fill = next((colours[code] for code in codes if code in colours), None)
            style = f' fill="{fill}"' if fill else ""
            style += ' font-weight="bold"' if "1" in codes else ""
            # Each piece has its own column and length, so it stands where the terminal had it,
            # whatever the width of the font.
            for piece in re.finditer(r"[%s]+|[^%s\s]+(?: [^%s\s]+)*" % ((BLOCKS,) * 3), text):
                x = margin + (column + piece.start()) * advance
                if piece.group()[0] in BLOCKS:
                    out += blocks(piece.group(), x, baseline, advance, fill or colours["text"])
                else:
                    out.append(f'<text x="{x:.1f}" y="{baseline}" '
                               f'textLength="{len(piece.group()) * advance:.1f}"{style}>'
                               f"{escape(piece.group())}</text>")
            column += len(text)
    return "\n".join([*out, "</g>", "</svg>", ""])


def blocks(text, x, baseline, advance, fill):
    """Block characters as rectangles, since fonts leave gaps between them."""
    for same in re.finditer(r"(.)\1*", text):
        left, width, height = x + same.start() * advance, len(same.group()) * advance, CELL
        if same.group()[0] in EIGHTHS:
            width *= (EIGHTHS.index(same.group()[0]) + 1) / 8
        elif same.group()[0] == "▄":
            height /= 2
        opacity = {"░": 0.25, "▒": 0.5, "▓": 0.75}.get(same.group()[0])
        yield (f'<rect x="{left:.1f}" y="{baseline + 4 - height:.1f}" width="{width:.1f}" '
               f'height="{height}" fill="{fill}"' + (f' opacity="{opacity}"' if opacity else "") + "/>")


def main():
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        held = {node: {} for node in NODES}
        for hour, name, content in segments():
            for node in NODES:
                if is_held(node, hour, name):
                    held[node].setdefault(hour, {})[name] = content
            if is_here(hour, name):
                path = directory / "desertbus" / "source" / hour / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        nodes = {name: Node(name, files) for name, files in held.items()}
        (directory / "nodes").write_text(
            "".join(f"{name} http://127.0.0.1:{node.server_port}\n" for name, node in nodes.items()))
        terminal = Terminal(directory)
        try:
            terminal.wait_for(r"^\$")
            terminal.type(COMMAND)
            under_way = terminal.wait_for(r"\b1[0-3][0-9]/2[0-9][0-9]")
            over = terminal.wait_for(r"\n\$ *$")[:-1]
        finally:
            terminal.tmux("kill-server")
    pictures = {
        "pass": (under_way, "A pass under way: a bar, and a line for each of three nodes, one slow"),
        "map": (over, "A coverage map: a line an hour, a character a minute, and the hole that is left"),
    }
    for name, (lines, title) in pictures.items():
        for scheme in SCHEMES:
            (HERE / f"{name}-{scheme}.svg").write_text(svg(lines, scheme, title))


if __name__ == "__main__":
    main()
