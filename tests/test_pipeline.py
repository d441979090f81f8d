"""From an empty store to results, through `mlflow run` and the commands."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from drivers import run
from mlflow import MlflowClient
from mlflow.projects.utils import load_project

from entrypoints import evaluate, extract, finetune, main, pretrain, study, sweep
from worldrep.data.sets import _maker
from worldrep.evaluation.representations import load_representations
from worldrep.model.qwen2 import load_model
from worldrep.names import TASK_NAMES, ModelName, parse_model
from worldrep.scales import resolve
from worldrep.stages.plan import TrainingPlan
from worldrep.stages.train import train_model
from worldrep.tracking import Store

ROOT = Path(__file__).parents[1]
SMOKE = ["--scale", "smoke"]


def runs(**tags):
    return Store.connect().find(**tags)


def test_a_finetuning_trains_its_base_first_and_each_only_once(store_uri):
    first = run(finetune, "--ft", "ftwb1-3", *SMOKE)
    assert "the base pt1 seed 42 (scale smoke, world standard) is not in the store" in first
    assert "it is trained first, in a run of its own" in first
    assert "already done" in run(finetune, "--ft", "ftwb1-3", *SMOKE)
    (base,), (tuned,) = runs(stage="pretrain"), runs(stage="finetune")
    assert (base.name, tuned.name) == ("pt1 s42 pretrain", "ftwb1-3 s42 finetune")
    assert tuned.tags["worldrep.base_run_id"] == base.id
    second = run(finetune, "--ft", "ftwb1-4", *SMOKE)
    assert "not in the store" not in second and len(runs(stage="pretrain")) == 1


def interrupt(progress):
    """A progress callback that stops the training in its second half."""
    if progress.done > progress.total / 2:
        raise KeyboardInterrupt


@pytest.mark.parametrize("damaged", [0, 1])
def test_a_resumed_training_downloads_each_checkpoint_once(
    store_uri, tmp_path, monkeypatch, damaged
):
    settings = resolve(ModelName("pt1"), scale="smoke", overrides={"n_checkpoints": 8})
    store = Store.connect()
    with pytest.raises(KeyboardInterrupt):
        train_model(store, settings, progress=interrupt)
    (killed,) = runs(stage="pretrain")
    steps = store.checkpoint_steps(killed.id)
    assert killed.status == "KILLED" and len(steps) > 2
    for step in steps[len(steps) - damaged :]:
        (state,) = tmp_path.glob(f"mlruns/*/*/artifacts/checkpoints/step-{step}/training_state*")
        state.write_bytes(state.read_bytes()[:-1])
    downloads = []
    artifact = Store.artifact
    monkeypatch.setattr(
        Store, "artifact", lambda *given: downloads.append(given[2]) or artifact(*given)
    )
    assert train_model(store, settings) == killed.id
    newest_first = [f"checkpoints/step-{step}" for step in reversed(steps)]
    assert downloads == newest_first[: 1 + damaged]


def test_a_plan_tells_models_from_one_another_and_not_from_their_other_seeds():
    def plan(seed, name="pt1_ftwb1-3", **overrides):
        settings = resolve(parse_model(name), scale="smoke", seed=seed, overrides=overrides)
        return TrainingPlan.of(settings)

    one, other, longer = plan(1), plan(2), plan(1, epochs=3)
    assert one.configuration == other.configuration != longer.configuration
    assert len({one.fingerprint, other.fingerprint, longer.fingerprint}) == 3
    assert one.base.fingerprint == plan(1, "pt1").fingerprint == longer.base.fingerprint
    assert TrainingPlan.of(one.settings, other.base).fingerprint != one.fingerprint
    assert longer.steps == one.steps * 3 // one.settings.epochs


def test_every_run_has_the_tags_params_and_artifacts_of_the_contract(store_uri):
    run(finetune, "--ft", "ftwb2-13", *SMOKE)
    run(evaluate, "--model", "pt1_ftwb2-13", *SMOKE)
    run(extract, "--model", "pt1_ftwb2-13", *SMOKE)
    store = Store.connect()
    (model,) = runs(stage="finetune")
    names = "stage model pretrain ft tasks width world scale seed fingerprint".split()  # noqa: SIM905
    for stage in ("pretrain", "finetune", "evaluate", "extract"):
        (found,) = runs(stage=stage)
        assert all(f"worldrep.{name}" in found.tags for name in names), stage
        assert store.client.get_run(found.id).data.params["cfg.hidden_size"] == "16"
        assert store.client.get_run(found.id).inputs.dataset_inputs, stage
        if stage in ("evaluate", "extract"):
            assert found.tags["worldrep.model_run_id"] == model.id
    assert model.tags["worldrep.tasks"] == "distance,perimeter"
    assert runs(stage="pretrain")[0].tags["worldrep.ft"] == "none"
    metrics = store.client.get_run(model.id).data.metrics
    for key in ("train/loss", "train/lr", "train/grad_norm", "train/tokens_per_second"):
        assert key in metrics
    assert "val/atlantis/distance/mean" in metrics
    with store.download(model.id, "settings.json") as path:
        assert json.loads(path.read_text())["ft"] == "ftwb2-13"
    with store.download(model.id, "model") as folder:
        assert load_model(folder).config.hidden_size == 16
        from transformers import AutoTokenizer

        assert AutoTokenizer.from_pretrained(folder)("a=")["input_ids"][0] == 2
    assert len(store.checkpoint_steps(model.id)) == 3


def test_the_plain_pass_does_all_of_a_models_work_when_asked_for(store_uri, monkeypatch):
    run(pretrain, *SMOKE)
    for module in ("training.state", "evaluation.suites", "model.packed"):
        monkeypatch.setattr(f"worldrep.{module}.PackedQwen2", None)  # not to be used
    plain = "--compute", "plain", *SMOKE
    run(finetune, "--ft", "ftwb1-3", *plain)
    run(evaluate, "--model", "pt1_ftwb1-3", *plain)
    run(extract, "--model", "pt1_ftwb1-3", *plain)
    packed, base = (found for found in reversed(runs(stage="pretrain")))
    assert (packed.params["cfg.compute"], base.params["cfg.compute"]) == ("auto", "plain")
    losses = [found.metrics["train/loss"] for found in (packed, base)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_an_evaluation_holds_all_suites_and_is_done_once(store_uri):
    run(pretrain, *SMOKE)
    run(evaluate, "--model", "pt1", *SMOKE)
    assert "already done" in run(evaluate, "--model", "pt1", *SMOKE)
    (found,) = runs(stage="evaluate")
    metrics = Store.connect().client.get_run(found.id).data.metrics
    assert len(metrics) == 3 * 7 * 7 and metrics["standard/angle/n"] == 16


def test_checkpoints_are_evaluated_by_step_and_answers_kept_on_request(store_uri):
    run(pretrain, *SMOKE)
    (model,) = runs(stage="pretrain")
    output = run(evaluate, "--run_id", model.id, "--checkpoints", "all", "--answers", "true")
    assert "done" in output
    (found,) = runs(stage="evaluate")
    store = Store.connect()
    steps = [m.step for m in store.client.get_metric_history(found.id, "standard/angle/mean")]
    assert steps == store.checkpoint_steps(model.id)
    with store.download(found.id, "answers.parquet") as path:
        table = pd.read_parquet(path)
    assert len(table) == len(steps) * (14 * 16 + 32)
    assert {"prompt", "expected", "generated", "score", "step"} <= set(table)
    bad = run(evaluate, "--run_id", model.id, "--checkpoints", "5", code=2)
    assert "checkpoint '5' was not kept" in bad


def test_an_extraction_stores_every_city_of_the_layers_asked_for(store_uri):
    run(pretrain, *SMOKE)
    run(extract, "--model", "pt1", "--layers", "0,2", "--task", "inside", *SMOKE)
    (found,) = runs(stage="extract")
    store = Store.connect()
    (step,) = [e.path for e in store.client.list_artifacts(found.id, "representations")]
    with store.download(found.id, step) as folder:
        tables, manifest = load_representations(folder)
    assert sorted(tables) == [0, 2] and tables[2].shape == (28, 32)
    assert len(manifest["city_ids"]) == 28 and manifest["task"] == "inside"
    maps = [e.path for e in store.client.list_artifacts(found.id, "maps")]
    assert len(maps) == 2
    assert "probe/layer-2/atlantis" in store.client.get_run(found.id).data.metrics
    assert "layer '7'" in run(extract, "--model", "pt1", "--layers", "7", *SMOKE, code=2)


def test_a_base_can_be_named_and_must_fit(store_uri):
    run(pretrain, *SMOKE)
    (base,) = runs(stage="pretrain")
    run(finetune, "--ft", "ft1-1", "--base_run", base.id, *SMOKE)
    (tuned,) = runs(stage="finetune")
    assert tuned.tags["worldrep.base_run_id"] == base.id
    message = run(finetune, "--ft", "ft1-2", "--base_run", base.id, *SMOKE, "--seed", "1", code=2)
    assert "has seed=42, the fine-tuning seed=1" in message
    message = run(finetune, "--ft", "ft1-2", "--base_run", tuned.id, *SMOKE, code=2)
    assert "not a finished pretrain run" in message
    message = run(evaluate, "--run_id", "0" * 32, code=2)
    assert "is not in the store" in message
    assert len(runs(stage="finetune")) == 1


def test_only_a_finished_training_can_be_evaluated(store_uri):
    run(pretrain, *SMOKE)
    run(evaluate, "--model", "pt1", *SMOKE)
    (evaluation,) = runs(stage="evaluate")
    message = run(evaluate, "--run_id", evaluation.id, code=2)
    assert "is a run of stage evaluate (FINISHED)" in message
    Store.connect().client.update_run(runs(stage="pretrain")[0].id, status="FAILED")
    message = run(evaluate, "--run_id", runs(stage="pretrain")[0].id, code=2)
    assert "stage pretrain (FAILED)" in message


def test_a_truncated_model_file_is_one_sentence(store_uri, tmp_path):
    run(pretrain, *SMOKE)
    (weights,) = tmp_path.glob("mlruns/*/*/artifacts/model/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-10])
    message = run(evaluate, "--model", "pt1", *SMOKE, code=1)
    (base,) = runs(stage="pretrain")
    assert f"run {base.id}: artifact model/model.safetensors is damaged: it has" in message
    assert f"mlflow runs delete --run-id {base.id}" in message and message.count("\n") == 1
    assert [found.status for found in runs(stage="evaluate")] == ["FAILED"]


def test_a_study_starts_from_its_own_base(store_uri):
    Path("two.yaml").write_text("models: [pt1, pt1_ftwb1-1]")
    two = ["--study", "two.yaml", *SMOKE]
    run(main, *two, "--epochs", "1")
    (base,), (tuned,) = runs(stage="pretrain"), runs(stage="finetune")
    assert tuned.tags["worldrep.base_run_id"] == base.id
    # These evaluations are newer, but not those of the study with one epoch.
    run(study, "--name", "two.yaml", *SMOKE)
    Path("figures/exp1_heatmaps/values.csv").unlink()
    again = run(main, *two, "--epochs", "1")
    values = pd.read_csv("figures/exp1_heatmaps/values.csv")
    models = [r.tags["worldrep.model_run_id"] for r in runs() if r.id in set(values["run_id"])]
    assert models == [tuned.id]
    assert "6 of 6 steps are done already" in again and len(runs(stage="study")) == 2
    check_ending(again, values, runs(stage="study")[-1])
    assert "cannot write to out=" in run(main, *two, "--out", "/dev/null/x", code=2)
    assert runs(stage="study")[0].status == "FINISHED"


def check_ending(output, values, study_run):
    """The demo ends with a table, the main picture, the report and the UI, each once."""
    table, _, ending = output.partition("transfer: on other tasks)\n")[2].partition("figure: ")
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()[2:]}
    assert list(rows) == [*TASK_NAMES, "all"]
    (trained,) = values[(values["model"] == "pt1_ftwb1-1") & values["trained"]]["normalised"]
    assert rows["distance"] == [f"{trained:.2f}", "-"]  # columns: trained, transfer
    others = values[(values["model"] == "pt1_ftwb1-1") & ~values["trained"]]["normalised"]
    assert rows["all"] == ["seven", f"{trained:.2f}", f"{others.mean():.2f}"]
    figure, report, _, took, ui = ending.splitlines()
    assert Path(figure).stat().st_size > 10_000 and figure.endswith("ftwb1_seed42.png")
    assert Path(report.removeprefix("report: ")).read_text().lstrip().startswith("<!doctype")
    assert took.startswith("study two: its 6 steps took ")
    assert f"/runs/{study_run.id}?workflowType=" in ui and "mlflow server, then open" in ui
    for word in ("figure: ", "report: ", "mlflow server"):
        assert output.count(word) == 1


def test_a_model_is_evaluated_on_its_own_cities_whatever_became_of_the_csv(store_uri, tmp_path):
    rows = [f"City {i},{(617 * i) % 3600 - 1800},{(371 * i) % 1800 - 900}" for i in range(18)]
    (tmp_path / "mine.csv").write_text("\n".join(["name,x,y", *rows]))
    run(pretrain, *SMOKE, "--cities", "mine.csv")
    (model,) = runs(stage="pretrain")
    (tmp_path / "mine.csv").write_text("\n".join(["name,x,y", *rows[1:]]))
    _maker.cache_clear()
    assert "done" in run(evaluate, "--run_id", model.id)
    (tmp_path / "mine.csv").unlink()
    assert "done" in run(extract, "--run_id", model.id)
    (extraction,) = runs(stage="extract")
    store = Store.connect()
    with store.download(extraction.id, "representations") as folder:
        (step,) = folder.iterdir()
        _, manifest = load_representations(step)
    with store.download(model.id, "cities.csv") as path:
        cities = pd.read_csv(path, dtype={"city_id": str})
    assert manifest["city_ids"] == cities["city_id"].tolist()
    assert manifest["world_digest"] == model.tags["worldrep.world_digest"]


def test_a_run_id_does_not_go_with_overrides(store_uri):
    message = run(evaluate, "--run_id", "abc", "--test_rows", "5", code=2)
    assert "leave out test_rows" in message


def test_the_command_offered_for_a_missing_model_trains_that_model(store_uri):
    message = run(evaluate, "--model", "pt1", *SMOKE, "--epochs", "1", code=1)
    assert "-P epochs=1" in message and "-P scale=smoke" in message


def test_an_own_csv_of_cities_is_the_world(store_uri, tmp_path):
    rows = [f"City {i},{(617 * i) % 3600 - 1800},{(371 * i) % 1800 - 900}" for i in range(18)]
    (tmp_path / "mine.csv").write_text("\n".join(["name,x,y", *rows]))
    run(pretrain, *SMOKE, "--cities", "mine.csv")
    run(pretrain, *SMOKE)
    assert len(runs(stage="pretrain")) == 2


@pytest.fixture
def clone(tmp_path):
    """A copy of the project's files, as a fresh clone has them."""
    folder = tmp_path / "clone"
    kept = ("src", "entrypoints", "analysis", "MLproject", "conda.yaml")
    folder.mkdir()
    for name in kept:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    return folder


def mlflow_run(clone, entry, *parameters, code=0):
    command = [Path(sys.executable).with_name("mlflow"), "run", ".", "-e", entry]
    command += ["--env-manager", "local", "-P", "scale=smoke"]
    for parameter in parameters:
        command += ["-P", parameter]
    result = subprocess.run(command, cwd=clone, capture_output=True, text=True)
    assert result.returncode == code, result.stderr
    return result.stdout + result.stderr


def test_the_commands_of_mlproject_run(store_uri):
    """The commands that `mlflow run` makes of parameters, without the processes that it starts."""

    def done(entry, command, **parameters):
        point = load_project(ROOT).get_entry_point(entry)
        line = point.compute_command({"scale": "smoke", **parameters}, None)
        _, _, module, *arguments = shlex.split(line)
        assert module == command.__name__
        return run(command, *arguments)

    done("pretrain", pretrain, epochs="1")
    done("finetune", finetune, ft="ftwb1-3")
    done("evaluate", evaluate, model="pt1_ftwb1-3")
    done("extract", extract, model="pt1_ftwb1-3", layers="all")
    assert "best: trial 0" in done("sweep", sweep, ft="ftwb1-3", n_trials="1")
    stages = {found.tags.get("worldrep.stage"): found.status for found in runs()}
    known = ("pretrain", "finetune", "evaluate", "extract", "sweep")
    assert stages == dict.fromkeys(known, "FINISHED")
    assert len(runs(stage="pretrain")) == 2  # with one epoch, and as the base


def test_a_training_that_fails_leaves_a_failed_run_and_one_sentence(store_uri):
    message = run(pretrain, *SMOKE, "--learning_rate", "1e30", code=1)
    assert "the loss is" in message and "Traceback" not in message
    (failed,) = runs(stage="pretrain")
    assert failed.status == "FAILED" and "at step" in failed.tags["worldrep.error"]


@pytest.mark.slow
def test_mlflow_run_draws_figures_and_refuses_a_wrong_name(store_uri, clone, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    (clone / "few.yaml").write_text("models: [pt1, pt1_ftwb1-1..7]")
    mlflow_run(clone, "main", "study=few.yaml")
    figures = clone / "figures" / "exp1_heatmaps"
    assert (clone / "figures" / "report" / "report.html").stat().st_size > 10_000
    assert (figures / "ftwb1_seed42.png").stat().st_size > 10_000
    (parent,) = runs(stage="study")
    assert parent.status == "FINISHED"
    children = [r for r in runs() if r.tags.get("mlflow.parentRunId") == parent.id]
    assert len(children) == 3 * 8 + 2  # steps, and the analyses
    assert len(runs(stage="analysis")) == 2
    mlflow_run(clone, "finetune", "ft=ftwb2-1")
    (tuned,) = runs(stage="finetune", ft="ftwb2-1")
    assert tuned.status == "FINISHED"
    message = mlflow_run(clone, "finetune", "ft=ftwb1-9", code=1)
    assert "Error: unknown ft 'ftwb1-9'" in message and "Traceback" not in message
    client = MlflowClient()
    everything = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert "RUNNING" not in {found.info.status for found in everything}
