"""What MLflow's UI shows of an experiment before a run is opened: a description and a saved view.

The UI of MLflow 3.17 opens each experiment in its view of agents, whatever the experiment's kind
is, unless the address says `workflowType=machine_learning`.
"""

import base64
import json
import time
import zlib
from urllib.parse import quote, urlencode

from mlflow.entities import Experiment

from worldrep.names import TASK_NAMES
from worldrep.progress import NOTE
from worldrep.tracking.patience import Client

KIND = "mlflow.experimentKind"
TRAINING_VIEW = {"workflowType": "machine_learning"}  # part of an address
VIEW = "mlflow.sharedViewState."  # begins the tags of saved views
VIEW_NAME = "seeds"
COLUMNS = ("trained", "transfer", "retention", *TASK_NAMES)  # metrics of summaries
SUMMARIES = "tags.`worldrep.stage` = 'summary'"

LISTS = {  # what a reader asks for -> the filter that lists it
    "evaluations, one for each model and seed": "tags.`worldrep.stage` = 'evaluate'",
    "fine-tunings": "tags.`worldrep.stage` = 'finetune'",
    "studies": "tags.`worldrep.stage` = 'study'",
    "what failed": "attributes.status = 'FAILED'",
}
_EXPLANATION = """\
Small transformers that learn a map of real cities, and then of an invented region, Atlantis.
Each run has a stage, the tag `worldrep.stage`. `pretrain` and `finetune` train a model. `evaluate`
asks it questions about each task, `extract` stores its hidden states and maps. `summary` has the
means of one model over its seeds: `trained`, `transfer`, `retention`, and the score of each task on
Atlantis. `study` plans and counts the others, `analysis` has figures and tables.
"""


def runs_page(experiment_id: str, **query: str) -> str:
    """Return the address of the experiment's runs, after that of the server."""
    return f"#/experiments/{experiment_id}/runs?{urlencode(TRAINING_VIEW | query, quote_via=quote)}"


def run_page(experiment_id: str, run_id: str) -> str:
    """Return the address of a run, after that of the server."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?{urlencode(TRAINING_VIEW)}"


def describe(client: Client, experiment: Experiment) -> None:
    """Give an experiment its kind, description and saved view, unless it has some already."""
    own = experiment.experiment_id
    view = runs_page(own, viewStateShareKey=VIEW_NAME)
    lines = [f"- [compare models over their seeds]({view}): {SUMMARIES}"]
    for name, query in LISTS.items():
        lines.append(f"- [{name}]({runs_page(own, searchFilter=query)}): {query}")
    wanted = {
        NOTE: "\n".join([_EXPLANATION, *lines]),
        VIEW + VIEW_NAME: _view("Models over seeds", SUMMARIES, COLUMNS),
        KIND: "custom_model_development",
    }
    for key, value in wanted.items():
        if key not in experiment.tags:
            client.set_experiment_tag(own, key, value)


def _view(name: str, query: str, metrics: tuple[str, ...]) -> str:
    """Return a saved view as the UI stores it: a list of runs with metrics as its columns."""
    columns = [f"metrics.`{metric}`" for metric in metrics]
    state = {
        "searchFilter": query,
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "selectedColumns": columns,
        "columnOrder": columns,
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    now = int(time.time() * 1000)
    return json.dumps(
        {"name": name, "createdAt": now, "updatedAt": now, "state": f"deflate;{packed}"}
    )
