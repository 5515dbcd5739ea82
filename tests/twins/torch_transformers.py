"""The twins' Transformers in PyTorch; see `torch_networks.py`. Matrices stand transposed in `t.p`, so tables of vectors are turned back."""

from __future__ import annotations

import math

import torch
from torch.nn import functional


def layer_norm(t, path, x):
    return functional.layer_norm(x, x.shape[-1:], t.p[f"{path}.scale"], t.p[f"{path}.bias"], 1e-5)


def rms_norm(t, path, x):
    return functional.rms_norm(x, x.shape[-1:], t.p[f"{path}.scale"], 1e-5)


def linear(t, path, x):
    return functional.linear(x, t.p[f"{path}.w"])


def split(x, heads):
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def attend(q, k, v, causal=True):
    return functional.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)


def self_attention(t, project, output, x, heads, causal):
    q, k, v = (split(part, heads) for part in t.dense(project, x).chunk(3, -1))
    return t.dense(output, attend(q, k, v, causal))


def forward(t, path, x):
    return t.dense(f"{path}.outer", functional.gelu(t.dense(f"{path}.inner", x), approximate="tanh"))


def layers(t, path):
    return len({name.split("[")[1].split("]")[0] for name in t.p if name.startswith(f"{path}[")})


def gpt(t, x, masks, data):
    symbol, position = t.p["net.symbol"].T, t.p["net.position"].T
    heads = 2 if symbol.shape[1] == 8 else 8
    h = symbol[data["symbols"]] + position[: data["symbols"].shape[1]]
    for n in range(layers(t, "net.layer")):
        at = f"net.layer[{n}]"
        h = h + self_attention(t, f"{at}.project", f"{at}.output", layer_norm(t, f"{at}.attention_norm", h), heads, True)
        h = h + forward(t, f"{at}.forward", layer_norm(t, f"{at}.norm", h))
    h = layer_norm(t, "net.norm", h)
    head = "net.head.dense"
    return (t.dense(head, h) if f"{head}.w" in t.p else h @ symbol.T).transpose(1, 2)


def turned(x):
    """Features i and i + E / 2 as the parts of a complex number, turned by the position."""
    a, b = x.chunk(2, -1)
    half = a.shape[-1]
    slowness = torch.exp(torch.arange(half, dtype=x.dtype) * (-2 * math.log(10000.0) / (2 * half)))
    turn = torch.polar(torch.ones((), dtype=x.dtype), torch.arange(x.shape[2], dtype=x.dtype)[:, None] * slowness)
    z = torch.complex(a, b) * turn
    return torch.cat([z.real, z.imag], -1)


def llama(t, x, masks, data):
    symbol = t.p["net.symbol"].T
    heads, groups = 4, 2
    h = symbol[data["symbols"]]
    for n in range(layers(t, "net.layer")):
        at = f"net.layer[{n}]"
        y = rms_norm(t, f"{at}.attention_norm", h)
        q, k, v = (linear(t, f"{at}.{name}", y) for name in ("query", "key", "value"))
        k, v = (split(each, groups).repeat_interleave(heads // groups, 1) for each in (k, v))
        q, k = turned(split(q, heads)), turned(k)
        h = h + linear(t, f"{at}.output", attend(q, k, v))
        y = rms_norm(t, f"{at}.norm", h)
        gated = functional.silu(linear(t, f"{at}.forward.gate", y)) * linear(t, f"{at}.forward.up", y)
        h = h + linear(t, f"{at}.forward.down", gated)
    return (rms_norm(t, "net.norm", h) @ symbol.T).transpose(1, 2)


def experts(t, path, x, k, room):
    """Position by position: first choices before second ones, each to its expert while that has room."""
    p = functional.softmax(linear(t, f"{path}.router.scores", x), -1)
    best, chosen = p.topk(k, -1)
    share = best / best.sum(-1, keepdim=True)
    rows = []
    for row in range(len(x)):
        taken = [0] * p.shape[-1]
        parts = [[] for _ in range(x.shape[1])]
        for choice in range(k):
            for place in range(x.shape[1]):
                expert = int(chosen[row, place, choice])
                taken[expert] += 1
                if taken[expert] <= room:
                    h = functional.gelu(x[row, place] @ t.p[f"{path}.inner_w"][expert], approximate="tanh")
                    parts[place].append(share[row, place, choice] * (h @ t.p[f"{path}.outer_w"][expert]))
        rows.append(torch.stack([sum(each, torch.zeros_like(x[row, 0])) for each in parts]))
    first = functional.one_hot(chosen[..., 0], p.shape[-1]).to(x.dtype).mean((0, 1))
    return torch.stack(rows), p.shape[-1] * (first * p.mean((0, 1))).sum()


def mixture(t, x, masks, data):
    symbol, position = t.p["net.symbol.w"].T, t.p["net.position.w"].T
    heads, count = 2 if symbol.shape[1] == 8 else 4, layers(t, "net.experts")
    length, kinds = data["symbols"].shape[1], 4 if symbol.shape[1] == 8 else 8
    h, total = symbol[data["symbols"]] + position[:length], 0
    for n in range(count):
        y = layer_norm(t, f"net.attention_norm[{n}]", h)
        h = h + self_attention(t, f"net.attention[{n}].heads.project", f"net.attention[{n}].output", y, heads, True)
        y, balance = experts(t, f"net.experts[{n}]", layer_norm(t, f"net.norm[{n}]", h), 2, length * 2 * 125 // (100 * kinds))
        h, total = h + y, total + balance
    return t.dense("net.head", layer_norm(t, "net.last", h)).transpose(1, 2), total / count


def vit(t, x, masks, data):
    parts = t.conv("part", x, t.p["part.w"].shape[2]).flatten(2).transpose(1, 2)
    h = torch.cat([t.p["answer"].T.expand(len(x), 1, -1), parts], 1) + t.p["position"].T
    heads, h = 2 if h.shape[2] == 8 else 4, t.drop(h, masks, 0, 0.1)
    for n in range(layers(t, "layer")):
        at = f"layer[{n}]"
        y = layer_norm(t, f"{at}.attention_norm", h)
        y = self_attention(t, f"{at}.attention.heads.project", f"{at}.attention.output", y, heads, False)
        h = h + t.drop(y, masks, 2 * n + 1, 0.1)
        h = h + t.drop(forward(t, f"{at}.forward", layer_norm(t, f"{at}.norm", h)), masks, 2 * n + 2, 0.1)
    return t.dense("head", layer_norm(t, "norm", h)[:, 0])


NETWORKS = {"GPT": gpt, "Llama": llama, "Mixture": mixture, "Small": vit}
LOSSES = {"Mixture": lambda made, data: functional.cross_entropy(made[0], data["label"]) + 0.01 * made[1]}
