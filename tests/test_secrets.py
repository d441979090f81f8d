"""Passwords of addresses stay in the address: they are in no output, tag, artifact or page."""

import http.client
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient

from benchmarks.stores import mlflow_server
from worldrep import text
from worldrep.errors import InputError, first_line
from worldrep.text import masked, remember, without_passwords, without_user
from worldrep.tracking import Store

PASSWORD = "Zq%40pw-17/x"
SPELLINGS = (PASSWORD, "Zq@pw-17/x", "pw-17/x", "Zq%40pw")


@contextmanager
def gateway(server: str, is_forbidden):
    """Another address of a server, which refuses the requests whose path is forbidden."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if is_forbidden(self.path):
                self.answer(403, b"no")
                return
            back = http.client.HTTPConnection(urlsplit(server).netloc)
            names = {"host": urlsplit(server).netloc, "connection": "close"}
            headers = {k: v for k, v in self.headers.items() if k.lower() not in names}
            back.request(self.command, self.path, body, headers)
            found = back.getresponse()
            self.answer(found.status, found.read())

        def answer(self, status, content):
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward

    door = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=door.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{door.server_port}"
    finally:
        door.shutdown()
        door.server_close()


def command(module, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "executor", ["inline", pytest.param("processes", marks=pytest.mark.endure)]
)
def test_a_fault_of_a_store_with_a_password(store_uri, tmp_path, monkeypatch, executor):
    Path("one.yaml").write_text("models: [pt1]\nscale: smoke\nsettings: {epochs: 2}\n")
    study = "entrypoints.study", "--name", "one.yaml", "--executor", executor
    closed = ["/checkpoints/"]
    outputs = []
    with (
        mlflow_server(store_uri, tmp_path) as server,
        gateway(server, lambda path: any(part in path for part in closed)) as door,
    ):
        address = f"http://bob:{PASSWORD.replace('/', '%2F')}@{door}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        code, output = command(*study)
        assert code == 1 and "FAILED" in output and "403" in output, output
        (failed,) = MlflowClient(server).search_runs(
            ["1"], "tags.`worldrep.stage` = 'pretrain' and attributes.status = 'FAILED'"
        )
        assert f"http://{door}/" in failed.data.tags["worldrep.error"]  # without user and password
        outputs += [output, command(*study, "--action", "status")[1]]
        closed.clear()
        code, output = command(*study)
        assert code == 0 and f"store: http://{door}" in output, output
        outputs.append(output)
        outputs.append(command("analysis.report", "--scale", "smoke")[1])
    assert "figures and tables" in outputs[-1]
    (tmp_path / "outputs").write_text("\n".join(outputs))
    spelled = [s.replace("/", "%2F") for s in SPELLINGS] + [*SPELLINGS]
    for path in tmp_path.rglob("*"):
        content = path.read_bytes() if path.is_file() and path.name != "server.log" else b""
        assert not [s for s in spelled if s.encode() in content], path


def test_a_password_that_mlflow_run_recorded_ends_the_command(store_uri, monkeypatch):
    client = MlflowClient()
    run_id = client.create_run("0").info.run_id
    client.log_param(run_id, "storage", "postgresql+psycopg2://bob:secret@host/db")
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with pytest.raises(InputError, match=f"storage= holds a password.*{run_id}") as fault:
        Store.connect()
    assert "secret" not in str(fault.value)


def test_addresses_are_shown_without_what_is_secret():
    for address, shown in {
        "postgresql+psycopg2://me:a/b@c@host:5432/db?password=secret": "postgresql+psycopg2://host:5432/db",
        "http://me:se/cret@host:5000/x": "http://host:5000/x",
        "http://token@host": "http://host",
        "http://host:5000/a@b": "http://host:5000/a@b",
        "sqlite:///runs@home/mlflow.db": "sqlite:///runs@home/mlflow.db",
    }.items():  # fmt: skip
        assert without_user(address) == shown
    found = without_passwords("GET 'https://a:b@h/x?sig=abc&step=3' and http://c:d@i failed")
    assert found == "GET 'https://h/x?sig=***&step=3' and http://i failed"


def test_known_passwords_are_hidden_in_any_form(monkeypatch):
    monkeypatch.setattr(text, "_addresses", set())
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok-12345\n")
    remember("postgresql://bob:S%40LESH@TTED@host/db")
    fault = ValueError("could not find host TTED@host; Bearer tok-12345; S@LESH, and USHTTED")
    assert first_line(fault) == "could not find host ***@host; Bearer ***; ***, and USHTTED"
    assert masked("scale mini") == "scale mini"


def test_a_traceback_has_no_password(tmp_path):
    program = (
        "from worldrep.errors import one_sentence\n"
        "@one_sentence\ndef main(): raise KeyError('http://bob:secret@host/')\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "KeyError: 'http://host/'" in done.stderr and "secret" not in done.stderr.split("\n")[-2]
