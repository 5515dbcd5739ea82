"""What `loops.py` lists, in PyTorch; see `torch_networks.py`."""

from __future__ import annotations

import math

import torch
from torch.nn import functional
from torch.nn.functional import silu


def translator(t, x, masks, data):
    """Logits [N, V, U] of each symbol of the target, which the decoder is given one place later."""
    parts = {"weight_ih": "w_in", "weight_hh": "w_h", "bias_ih": "b_in", "bias_hh": "b_h"}
    table = t.p["net.symbol.w"].T
    width = t.p["net.step.query.w"].shape[0]
    layer = torch.nn.GRU(table.shape[1], width // 2, batch_first=True, bidirectional=True).to(t.dtype)
    ways = (("forward", ""), ("backward", "_reverse"))
    given = {f"{theirs}_l0{end}": t.p[f"net.encoder.{way}[0].{ours}"] for way, end in ways for theirs, ours in parts.items()}
    memory, last = torch.func.functional_call(layer, given, (table[data["source"]],))
    h = torch.cat([last[0], last[1]], 1)
    seen = torch.zeros_like(h)
    cell = torch.nn.GRUCell(table.shape[1] + width, width).to(t.dtype)
    weights = {theirs: t.p[f"net.step.cell.{ours}"] for theirs, ours in parts.items()}
    before = functional.pad(data["target"][:, :-1], (1, 0))
    logits = []
    for place in range(before.shape[1]):
        h = torch.func.functional_call(cell, weights, (torch.cat([table[before[:, place]], seen], 1), h))
        query = functional.linear(h, t.p["net.step.query.w"])
        scores = (memory @ query[:, :, None])[:, :, 0]
        context = (functional.softmax(scores, 1)[:, None] @ memory)[:, 0]
        seen = torch.tanh(t.dense("net.step.mix", torch.cat([context, h], 1)))
        logits.append(t.dense("net.step.head", seen))
    return torch.stack(logits, 2)


def kept(steps, dtype):
    """What is left of the variance of a picture after each step of the cosine schedule."""
    angle = (torch.arange(steps + 1, dtype=dtype) * (1.0 / steps) + 0.008) * (math.pi / 2.016)
    left = (torch.cos(angle) / torch.cos(angle[0])) ** 2
    beta = torch.clamp(1.0 - left[1:] / left[:-1], max=0.999)
    return torch.cumprod(1.0 - beta, 0)


def group_norm(t, path, x, groups):
    return functional.group_norm(x, groups, t.p[f"{path}.scale"], t.p[f"{path}.bias"], 1e-5)


def residual(t, path, x, time, groups):
    h = t.conv(f"{path}.conv2d", silu(group_norm(t, f"{path}.groupnorm", x, groups)), padding=1)
    h = h + t.dense(f"{path}.time", time)[:, :, None, None]
    h = t.conv(f"{path}.conv2d[1]", silu(group_norm(t, f"{path}.groupnorm[1]", h, groups)), padding=1)
    return h + (t.conv(f"{path}.shortcut", x) if f"{path}.shortcut.w" in t.p else x)


def denoiser(t, x, masks, data):
    channels = t.p["net.first.w"].shape[0]
    groups = 2 if channels == 4 else 8
    when = 20 * data["time"]
    share = kept(200, t.dtype)[when][:, None, None, None]
    x = torch.sqrt(share) * x + torch.sqrt(1.0 - share) * data["noise"]
    waves = torch.exp(torch.arange(channels // 2, dtype=t.dtype) * (-math.log(10000.0) / (channels // 2 - 1)))
    angle = when[:, None].to(t.dtype) * waves
    time = silu(t.dense("net.time.inner", torch.cat([torch.sin(angle), torch.cos(angle)], 1)))
    time = silu(t.dense("net.time.outer", time))
    a = residual(t, "net.down", t.conv("net.first", x, padding=1), time, groups)
    b = residual(t, "net.down[1]", t.conv("net.shrink", a, 2, 1), time, groups)
    h = residual(t, "net.bottom", b, time, groups)
    h = residual(t, "net.up", torch.cat([h, b], 1), time, groups)
    h = t.conv("net.grow", functional.interpolate(h, scale_factor=2), padding=1)
    h = residual(t, "net.up[1]", torch.cat([h, a], 1), time, groups)
    return t.conv("net.noise", silu(group_norm(t, "net.norm", h, groups)), padding=1)


NETWORKS = {"Translator": translator, "Denoiser": denoiser}
LOSSES = {
    "Translator": lambda logits, data: functional.cross_entropy(logits, data["target"]),
    "Denoiser": lambda found, data: functional.mse_loss(found, data["noise"]),
}
