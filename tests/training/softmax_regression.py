"""Softmax regression with Adam in NumPy: a `TrainingProgram` without the compiler."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dslc.data import Field
from dslc.ir.recipe import Recipe, RecipeField, SavePlan
from dslc.ir.types import DType

FIELDS = (RecipeField("image", DType.F32, (64,)), RecipeField("label", DType.I64, ()))


def recipe(**changes: object) -> Recipe:
    given: dict[str, object] = {"epochs": 3, "batch": 64, "seed": 7, "settings": (("lr", 0.02),), "metrics": ("accuracy",)}
    given |= {"save": SavePlan("digits.safetensors", every_epochs=1)}
    return Recipe("digits", "digits", FIELDS, **(given | changes))  # type: ignore[arg-type]


class SoftmaxRegression:
    """The random numbers of a step (noise on the image) follow from seed and step, as a compiled program's do."""

    max_batch: int | None = 256

    def __init__(self, noise: float = 0.05) -> None:
        self.inputs = (Field("image", "f32", (64,)), Field("label", "i64"))
        self.noise = noise
        self._state = {
            "Logistic.w": np.zeros((64, 10), np.float32),
            "Logistic.b": np.zeros(10, np.float32),
            "Logistic.seen": np.zeros((), np.float64),
            "optimizer/step": np.zeros((), np.int64),
        }
        for name in ("Logistic.w", "Logistic.b"):
            for moment in ("m", "v"):
                self._state[f"optimizer/{name}.{moment}"] = np.zeros_like(self._state[name])

    def step(self, batch: Mapping[str, np.ndarray], settings: Mapping[str, float | int]) -> dict[str, float]:
        s = self._state
        x, label = batch["image"], batch["label"]
        if self.noise:
            random = np.random.Philox(key=np.array([settings["seed"], settings["step"]], np.uint64)).random_raw(x.size)
            x = x + np.float32(self.noise) * (random.reshape(x.shape).astype(np.float32) / np.float32(2**63) - 1)
        loss, accuracy, p = self._forward(x, label)
        p[np.arange(len(label)), label] -= 1
        p /= len(label)
        s["Logistic.seen"] += len(label)
        s["optimizer/step"] += 1
        t = int(s["optimizer/step"])
        for name, g in (("Logistic.w", x.T @ p), ("Logistic.b", p.sum(axis=0))):
            m, v = s[f"optimizer/{name}.m"], s[f"optimizer/{name}.v"]
            m += np.float32(0.1) * (g - m)
            v += np.float32(0.001) * (g * g - v)
            rate = np.float32(settings["lr"] * np.sqrt(1 - 0.999**t) / (1 - 0.9**t))
            s[name] -= rate * m / (np.sqrt(v) + np.float32(1e-8))
        return {"loss": loss, "accuracy": accuracy}

    def evaluate(self, batch: Mapping[str, np.ndarray], settings: Mapping[str, float | int]) -> dict[str, float]:
        loss, accuracy, _ = self._forward(batch["image"], batch["label"])
        return {"loss": loss, "accuracy": accuracy}

    def _forward(self, x: np.ndarray, label: np.ndarray) -> tuple[float, float, np.ndarray]:
        z = x @ self._state["Logistic.w"] + self._state["Logistic.b"]
        z -= z.max(axis=1, keepdims=True)
        p = np.exp(z)
        p /= p.sum(axis=1, keepdims=True)
        loss = -np.log(p[np.arange(len(label)), label] + 1e-30).mean()
        return float(loss), float((z.argmax(axis=1) == label).mean()), p

    def state(self) -> dict[str, np.ndarray]:
        return self._state

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        for name, array in state.items():
            self._state[name][...] = array
