"""Store, download and delete the files of a run, with errors that name what is wrong."""

import os
import shutil
from functools import cached_property
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from worldrep.disk import writing_to
from worldrep.errors import StateError
from worldrep.tracking.logged_models import MODEL_ID, NO_MODEL
from worldrep.tracking.patience import Client, own_errors, waiting_helps
from worldrep.training.checkpoint import STATE, folder_name, step_of

CHECKPOINTS = "checkpoints"  # artifact folder
MODEL = "model"  # artifact folder of a training: the files of its LoggedModel
_FAULTS = (OSError, MlflowException)


class Artifacts:
    """The artifacts of a run.

    The files of a model are stored with the run's LoggedModel. If that is on this machine, the
    run's own folder MODEL has them too, as hard links.

    MLflow's client says of every failed download that the path is wrong, so this asks the
    repository below it. Only `get` waits for an absent store.
    """

    def __init__(self, client: Client, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._model: ArtifactRepository | None = None
        self._has_links = True

    @cached_property
    def _own(self) -> ArtifactRepository:
        return self._at(self._client.once("get_run", self._run_id).info.artifact_uri)

    def _at(self, uri: str) -> ArtifactRepository:
        return get_artifact_repository(uri, tracking_uri=self._client.uri)

    def _place_of(self, path: str | None) -> tuple[ArtifactRepository, str]:
        """Return where an artifact is stored, and its path there: a model is its LoggedModel's.

        Raises StateError if that was deleted.
        """
        first, _, rest = (path or "").partition("/")
        if first == MODEL and self._model is None:
            model_id = self._client.once("get_run", self._run_id).data.tags.get(MODEL_ID)
            self._model = self._of_model(model_id) if model_id else None
        if first == MODEL and self._model:
            return self._model, rest
        return self._own, path or ""  # also the model of an earlier version

    def _place_to_read(self, path: str) -> tuple[ArtifactRepository, str]:
        own = _folder_of(self._own)
        is_linked = own is not None and os.path.isdir(own / MODEL)
        return (self._own, path) if is_linked else self._place_of(path)

    def _of_model(self, model_id: str) -> ArtifactRepository:
        try:
            return self._at(self._client.once("get_logged_model", model_id).artifact_location)
        except MlflowException as fault:
            if fault.error_code not in NO_MODEL:
                raise
            raise StateError(
                f"the model {model_id} of run {self._run_id} was deleted; after `mlflow runs "
                f"delete --run-id {self._run_id}` the command of that run makes it anew"
            ) from None

    def put(self, path: Path, folder: str | None = None) -> None:
        """Store a file. Raises FullError if there is no space for it."""
        repository, inside = self._place_of(folder)
        local = _folder_of(repository)
        place = "the artifact store" + ("" if local else f" {repository.artifact_uri}")
        with writing_to(place, local, path.stat().st_size, _FAULTS), own_errors():
            repository.log_artifact(str(path), inside or None)
        if local and repository is not self._own and self._has_links:
            self._link(local / path.name)

    def _link(self, path: Path) -> None:
        """Let the run's own folder have a file of its model too, if the file system has links."""
        if own := _folder_of(self._own):
            folder = own / MODEL
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / path.name).unlink(missing_ok=True)
                os.link(path, folder / path.name)
            except OSError:
                self._has_links = False  # a folder with a part of the files would be read
                shutil.rmtree(folder, ignore_errors=True)

    def get(self, path: str, folder: Path) -> Path:
        """Download a file or folder into `folder` and return its path.

        Raises StateError if it is absent or cannot be read, FullError if there is no space for it.
        """
        purpose = f"to download {path} of run {self._run_id}"
        repository, inside = self._client.wait(lambda _: self._place_to_read(path), purpose)
        target = folder if repository is self._own else folder / MODEL

        def attempt(_: bool) -> Path:
            target.mkdir(exist_ok=True)
            with own_errors("READ"):
                return Path(repository.download_artifacts(inside, str(target)))

        try:
            with writing_to("the temporary folder (TMPDIR)", folder, faults=_FAULTS):
                return self._client.wait(attempt, purpose)
        except _FAULTS as fault:
            if obstacle := _obstacle_to(_folder_of(repository), inside, fault):
                text = f"the artifact {path} of run {self._run_id} cannot be read: {obstacle}"
                raise StateError(text) from None
            place = repository.artifact_uri
            raise StateError(f"run {self._run_id} has no artifact {path} in {place}") from None

    def delete(self, path: str) -> None:
        """Delete a file or folder if it is there and the artifact store lets us.

        Raises a fault that waiting may mend.
        """
        repository, inside = self._place_of(path)
        for place, name in {repository: inside, self._own: path}.items():
            try:
                with own_errors():
                    place.delete_artifacts(name)
            except (*_FAULTS, NotImplementedError) as fault:
                if waiting_helps(fault):
                    raise

    def checkpoint_steps(self) -> list[int]:
        """Return the steps of a training's checkpoints, ascending, complete or not."""
        entries = self._client.once("list_artifacts", self._run_id, CHECKPOINTS)
        steps = (step_of(entry.path.rsplit("/", 1)[-1]) for entry in entries)
        return sorted(step for step in steps if step is not None)

    def keep_states(self, steps: list[int], count: int) -> list[int]:
        """Delete the states of all but the last of these checkpoints; return the steps left."""
        for step in steps[: len(steps) - count]:
            self.delete(f"{CHECKPOINTS}/{folder_name(step)}/{STATE}")
        return steps[len(steps) - count :]


def _folder_of(repository: ArtifactRepository) -> Path | None:
    """Return the folder of artifacts that are on this machine."""
    is_local = isinstance(repository, LocalArtifactRepository)
    return Path(repository.artifact_dir) if is_local else None


def _obstacle_to(folder: Path | None, path: str, fault: Exception) -> str:
    """Return why a download failed; an empty text if there is no such artifact."""
    if folder:
        try:
            (folder / path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as closed:  # MLflow takes what is in a closed folder for absent
            return str(closed)
    elif "404 Client Error" in str(fault):
        return ""
    return (str(fault).strip().splitlines() or [type(fault).__name__])[-1]
