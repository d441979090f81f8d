"""Store, download and delete the files of a run, with errors that name what is wrong."""

from functools import cached_property
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from worldrep.disk import writing_to
from worldrep.errors import StateError
from worldrep.tracking.patience import Client, own_errors, waiting_helps
from worldrep.training.checkpoint import STATE, folder_name, step_of

CHECKPOINTS = "checkpoints"  # artifact folder
_FAULTS = (OSError, MlflowException)


class Artifacts:
    """The artifacts of a run.

    MLflow's client says of every failed download that the path is wrong, so this asks the
    repository below it. Only `get` waits for an absent store.
    """

    def __init__(self, client: Client, run_id: str) -> None:
        self._client, self._run_id = client, run_id

    @cached_property
    def _repository(self) -> ArtifactRepository:
        uri = self._client.once("get_run", self._run_id).info.artifact_uri
        return get_artifact_repository(uri, tracking_uri=self._client.uri)

    @property
    def _folder(self) -> Path | None:
        """The folder of the artifacts; None if they are on another machine."""
        is_local = isinstance(self._repository, LocalArtifactRepository)
        return Path(self._repository.artifact_dir) if is_local else None

    def put(self, path: Path, folder: str | None = None) -> None:
        """Store a file. Raises FullError if there is no space for it."""
        place = "the artifact store"
        place += "" if self._folder else f" {self._repository.artifact_uri}"
        with writing_to(place, self._folder, path.stat().st_size, _FAULTS), own_errors():
            self._repository.log_artifact(str(path), folder)

    def get(self, path: str, folder: Path) -> Path:
        """Download a file or folder into `folder` and return its path.

        Raises StateError if it is absent or cannot be read, FullError if there is no space for it.
        """

        def attempt(_: bool) -> Path:
            with own_errors():
                return Path(self._repository.download_artifacts(path, str(folder)))

        try:
            with writing_to("the temporary folder (TMPDIR)", folder, faults=_FAULTS):
                return self._client.wait(attempt, f"to download {path} of run {self._run_id}")
        except _FAULTS as fault:
            if obstacle := self._obstacle_to(path, fault):
                text = f"the artifact {path} of run {self._run_id} cannot be read: {obstacle}"
                raise StateError(text) from None
            place = self._repository.artifact_uri
            raise StateError(f"run {self._run_id} has no artifact {path} in {place}") from None

    def _obstacle_to(self, path: str, fault: Exception) -> str:
        """Return why a download failed; an empty text if there is no such artifact."""
        if self._folder:
            try:
                (self._folder / path).stat()
            except (FileNotFoundError, NotADirectoryError):
                return ""
            except OSError as closed:  # MLflow takes what is in a closed folder for absent
                return str(closed)
        elif "404 Client Error" in str(fault):
            return ""
        return (str(fault).strip().splitlines() or [type(fault).__name__])[-1]

    def delete(self, path: str) -> None:
        """Delete a file or folder if it is there and the artifact store lets us.

        Raises a fault that waiting may mend.
        """
        try:
            with own_errors():
                self._repository.delete_artifacts(path)
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
