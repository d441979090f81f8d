"""A store whose every number is known, with the tags and metrics that the stages give."""

import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from worldrep.data.sets import maker_of
from worldrep.data.tasks import TASKS
from worldrep.evaluation.representations import POSITIONS, save_representations
from worldrep.names import TASK_NAMES, ModelName, parse_model
from worldrep.scales import resolve
from worldrep.stages.plan import TrainingPlan
from worldrep.training.checkpoint import folder_name

BASE_ACCURACIES, BASE_ERRORS = (0.2, 0.9), (100.0, 1.0)  # on Atlantis, on ordinary cities


def score(task: str, improvement: float) -> float:
    """The Atlantis value that stands for a normalised improvement above these bases."""
    if TASKS[task].accuracy:
        return 0.2 + 0.7 * improvement
    return 100.0 / 100.0**improvement


class SyntheticStore:
    """Writes trainings and evaluations with the tags and metrics that the stages give them."""

    def __init__(self, uri: str, experiment: str = "worldrep") -> None:
        self.client = MlflowClient(uri)
        self.experiment_id = self.client.create_experiment(experiment)
        self.clock = 1_800_000_000_000
        self.plans: dict[str, TrainingPlan] = {}

    def run(self, stage, model, seed, metrics=None, tags=None, status="FINISHED", **changed):
        """A run of a stage; what is changed of its names and settings becomes tags and params."""
        name = parse_model(model)
        world, scale = changed.pop("world", "standard"), changed.pop("scale", "mini")
        settings = resolve(name, scale=scale, world=world, seed=seed, overrides=changed)
        names = {
            "stage": stage,
            "model": model,
            "tasks": ",".join(name.tasks),
            "seed": seed,
            **{key: getattr(settings, key) for key in ("pretrain", "ft", "width")},
            **{"strategy": name.strategy, "world": world, "scale": scale, **(tags or {})},
        }
        if stage in ("pretrain", "finetune"):
            plan = TrainingPlan.of(settings, self.plans.get(names.get("base_run_id")))
            names["fingerprint"] = plan.fingerprint
        self.clock += 1000
        run = self.client.create_run(
            self.experiment_id,
            self.clock,
            {f"worldrep.{key}": str(value) for key, value in names.items() if value is not None},
            f"{stage} {model} seed{seed}",
        )
        points = [Metric(key, value, self.clock, 1) for key, value in (metrics or {}).items()]
        params = [Param(f"cfg.{key}", str(value)) for key, value in settings.as_dict().items()]
        self.client.log_batch(run.info.run_id, points, params)
        if status != "RUNNING":
            self.client.set_terminated(run.info.run_id, status, self.clock + 500)
        if stage in ("pretrain", "finetune"):
            self.plans[run.info.run_id] = plan
        return run.info.run_id

    def evaluate(self, model, seed, model_run, metrics, base_run=None, tags=None, **changed):
        names = {"model_run_id": model_run, "base_run_id": base_run, "checkpoints": "last"}
        return self.run("evaluate", model, seed, metrics, names | (tags or {}), **changed)

    def base(self, seed=1, evaluated=True, splits=("atlantis", "standard", "multi"), **changed):
        """A base with the values above; its training's run id."""
        model_run = self.run("pretrain", "pt1", seed, **changed)
        if evaluated:
            metrics = {
                f"{split}/{task}/mean": pair[split != "atlantis"]
                for split in splits
                for task in TASK_NAMES
                for pair in (BASE_ACCURACIES if TASKS[task].accuracy else BASE_ERRORS,)
            }
            self.evaluate("pt1", seed, model_run, metrics, **changed)
        return model_run

    def curve(self, run_id, metric, points):
        """Values of a metric by step."""
        found = [Metric(metric, value, self.clock, step) for step, value in points.items()]
        self.client.log_batch(run_id, found)

    def trained(self, model, seed, base_run=None, **changed):
        """A training that keeps its cities, as real ones do; its run id."""
        name = parse_model(model)
        stage = "pretrain" if name.ft == "none" else "finetune"
        world = self.world(**changed)
        tags = {"base_run_id": base_run, "world_digest": world.digest}
        run_id = self.run(stage, model, seed, tags=tags, **changed)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cities.csv"
            world.cities.to_csv(path, index=False)
            self.client.log_artifact(run_id, str(path))
        return run_id

    def world(self, world="standard", scale="mini", **changed):
        """The world of a model of these settings."""
        settings = resolve(parse_model("pt1"), scale=scale, world=world, overrides=changed)
        return maker_of(settings).world

    def extract(self, model, seed, model_run, tables, base_run=None, step=100, **changed):
        """An extraction of these tables, layer -> (n_cities, d) float32 in the world's order."""
        task = parse_model(model).tasks[0]
        tags = {"model_run_id": model_run, "base_run_id": base_run, "checkpoints": "last"}
        run_id = self.run("extract", model, seed, {}, tags, **changed)
        asked = {"layers": tuple(tables), "task": task, "positions": tuple(POSITIONS)}
        params = [Param(f"cfg.extract_{key}", str(value)) for key, value in asked.items()]
        self.client.log_batch(run_id, params=params)
        world = self.world(**changed)
        manifest = asked | {
            "step": step,
            "model": model,
            "model_run_id": model_run,
            "world_digest": world.digest,
            "city_ids": world.cities["city_id"].tolist(),
        }
        with tempfile.TemporaryDirectory() as folder:
            save_representations(Path(folder), tables, manifest)
            place = f"representations/{folder_name(step)}"
            self.client.log_artifacts(run_id, folder, place)
        return run_id

    def tuned(self, ft, base_run, improvements, seed=1, evaluated=True, tags=None, **changed):
        """A fine-tuned model with these normalised improvements (one for all, or by task)."""
        model = str(ModelName("pt1", ft))
        model_run = self.run("finetune", model, seed, tags={"base_run_id": base_run}, **changed)
        if not evaluated:
            return model_run
        return self.evaluate(
            model, seed, model_run, values(improvements), base_run, tags, **changed
        )


def values(improvements) -> dict[str, float]:
    if not isinstance(improvements, dict):
        improvements = dict.fromkeys(TASK_NAMES, improvements)
    return {f"atlantis/{task}/mean": score(task, x) for task, x in improvements.items()}


def part(result, name):
    """A figure of an analysis by its name."""
    return next(part for part in result.parts if part.name == name)
