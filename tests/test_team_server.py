"""The server of docs/team-server.md: accounts, a study, a backup and its restore."""

import importlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest
import requests
from click.testing import CliRunner
from mlflow import MlflowClient
from servers import postgres, unprivileged_prefix
from sqlalchemy.engine import make_url

from benchmarks.stores import ROOT, free_port, served
from worldrep.tracking import RunSpec, Store

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("team_server")]

SCRIPT = "scripts/team_server.py"
STUDY = "models: [pt1]\nscale: smoke\nsteps: [evaluate]\nsettings: {epochs: 2}\n"
PASSWORDS = {user: secrets.token_hex(8) for user in ("admin", "writer", "reader")}


class Recipe:
    """The script, run by a user who is not root, in a folder of that user's."""

    def __init__(self, folder, database):
        self.folder, self.database, self.port = folder, database, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        (folder / "bin").mkdir()
        self.command = [*unprivileged_prefix(folder), sys.executable, str(ROOT / SCRIPT)]
        self.environment = os.environ | {
            "HOME": str(folder),
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
            "MLFLOW_BACKEND_STORE_URI": database,
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORDS["admin"],
            "WORLDREP_SERVER_DATA": str(folder / "data"),
            "WORLDREP_SERVER_NAME": "tracking.example",
        }

    @contextmanager
    def serving(self):
        command = [*self.command, "serve", "--port", str(self.port)]
        with served(command, self.address, self.folder / "log", self.environment):
            yield

    def run(self, *arguments):
        done = subprocess.run(
            [*self.command, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout

    def empty(self):
        """Lose the database and the artifacts."""
        shutil.rmtree(self.folder / "data")
        url = make_url(self.database).set(drivername="postgresql")
        with psycopg2.connect(url.render_as_string(hide_password=False)) as connection:
            connection.cursor().execute("drop schema public cascade; create schema public")


@pytest.fixture(autouse=True)
def own_umask():
    """The script sets one, also in this process."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture
def recipe():
    # Not below pytest's folders: those are closed to the user that the servers run as.
    database = Path(tempfile.mkdtemp(prefix="worldrep-postgres-"))
    with postgres(database) as uri, tempfile.TemporaryDirectory() as folder:
        yield Recipe(Path(folder), uri)


@pytest.fixture
def log_in(monkeypatch):
    def use(user, password=None):
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password or PASSWORDS[user])

    return use


def run(command):
    """The exit code of a command and all that it prints; no exception leaves it."""
    module, *arguments = command.split()
    main = importlib.import_module(module).main
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    return done.exit_code, done.output


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def everything(client):
    """The tags of the experiment, and all that is logged in its runs, as text: NaN is not NaN."""
    runs = client.search_runs(["1"])
    logged = {run.info.run_id: (run.info.status, run.data.to_dictionary()) for run in runs}
    return str(client.get_experiment("1").tags), {key: str(run) for key, run in logged.items()}


def test_a_study_on_a_server_with_accounts_its_backup_and_restore(
    recipe, log_in, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", recipe.address)
    Path("one.yaml").write_text(STUDY)
    with recipe.serving():
        check_privacy(recipe)
        make_accounts(log_in)
        log_in("writer")
        code, output = run("entrypoints.study --name one.yaml --executor inline")
        assert code == 0 and "study one: done" in output, output
        check_withdrawal()
        check_reading(log_in)
        before = everything(MlflowClient())
        check_backup(recipe)
    recipe.empty()
    code, output = recipe.run("restore", "saved")
    assert code == 0, output
    stored = files(recipe.folder / "data")
    code, output = recipe.run("restore", "saved")
    assert code == 1 and "pg_restore failed" in output and files(recipe.folder / "data") == stored
    with recipe.serving():
        log_in("reader")
        assert everything(MlflowClient()) == before
        assert "2 done" in run("entrypoints.study --name one.yaml --action status")[1]
        (trained,) = Store.connect().find(stage="pretrain")
        assert Store.connect().artifact(trained.id, "model", tmp_path).is_dir()


def check_privacy(recipe):
    """Passwords are in no file that others may read and no list of processes; names are checked."""
    password = make_url(recipe.database).password.encode()
    lists = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert any(b"basic-auth" in line for line in lists)
    assert not any(password in line for line in lists)
    secret = [
        p for p in (recipe.folder / "data").rglob("*") if p.is_file() and p.stat().st_mode & 0o77
    ]
    assert not secret
    assert os.geteuid() or (recipe.folder / "data").stat().st_uid != 0

    def answer(**headers):
        search = f"{recipe.address}/ajax-api/2.0/mlflow/experiments/search"
        options = {"headers": headers, "auth": ("admin", PASSWORDS["admin"])}
        return requests.post(search, json={"max_results": 1}, **options).status_code

    assert answer(Host="tracking.example", Origin="https://tracking.example") == 200
    assert answer(Host="tracking.example", Origin="https://other.example") == 403
    assert answer(Host="other.example") == 403


def make_accounts(log_in):
    from scripts.team_server import main

    def administer(*arguments):
        done = CliRunner().invoke(main, arguments, catch_exceptions=False)
        return done.exit_code, done.output

    log_in("admin")
    for user in ("writer", "reader"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WORLDREP_ACCOUNT_PASSWORD", PASSWORDS[user])
            assert administer("account", user) == (0, "")
            code, output = administer("account", user)
            assert code == 1 and f"User (username={user}) already exists" in output
    for permission in ("MANAGE", "EDIT"):  # the last one is what counts
        assert administer("grant", "writer", permission, "worldrep") == (0, "")
    log_in("reader")
    code, output = administer("grant", "reader", "EDIT", "worldrep")
    assert code == 1 and "must be an administrator's" in output
    if os.geteuid() == 0:
        code, output = administer("serve", "--data", "data")
        assert code == 1 and "must not run as root" in output and not Path("data").exists()


def check_withdrawal():
    """A run that another process began at once is given up with the right to write alone."""
    store = Store.connect()
    made, _ = store._create(RunSpec("analysis", "double", "twice", {}), launched=False)
    store._withdraw(made)
    assert store.find(fingerprint="twice") == [] and store.get(made).status == "KILLED"


def check_reading(log_in):
    """An account that may read sees all, and is told what it lacks when it would write."""
    log_in("reader")
    before = everything(MlflowClient())
    code, output = run("entrypoints.study --name one.yaml --action status")
    assert code == 0 and "2 done" in output
    code, output = run("entrypoints.ask --scale smoke pt1 dist(Tokyo,Lagos) where(Tokyo)")
    assert code == 0 and output.count("c_36") == 4, output
    summary = "analysis.seeds --scale smoke --out out"
    code, output = run(f"{summary} --no-log")
    assert code == 0 and list(Path("out").iterdir()), output
    Path("other.yaml").write_text(STUDY.replace("pt1", "pt1-2"))
    for command in (
        "entrypoints.pretrain --scale smoke pt1-2",
        "entrypoints.study --name other.yaml",
        summary,
    ):
        code, output = run(command)
        refused = [line for line in output.splitlines() if line.startswith("Error: ")]
        assert code == 1 and len(refused) == 1, output
        reason = "the account 'reader' may not write (HTTP 403): ask for EDIT permission"
        assert reason in refused[0] and "answers again" not in refused[0]
    assert everything(MlflowClient()) == before
    log_in("reader", "wrong password")
    code, output = run("entrypoints.study --name one.yaml --action status")
    assert code == 1 and "does not accept the account (HTTP 401)" in output
    log_in("reader")


def check_backup(recipe):
    """A backup has each file that was stored until the database was saved, or later."""
    data, saved = recipe.folder / "data" / "artifacts", recipe.folder / "saved"
    save, program = shutil.which("pg_dump"), recipe.folder / "bin" / "pg_dump"
    program.write_text("#!/bin/sh\nexit 3")
    program.chmod(0o755)
    code, output = recipe.run("backup", saved, "--data", recipe.folder)
    assert code == 2 and "is not the folder of a server" in output and not saved.exists()
    code, output = recipe.run("backup", saved)
    assert code == 1 and "pg_dump failed" in output
    code, output = recipe.run("restore", saved)
    assert code == 2 and "is not a complete backup" in output
    program.write_text(f'#!/bin/sh\n{save} "$@" && touch {data}/later')  # by a run that goes on
    assert recipe.run("backup", saved) == (0, "")
    assert (saved / "artifacts" / "later").exists() and files(saved / "artifacts") == files(data)
    made = {path: path.stat().st_mtime_ns for path in saved.rglob("model.safetensors")}
    assert made and recipe.run("backup", saved) == (0, "")
    assert made == {path: path.stat().st_mtime_ns for path in made}
    assert saved.stat().st_mode & 0o77 == 0
