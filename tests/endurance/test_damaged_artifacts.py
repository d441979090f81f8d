"""Each file of a real store is damaged in many ways: never a traceback or a wrong number.

WORLDREP_DAMAGES says how many damages `make endure` tries in all; CI tries a few of each kind.
"""

import os
import random
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from damage import damaged
from safetensors.numpy import load_file

from analysis.command import open_source
from analysis.options import Options
from analysis.probes import probes
from entrypoints import evaluate, extract, finetune, pretrain
from worldrep.errors import StateError
from worldrep.tracking import Store
from worldrep.training.checkpoint import MANIFEST, write_manifest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("damaged_artifacts")]

FEW = 12  # damages of each kind in CI
MANY = int(os.environ.get("WORLDREP_DAMAGES", "700"))
SMOKE = ["--scale", "smoke"]
MODEL = [f"model/{name}" for name in ("config.json", MANIFEST, "model.safetensors")]
KINDS = {  # what is read -> the files of the run that is read, as glob patterns
    "evaluate": ["settings.json", "cities.csv", *MODEL],
    "finetune": ["settings.json", *MODEL],
    "resume": ["checkpoints/step-28/*.safetensors", f"checkpoints/step-28/{MANIFEST}"],
    "probes": [f"representations/*/{MANIFEST}", "representations/*/*.safetensors"],
}


def command(function, *arguments):
    """Exit code and output of a command. A traceback is an error of the test."""
    result = CliRunner().invoke(function, [*map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), (
        arguments,
        result.exc_info,
    )
    assert "Traceback" not in result.output
    return result.exit_code, result.output


class Bench:
    """A store with a base of a user's cities, a fine-tuned model, and extractions of both."""

    def __init__(self, folder):
        self.folder, self.store = folder, Store.connect()
        rng = random.Random(0)
        lines = [f"City {i},{rng.randint(-1500, 1500)},{rng.randint(-800, 800)}" for i in range(20)]
        Path("own.csv").write_text("\n".join(["name,x,y", *lines]))
        self.settings = [*SMOKE, "--cities", "own.csv"]
        for function, *arguments in (
            (finetune.main, "--ft", "ftwb1-1"),
            (extract.main, "--model", "pt1"),
            (extract.main, "--model", "pt1_ftwb1-1"),
        ):
            code, output = command(function, *arguments, *self.settings)
            assert code == 0, output
        (self.base,), (self.extraction, _) = self.find("pretrain"), self.find("extract")
        Path("own.csv").unlink()  # another user's path
        self.truth = {kind: getattr(self, kind)()[2] for kind in KINDS}
        assert all(self.truth.values())

    def find(self, stage, **tags):
        return sorted(self.store.find(stage=stage, **tags), key=lambda run: run.started)

    def files(self, kind, pattern):
        run = self.extraction if kind == "probes" else self.base
        return sorted(self.folder.glob(f"mlruns/*/{run.id}/artifacts/{pattern}"))

    def done(self, stage, **tags):
        """The finished run of these tags, which is deleted, so that the next one is made anew."""
        runs = self.find(stage, **tags)
        for run in runs:
            self.store.client.delete_run(run.id)
        return next((run for run in runs if run.status == "FINISHED"), None)

    def evaluate(self):
        code, output = command(evaluate.main, "--run_id", self.base.id)
        run = self.done("evaluate")
        return code, output, dict(run.metrics) if run else None

    def finetune(self):
        arguments = "--ft", "ftwb1-2", "--base_run", self.base.id, "--epochs", "1"
        Path("own.csv").write_text(self._cities())
        code, output = command(finetune.main, *arguments, *self.settings)
        Path("own.csv").unlink()
        run = self.done("finetune", ft="ftwb1-2")
        return code, output, self._weights(run) if run else None

    def resume(self):
        """Train the base on from its last checkpoint, which was its last step."""
        self.store.client.set_terminated(self.base.id, "KILLED")
        Path("own.csv").write_text(self._cities())
        code, output = command(pretrain.main, *self.settings)
        Path("own.csv").unlink()
        run = self.store.get(self.base.id)
        return code, output, self._weights(run) if run.status == "FINISHED" else None

    def probes(self):
        """Errors of the probes by extraction, without the figures, which take seconds."""
        options = Options(Path("probes"), scale="smoke")
        try:
            with open_source(options) as source:
                table = probes(source, options).tables["probes"]
        except StateError as fault:
            return 1, f"Error: {fault}", None
        return 0, "", table.set_index("run_id")["atlantis_error"].to_dict()

    def _cities(self):
        (path,) = self.files("evaluate", "cities.csv")
        cities = pd.read_csv(path, dtype=str)
        return cities.loc[cities["region"] == "unknown", ["name", "x", "y"]].to_csv(index=False)

    def _weights(self, run):
        with self.store.download(run.id, "model/model.safetensors") as path:
            return {name: table.tobytes() for name, table in load_file(path).items()}

    def check(self, kind, path, how):
        """Read a damaged file: the right result, or one sentence that names run and file."""
        code, output, found = getattr(self, kind)()
        truth, run = self.truth[kind], self.extraction if kind == "probes" else self.base
        assert not self.running(), how
        if kind == "probes" and code == 0:
            assert found.items() <= truth.items() and truth.keys() - found.keys() <= {run.id}, how
            return "right" if found == truth else "left out"
        if code == 0:
            assert found == truth, how
            return "right"
        (sentence,) = [line for line in output.splitlines() if line.startswith("Error: ")]
        assert code == 1 and found is None, (how, output)
        folder = path.parent.name if path.name == MANIFEST else ""
        assert run.id in sentence and (path.name in sentence or f"{folder}/" in sentence), how
        return "refused"

    def running(self):
        return self.store.client.search_runs(
            [self.store.experiment_id], "attributes.status = 'RUNNING'"
        )


@pytest.fixture(scope="module")
def bench(new_store):
    with new_store("bench"):
        yield Bench(Path.cwd())


def try_damages(bench, kind, n, rng):
    """Damage the files of a kind `n` times, one at a time; how each ended."""
    ends = []
    for i in range(n):
        pattern = KINDS[kind][i % len(KINDS[kind])]
        path = rng.choice(bench.files(kind, pattern))
        whole = path.read_bytes()
        # Whoever writes a file can write a manifest that fits it.
        manifest = path.parent / MANIFEST
        matching = path != manifest and manifest.exists() and kind != "resume" and i % 2
        before = manifest.read_bytes() if manifest.exists() else None
        content = damaged(path, rng)
        if matching and path.suffix == ".safetensors" and same_header(whole, content):
            matching = False  # other weights with the right digest are another model
        try:
            path.write_bytes(content)
            if matching and kind != "probes":
                write_manifest(path.parent)
            how = kind, pattern, matching, content[:2000], len(content)
            ends.append(bench.check(kind, path, how))
        finally:
            path.write_bytes(whole)
            if before is not None:
                manifest.write_bytes(before)
    assert getattr(bench, kind)()[2] == bench.truth[kind]
    return ends


def same_header(whole, content):
    size = 8 + int.from_bytes(whole[:8], "little")
    return len(whole) == len(content) and whole[:size] == content[:size]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_gives_the_right_result_or_one_sentence(bench, kind):
    ends = try_damages(bench, kind, FEW, random.Random(kind))
    # A checkpoint that is damaged is not used; the one before it gives the same weights.
    assert (set(ends) == {"right"}) == (kind == "resume")


@pytest.mark.endure
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_files(bench, kind, tried):
    tried(f"damaged artifacts: {kind}", MANY // len(KINDS))
    try_damages(bench, kind, MANY // len(KINDS), random.Random(f"many {kind}"))
