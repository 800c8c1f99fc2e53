"""A source of pictures on loopback, and runs of its main job that are killed at a named moment."""

import contextlib
import io
import signal
import subprocess
import sys
import threading
import time
from http.server import ThreadingHTTPServer

import main_job
import numpy as np
import random_clip
from picture_handler import PictureHandler
from PIL import Image

SHARD = 20


class Pictures(PictureHandler):
    """A picture by number; every seventh is missing, every eleventh is cut short."""

    fetches = 0

    def do_GET(self):
        Pictures.fetches += 1
        number = int(self.path.strip("/").removesuffix(".jpg"))
        if number % 7 == 3:
            self.send_error(404)
            return
        body = picture(number)
        self.answer(body[: len(body) // 2] if number % 11 == 5 else body)


def picture(number):
    noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).resize((96, 80)).save(data, "JPEG")
    return data.getvalue()


@contextlib.contextmanager
def served():
    """The port of the server of pictures."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def described(folder, port, count):
    clip = folder / "clip"
    if not clip.exists():
        random_clip.save(random_clip.reference("quick_gelu"), clip, quick_gelu=True)
    rows = [f"a thing of number {number}\thttp://127.0.0.1:{port}/{number}.jpg" for number in range(count)]
    (folder / "list.tsv").write_text("\n".join([*rows, *rows[:5]]) + "\n")
    toml = folder / "killed.toml"
    toml.write_text(
        f"""
        [pairs]
        location = "list.tsv"
        columns = ["caption", "url"]
        [download]
        shard_size = {SHARD}
        allow_hosts = ["127.0.0.1:{port}"]
        [scorers.clip]
        kind = "clip"
        model = "local-dir:{clip}"
        [scorers.pixels]
        kind = "pixels"
        [scorers.captions]
        kind = "captions"
        [[filters]]
        name = "aligned"
        sql = "clip_similarity >= (SELECT quantile_cont(clip_similarity, 0.5) FROM rows)"
        """
    )
    return toml


def started(toml, root):
    return subprocess.Popen(
        [sys.executable, main_job.__file__, str(toml), str(root)], stdout=subprocess.PIPE, text=True
    )


def killed_after(process, line, pause):
    """Kill -9 a moment after `line`. The last line is returned if the run was over before."""
    last = ""
    for told in process.stdout:
        last = told.strip()
        if last.startswith(line):
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            break
    rest = process.stdout.read()
    process.wait()
    return rest.strip().splitlines()[-1] if rest.strip() else last
