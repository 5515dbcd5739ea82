"""The twins in PyTorch: `python torch_twins.py IN.npz OUT.npz` in an environment that has PyTorch and NumPy, and not dslc.

IN holds `case`, `optimizers` and the arrays of several draws, named `DRAW:NAME` (see `cases.py`). OUT holds the results in f64, named
`DRAW:NAME`, and in f32, named `f32:DRAW:NAME`.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import torch
import torch_networks
from torch.nn import functional

TOTAL = 10
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, foreach=False),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, foreach=False),
    "gentle": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, foreach=False),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3, foreach=False),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.5, foreach=False),
    "adam": lambda p: torch.optim.Adam(p, lr=2e-3, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, lr=2e-3, foreach=False),
}


def rate(optimizer, step):
    """The learning rate of a step, counted from 1, where it is not constant: half a cosine over TOTAL with two linear steps."""
    if optimizer != "adamw":
        return None
    progress = min(max((step - 1 - 2) / (TOTAL - 2), 0), 1)
    return 2e-3 * 0.5 * (1 + math.cos(math.pi * progress)) * min(step / 2, 1)


class Twin:
    """A network's parameters as PyTorch holds them, by dslc's paths: matrices are transposed, [Out, In]."""

    def __init__(self, case, given, dtype):
        self.case, self.given, self.dtype = case, given, dtype
        self.p, self.statistics = {}, {}
        for name, array in given.items():
            if name.startswith("start/"):
                path = name.removeprefix("start/").removeprefix("lenet.").split(".", 1)[1]  # of an imported model, or the own one
                tensor = torch.tensor(array.T if array.ndim == 2 else array, dtype=dtype).contiguous()
                if ".running_" in path:
                    self.statistics[path] = tensor
                else:
                    self.p[path] = tensor.requires_grad_()
        self.prefix = next(n for n in given if n.startswith("start/")).removeprefix("start/").split(".", 1)[0]

    def dense(self, path, x):
        return functional.linear(x, self.p[f"{path}.w"], self.p[f"{path}.b"])

    def norm(self, path, x, training):
        s, p = self.statistics, self.p
        return functional.batch_norm(
            x, s[f"{path}.running_mean"], s[f"{path}.running_var"], p[f"{path}.scale"], p[f"{path}.bias"], training, momentum=0.1, eps=1e-5
        )

    def drop(self, x, masks, number, rate):
        return x if not masks else x * (masks[number].to(self.dtype) / (1 - rate))

    def conv(self, path, x, stride=1, padding=0, groups=1):
        return functional.conv2d(x, self.p[f"{path}.w"], self.p.get(f"{path}.b"), stride, padding, groups=groups)

    def conv_transpose(self, path, x, stride, padding):
        return functional.conv_transpose2d(x, self.p[f"{path}.w"], self.p[f"{path}.b"], stride, padding)

    def __call__(self, data, training=False):
        """The network's result, or the first of several, and the loss. `data` are what `batch` gives."""
        made = torch_networks.NETWORKS[self.case](self, data.get("image"), data["masks"] if training else None, data)
        loss = torch_networks.LOSSES.get(self.case, torch_networks.cross_entropy)
        return made[0] if isinstance(made, tuple) else made, loss(made, data)

    def batch(self, step):
        """The step's data by name, and as `masks` the list of what dropout keeps."""
        data, masks = {}, []
        for name, array in self.given.items():
            if name.startswith(f"step{step}/"):
                data[name.split("/")[1]] = torch.tensor(array, dtype=self.dtype if array.dtype.kind == "f" else None)
        while f"mask{len(masks)}" in data:
            masks.append(data.pop(f"mask{len(masks)}"))
        return data | {"masks": masks}

    def named(self, kind, tensors):
        return {f"{kind}/{self.prefix}.{path}": out(t.T if t.ndim == 2 else t) for path, t in tensors.items()}


def out(tensor):
    return tensor.detach().clone().contiguous().numpy()


def slope(twin):
    """What is computed from a gradient by the image."""
    data = twin.batch(0)
    image = data["image"].requires_grad_()
    if twin.case == "FGSM":
        (gradient,) = torch.autograd.grad(twin(data)[1], image)
        return out(torch.clamp(image + 0.1 * torch.sign(gradient), 0, 1))
    chosen = functional.one_hot(data["label"], 10).to(twin.dtype) * functional.log_softmax(twin(data)[0], 1)
    (gradient,) = torch.autograd.grad(chosen.sum(), image)
    return out(gradient.abs() if twin.case == "Saliency" else gradient)


def results(case, optimizers, given, dtype):
    twin = Twin(case, given, dtype)
    if case in ("Saliency", "Slope", "FGSM"):
        return {"infer": slope(twin)}
    data = twin.batch(0)
    found = {"infer": out(twin(data)[0])}
    logits, loss = twin(data, training=True)
    loss.backward()
    found |= {"logits": out(logits), "loss": out(loss)}
    found |= twin.named("gradient", {n: t.grad for n, t in twin.p.items()}) | twin.named("statistics", twin.statistics)
    for name in optimizers:
        twin = Twin(case, given, dtype)
        optimizer = OPTIMIZERS[name](list(twin.p.values()))
        for step in range(3):
            for group in optimizer.param_groups:
                group["lr"] = rate(name, step + 1) or group["lr"]
            optimizer.zero_grad()
            _, loss = twin(twin.batch(step), training=True)
            loss.backward()
            optimizer.step()
        found |= twin.named(name, twin.p) | twin.named(name, twin.statistics) | {f"{name}/loss": out(loss)}
    return found


def main(source, target):
    torch.set_num_threads(1)
    given = dict(np.load(source))
    case, optimizers = str(given.pop("case")), [str(o) for o in given.pop("optimizers")]
    draws = {}
    for name, array in given.items():
        draw, rest = name.split(":", 1)
        draws.setdefault(draw, {})[rest] = array
    made = {}
    for draw, arrays in draws.items():
        made |= {f"{draw}:{n}": a for n, a in results(case, optimizers, arrays, torch.float64).items()}
        made |= {f"f32:{draw}:{n}": a for n, a in results(case, optimizers, arrays, torch.float32).items()}
    np.savez(target, **made)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
