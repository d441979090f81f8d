"""LoggedModels: what a training makes in MLflow's list of models, and what `models:/` URIs name."""

import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.store.artifact.utils.models import get_model_name_and_version
from mlflow.types import ColSpec, Schema

from worldrep.errors import InputError, shown
from worldrep.tracking.patience import Client

MODEL_ID = "worldrep.model_id"  # tag: the LoggedModel that a run made, or that it measured
MODELS = "models:/"  # what a URI of a model begins with
NO_MODEL = "RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"  # codes of MLflow's faults
CODE = "python_function.py"  # the module that is copied beside the weights of each model
LIBRARIES = ("mlflow", "torch", "transformers", "safetensors", "pandas")  # that it imports
_ENVIRONMENT, _REQUIREMENTS = "python_env.yaml", "requirements.txt"
_EXAMPLE, _SERVED_EXAMPLE = "input_example.json", "serving_input_example.json"


def begin_model(
    client: Client, run_id: str, resumed: bool, facts: Mapping[str, Any]
) -> LoggedModel:
    """Return the LoggedModel of a run, PENDING: a new one, or the one of an earlier process.

    Args:
        client: Of the store.
        run_id: The run, which gets the model as its output.
        resumed: An earlier process may have begun the model.
        facts: `experiment_id`, `name`, `model_type`, `params` and `tags` of a new one.
    """

    def find_or_create(again: bool) -> LoggedModel:
        if resumed or again:  # the answer to an earlier request may be lost
            query = f"source_run_id = '{run_id}' AND name = '{facts['name']}'"
            search = [facts["experiment_id"]]
            if found := client.once("search_logged_models", search, query, max_results=1):
                return found[0]
        return client.once("create_logged_model", source_run_id=run_id, **facts)

    def link(again: bool) -> None:
        outputs = client.once("get_run", run_id).outputs if resumed or again else None
        known = {output.model_id for output in outputs.model_outputs} if outputs else set()
        if model.model_id not in known:
            client.once("log_outputs", run_id, [LoggedModelOutput(model.model_id, 0)])

    model = client.wait(find_or_create, "to begin a model")
    client.wait(link, "to begin a model")
    if model.status != LoggedModelStatus.PENDING:
        client.finalize_logged_model(model.model_id, LoggedModelStatus.PENDING)
    return model


def end_model(client: Client, run: Run, finished: bool) -> None:
    """Set the status of the model that a run made, if it made one."""
    made = run.outputs.model_outputs if run.outputs else []
    model_id = run.data.tags.get(MODEL_ID)
    if model_id not in {output.model_id for output in made}:
        return
    # A model that a user has deleted is no obstacle to a run that ends without it.
    with nullcontext() if finished else suppress(MlflowException):
        client.finalize_logged_model(model_id, "READY" if finished else "FAILED")


def run_of_model(client: Client, uri: str) -> str:
    """Return the id of the run that made a model.

    uri: `models:/ID`, `models:/NAME/VERSION`, `models:/NAME/latest` or `models:/NAME@ALIAS`.
    Raises InputError if there is no such model, or no run made it.
    """

    def attempt(_: bool) -> str | None:
        model_id, run_id = None, None
        *name, number = client.once_with(get_model_name_and_version, uri)
        if name:
            found = client.once("get_model_version", name[0], number)
            model_id, run_id = found.model_id, found.run_id
        else:
            model_id = number
        return client.once("get_logged_model", model_id).source_run_id if model_id else run_id

    try:
        run_id = client.wait(attempt, "to look for a model")
    except MlflowException as fault:
        named = str(fault).startswith(("Not a proper", "No versions"))  # without a code of its own
        if fault.error_code not in NO_MODEL and not named:
            raise
        raise InputError(
            f"{shown(uri)} names no model of the store at {client.address}; write models:/ID, "
            "models:/NAME/VERSION or models:/NAME@ALIAS"
        ) from None
    if not run_id:
        raise InputError(f"{shown(uri)} was made by no run; name a model that a training here made")
    return run_id


def write_python_function(
    folder: Path, model_id: str, example: Sequence[str], config: Mapping[str, Any]
) -> None:
    """Make a folder with weights and tokenizer a `python_function` model, from code.

    MLflow's own function for it takes a second, most of it to look at all installed packages.

    Args:
        folder: Of the weights, which the code beside them loads.
        model_id: Of the LoggedModel that the folder becomes.
        example: Questions.
        config: What the code needs to know (see `python_function`).
    """
    shutil.copyfile(Path(__file__).with_name(CODE), folder / CODE)
    requirements = [f"{name}=={version(name).partition('+')[0]}" for name in LIBRARIES]
    (folder / _REQUIREMENTS).write_text("\n".join(requirements) + "\n", encoding="utf-8")
    python = platform.python_version()
    environment = {"python": python, "dependencies": [f"-r {_REQUIREMENTS}"]}
    (folder / _ENVIRONMENT).write_text(yaml.safe_dump(environment), encoding="utf-8")
    (folder / _EXAMPLE).write_text(json.dumps(list(example)), encoding="utf-8")
    (folder / _SERVED_EXAMPLE).write_text(json.dumps({"inputs": list(example)}), encoding="utf-8")
    texts = Schema([ColSpec("string")])
    saved = {
        "type": "json_object",
        "artifact_path": _EXAMPLE,
        "serving_input_path": _SERVED_EXAMPLE,
    }
    model = Model(
        model_id=model_id,
        signature=ModelSignature(texts, texts),
        saved_input_example_info=saved,
    )
    model.add_flavor(
        "python_function",
        loader_module="mlflow.pyfunc.model",
        model_code_path=CODE,
        config=dict(config),
        env={"virtualenv": _ENVIRONMENT},
        python_version=python,
    )
    model.save(str(folder / "MLmodel"))
