"""Loss and speed between two points of the training curve, and a bar for who watches."""

from __future__ import annotations

import time

from tqdm import tqdm


class Meter:
    """Averages the loss, counts real tokens per second, and draws a bar when on a terminal."""

    def __init__(self, steps: int, done: int, title: str, visible: bool) -> None:
        self._bar = tqdm(
            total=steps, initial=done, desc=title, unit="step", disable=None if visible else True
        )
        self._clear()

    def _clear(self) -> None:
        self._losses: list[float] = []
        self._tokens, self._seconds, self._since = 0, 0.0, time.perf_counter()

    def add(self, loss: float, tokens: int) -> None:
        """Count one step."""
        now = time.perf_counter()
        self._losses.append(loss)
        self._tokens += tokens
        self._seconds, self._since = self._seconds + now - self._since, now
        self._bar.update()

    def skip(self) -> None:
        """Leave out the time since the last step: it was not spent on training."""
        self._since = time.perf_counter()

    def flush(self) -> dict[str, float]:
        """Mean loss and tokens per second since the last flush."""
        loss = sum(self._losses) / len(self._losses)
        speed = self._tokens / max(self._seconds, 1e-9)
        self._bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s")
        self._clear()
        return {"train/loss": loss, "train/tokens_per_second": speed}

    def close(self) -> None:
        self._bar.close()
