"""What a person sees of a study that runs: a line for each worker and one for the whole."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tqdm import tqdm

from worldrep.executors.work import News, Outcome
from worldrep.studies.graph import Step
from worldrep.training.progress import Bar, Progress


class Display:
    """Lines at the bottom of a terminal; elsewhere, one line of text for every step that ends."""

    def __init__(self, title: str, workers: int) -> None:
        self._title, self._out = title, sys.stdout  # a worker's output comes back to us
        self._whole = Bar(0)
        self._bars = {number: Bar(number) for number in range(1, workers + 1)}

    def tell(self, worker: int, news: News) -> None:
        """Take in what a worker says."""
        if isinstance(news, str):
            if news.strip():
                self.say(f"worker {worker}: {news}" if len(self._bars) > 1 and worker else news)
        elif worker in self._bars:
            self._bars[worker](news)

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        tqdm.write(line, file=self._out)
        self._out.flush()

    def begun(self, counts: Mapping[str, int]) -> None:
        """Say what is there already."""
        self.say(
            f"{self._title}: {counts['done']} of {sum(counts.values())} steps are done already"
        )

    def ended(self, step: Step, outcome: Outcome, counts: Mapping[str, int]) -> None:
        """Say how a step ended."""
        done, total = counts["done"], sum(counts.values())
        how = outcome.message or f"done in {outcome.seconds:.1f} s"
        words = {
            "done": f"{how}, run {outcome.run_id}",
            "failed": f"FAILED: {outcome.message}",
            "taken": f"left to another process: {outcome.message}",
            "lost": f"{outcome.message}; it is tried again from its last checkpoint",
        }
        self.say(f"[{done}/{total}] {step.title}: {words[outcome.state]}")

    def whole(self, counts: Mapping[str, int]) -> None:
        """Show how far the study is."""
        total = sum(counts.values())
        text = ", ".join(f"{n} {name}" for name, n in counts.items() if n and name != "done")
        self._whole(Progress(self._title, counts["done"], total, text))

    def close(self) -> None:
        for bar in [*self._bars.values(), self._whole]:
            bar.close()
