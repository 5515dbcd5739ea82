"""An optimizer written in `.dl`: `lion.dl` beside this file defines Lion and trains with it.

python examples/optimizer.py        (or: dslc train examples/lion.dl)
"""

from __future__ import annotations

from pathlib import Path

import dslc


def main() -> None:
    trainer = dslc.Trainer(Path(__file__).with_name("lion.dl"))
    for epoch in trainer:
        if epoch.epoch % 5 == 0:
            print(f"epoch {epoch.epoch}: loss {epoch.metrics['loss']:.4f}, held-out accuracy {epoch.test_metrics['accuracy']:.1%}")


if __name__ == "__main__":
    main()
