"""An MLflow server for a team: PostgreSQL, accounts, backups. How to: docs/team-server.md."""

import configparser
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
from sqlalchemy.engine import make_url

from worldrep.errors import InputError, StateError, first_line, one_sentence
from worldrep.text import without_user

PERMISSIONS = ("READ", "EDIT", "MANAGE")
AUTHORIZATION = "mlflow.server.auth:authenticate_request_basic_auth"

data_option = click.option(
    "--data",
    envvar="WORLDREP_SERVER_DATA",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the server, for artifacts and its settings (or WORLDREP_SERVER_DATA).",
)
backup_argument = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))


@click.group()
def main() -> None:
    """Serve a team, give accounts permissions, back everything up and restore it.

    The database is that of MLFLOW_BACKEND_STORE_URI: postgresql+psycopg2://USER:PASSWORD@HOST/NAME.
    """
    os.umask(0o077)  # files have passwords, or hashes of them


@main.command()
@data_option
@click.option("--name", envvar="WORLDREP_SERVER_NAME", help="Host name that clients use.")
@click.option("--port", default=5000, show_default=True, help="Where it listens, on 127.0.0.1.")
@click.option(
    "--default-permission",
    default="READ",
    show_default=True,
    type=click.Choice(["NO_PERMISSIONS", *PERMISSIONS]),
    help="What an account may do with an experiment that it was granted nothing on.",
)
@one_sentence
def serve(data: Path, name: str | None, port: int, default_permission: str) -> None:
    """Start the server, as an unprivileged user.

    The first start makes the account `admin`, with the password MLFLOW_AUTH_ADMIN_PASSWORD.
    """
    if os.geteuid() == 0:
        raise StateError("the server must not run as root: start it as a user of its own")
    (data / "artifacts").mkdir(parents=True, exist_ok=True)
    settings = data / "basic_auth.ini"
    write_settings(settings, default_permission)
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"]
    command += ["--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--artifacts-destination", str(data.resolve() / "artifacts")]
    if name:
        hosts = (name, "localhost", "127.0.0.1")
        command += ["--allowed-hosts", ",".join(f"{host},{host}:*" for host in hosts)]
        command += ["--cors-allowed-origins", f"https://{name},https://{name}:*"]
    environment = os.environ | {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings.resolve()),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # half of the time to start, most memory
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    os.execve(sys.executable, command, environment)


def write_settings(path: Path, default_permission: str) -> None:
    """Write MLflow's settings of accounts, which are in the same database as the runs."""
    parser = configparser.ConfigParser()
    parser["mlflow"] = {
        "default_permission": default_permission,
        "database_uri": database().replace("%", "%%"),
        "admin_username": "admin",
        "authorization_function": AUTHORIZATION,
        "auth_cache_ttl_seconds": "60",  # else each request takes 0.2 s to check the password
    }
    with path.open("w", encoding="utf-8") as file:
        parser.write(file)


def database() -> str:
    """Return the address of the database. Raises InputError if it is not PostgreSQL's."""
    address = os.environ.get("MLFLOW_BACKEND_STORE_URI", "")
    if not address.startswith("postgresql+psycopg2://"):
        raise InputError(
            "MLFLOW_BACKEND_STORE_URI must be postgresql+psycopg2://USER:PASSWORD@HOST/NAME"
        )
    return address


@main.command()
@click.argument("user")
@click.option(
    "--password",
    envvar="WORLDREP_ACCOUNT_PASSWORD",
    prompt=True,
    hide_input=True,
    confirmation_prompt=True,
    help="At least 12 characters; asked for, unless WORLDREP_ACCOUNT_PASSWORD is set.",
)
@one_sentence
def account(user: str, password: str) -> None:
    """Make an account, as the administrator."""
    with administrator() as (_, accounts):
        accounts.create_user(user, password)


@main.command()
@click.argument("user")
@click.argument("permission", type=click.Choice(PERMISSIONS))
@click.argument("experiment")
@one_sentence
def grant(user: str, permission: str, experiment: str) -> None:
    """Let an account READ, EDIT or MANAGE an experiment, which is made if it is missing."""
    from mlflow.exceptions import MlflowException

    with administrator() as (client, accounts):
        found = client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else client.create_experiment(experiment)
        with suppress(MlflowException):  # there may be none yet
            accounts.revoke_user_permission(user, "experiment", number)
        accounts.grant_user_permission(user, "experiment", number, permission)


@contextmanager
def administrator() -> Iterator[tuple[Any, Any]]:
    """Yield MLflow's clients of the server for runs and for accounts."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.server import get_app_client

    address = os.environ.get("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    try:
        yield MlflowClient(address), get_app_client("basic-auth", tracking_uri=address)
    except MlflowException as fault:
        text = f"the server at {without_user(address)} did not do it: {first_line(fault)}"
        if re.search("error code 40[13]", text):
            text += "; MLFLOW_TRACKING_USERNAME and ..._PASSWORD must be an administrator's"
        raise StateError(text) from None


@main.command()
@data_option
@backup_argument
@one_sentence
def backup(data: Path, folder: Path) -> None:
    """Save database and artifacts in a folder, or bring the backup that is there up to date.

    The server goes on. The database is saved first: files of a run are stored before it is
    FINISHED, so those of each run that is finished in the saved database are there to be copied.
    """
    if not (data / "artifacts").is_dir():
        raise InputError(f"{data} is not the folder of a server: it has no folder named artifacts")
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / "database.new"
    postgres("pg_dump", "--format=custom", f"--file={new}")
    copy(data / "artifacts", folder / "artifacts")
    new.replace(folder / "database")


@main.command()
@data_option
@backup_argument
@one_sentence
def restore(data: Path, folder: Path) -> None:
    """Restore a backup into an empty database and a folder, before the server is started."""
    if not (folder / "database").is_file():
        raise InputError(f"{folder} is not a complete backup: it has no file named database")
    copy(folder / "artifacts", data / "artifacts")
    arguments = ["--no-owner", "--single-transaction", f"--dbname={make_url(database()).database}"]
    postgres("pg_restore", *arguments, str(folder / "database"))


def postgres(program: str, *arguments: str) -> None:
    """Run a program of PostgreSQL on the database; its arguments name no password."""
    url = make_url(database())
    found: dict[str, object] = {"host": url.host, "port": url.port, "user": url.username}
    found |= {"password": url.password, "database": url.database, **url.query}
    variables = {f"PG{key.upper()}": str(value) for key, value in found.items() if value}
    try:
        done = subprocess.run([program, *arguments], env=os.environ | variables)
    except FileNotFoundError:
        raise StateError(f"{program} is missing: install PostgreSQL's client programs") from None
    if done.returncode:
        raise StateError(f"{program} failed, see above; the database is as it was before")


def copy(source: Path, target: Path) -> None:
    """Copy the files of a folder that are not in another one yet, whole or not at all."""
    for place, _, names in os.walk(source):
        folder = target / Path(place).relative_to(source)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            copy_file(Path(place, name), folder / name)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, unless it is there with the same size and time, or was deleted meanwhile."""
    with suppress(FileNotFoundError):
        if not target.exists() or not is_same(source.stat(), target.stat()):
            new = target.with_name(f"{target.name}.new")
            shutil.copy2(source, new)
            new.replace(target)


def is_same(one: os.stat_result, other: os.stat_result) -> bool:
    """Return whether two files have the same size and time."""
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


if __name__ == "__main__":
    main()
