"""Lesson 04's lines that upload a model, run against a small Hub on loopback, and what arrives there."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LESSON = ROOT / "notebooks" / "04_mrpc_trainer.ipynb"
# What the cells above these lines define, on few rows; the lines follow.
BEFORE = """
import datasets, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding
from transformers import Trainer, TrainingArguments

bert = "{root}/data/models/bert"
tokenizer = AutoTokenizer.from_pretrained(bert)
rows = datasets.load_dataset("{root}/data/glue", "mrpc", split="train").select(range(16))
rows = rows.map(lambda row: tokenizer(row["sentence1"], row["sentence2"], truncation=True, max_length=64))


def new_trainer(name, **changes):
    changes = {{"max_steps": 1, "use_cpu": True, "save_strategy": "no", "disable_tqdm": True}} | changes
    return Trainer(
        AutoModelForSequenceClassification.from_pretrained(bert, num_labels=2),
        TrainingArguments(name, **changes),
        train_dataset=rows,
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
    )
"""


def lines_of_the_lesson():
    """The Python block in the lesson's text that uploads."""
    cells = json.loads(LESSON.read_text(encoding="utf-8"))["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", prose, re.DOTALL) if "push_to_hub" in block]
    return block


class _Handler(BaseHTTPRequestHandler):
    """Knows what an upload asks for: who is it, make a repository, how to send, large files, and the commit."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def read(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def say(self, answer, status=200, headers=()):
        body = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(body), **dict(headers)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.say({}, 404, {"X-Error-Code": "EntryNotFound"}.items())

    def do_GET(self):
        if self.path.endswith("/whoami-v2"):
            return self.say({"type": "user", "name": "ann", "orgs": [], "auth": {"type": "access_token"}})
        if re.fullmatch(r"/api/models/ann/[\w-]+(/revision/main)?", self.path):
            return self.say({"id": "ann/bert-mrpc", "sha": "0" * 40, "private": True, "siblings": [], "tags": []})
        return self.say({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"}.items())

    def do_PUT(self):
        content = self.read()
        self.server.large[hashlib.sha256(content).hexdigest()] = content
        self.say({})

    def do_POST(self):
        body, server = self.read(), self.server
        if self.path.endswith("/repos/create"):
            server.made.append(json.loads(body))
            return self.say({"url": f"{server.url}/ann/{server.made[-1]['name']}"})
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            ways = {True: "lfs", False: "regular"}
            large = (".safetensors", ".bin")
            files = [{"path": name, "uploadMode": ways[name.endswith(large)], "shouldIgnore": False} for name in names]
            return self.say({"files": files})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                one | {"actions": {"upload": {"href": f"{server.url}/put/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self.say({"transfer": "basic", "objects": objects})
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    server.files[line["value"]["path"]] = server.large[line["value"]["oid"]]
            where = f"{server.url}/ann/bert-mrpc/commit/{'1' * 40}"
            return self.say({"success": True, "commitUrl": where, "commitOid": "1" * 40})
        return self.say({})  # a model card is checked before it is sent


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    server.made, server.files, server.large = [], {}, {}
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_the_lesson_uploads_a_model_that_loads_again(hub, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    program = textwrap.dedent(BEFORE.format(root=ROOT.as_posix())) + lines_of_the_lesson()
    own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_of_nobody", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
    own |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "no_proxy": "*", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert hub.made[0]["visibility"] == "private" and {made["name"] for made in hub.made} == {"bert-mrpc"}
    wanted = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "training_args.bin"}
    assert wanted <= set(hub.files)
    card = hub.files["README.md"].decode()
    assert "paraphrase" in card and "MRPC" in card and "learning_rate" in card

    arrived = tmp_path / "arrived"
    arrived.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (arrived / name).write_bytes(hub.files[name])
    assert AutoModelForSequenceClassification.from_pretrained(arrived).config.num_labels == 2
    assert AutoTokenizer.from_pretrained(arrived).cls_token == "[CLS]"
