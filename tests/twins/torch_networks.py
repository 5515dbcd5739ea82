"""The twins' networks in PyTorch, as functions of a `Twin`, an image, the masks of dropout (None where it is not training) and all data.

LOSSES are functions of a network's result and the data; where there is none it is cross entropy with `label`.
"""

from __future__ import annotations

import torch
import torch_loops
import torch_transformers
from torch.nn import functional
from torch.nn.functional import relu, relu6


def pool(x):
    return functional.max_pool2d(x, 2)


def logistic(t, x, masks, data):
    return t.dense("head", x.flatten(1))


def mlp(t, x, masks, data):
    return t.dense("head", relu(t.dense("dense[1]", relu(t.dense("dense", x.flatten(1))))))


def mlp_drop(t, x, masks, data):
    x = t.drop(relu(t.dense("dense", x.flatten(1))), masks, 0, 0.5)
    return t.dense("head", t.drop(relu(t.dense("dense[1]", x)), masks, 1, 0.2))


def lenet(t, x, masks, data):
    x = pool(relu(t.conv("conv2d", x, padding=2)))
    x = pool(relu(t.conv("conv2d[1]", x)))
    return t.dense("head", relu(t.dense("dense[1]", relu(t.dense("dense", x.flatten(1))))))


def lenet_norm(t, x, masks, data):
    training = masks is not None
    x = pool(relu(t.norm("batchnorm", t.conv("conv2d", x, padding=2), training)))
    x = pool(relu(t.norm("batchnorm[1]", t.conv("conv2d[1]", x), training)))
    x = t.drop(relu(t.dense("dense", x.flatten(1))), masks, 0, 0.25)
    return t.dense("head", t.drop(relu(t.dense("dense[1]", x)), masks, 1, 0.5))


def classifier(t, x, masks):
    x = t.drop(x.flatten(1), masks, 0, 0.5)
    x = t.drop(relu(t.dense("classifier.dense", x)), masks, 1, 0.5)
    return t.dense("classifier.head", relu(t.dense("classifier.dense[1]", x)))


def alexnet(kind):
    """As published ("columns"), in a "single" column, or "small"."""

    def network(t, x, masks, data):
        groups = 2 if kind == "columns" else 1
        normal = (lambda x: functional.local_response_norm(x, 5, 5e-4, 0.75, 2)) if kind == "columns" else (lambda x: x)
        x = functional.max_pool2d(normal(relu(t.conv("conv2d", x, 1 if kind == "small" else 4, 2))), 3, 2)
        x = functional.max_pool2d(normal(relu(t.conv("conv2d[1]", x, 1, 2, groups))), 3, 2)
        x = relu(t.conv("conv2d[2]", x, 1, 1))
        x = relu(t.conv("conv2d[4]", relu(t.conv("conv2d[3]", x, 1, 1, groups)), 1, 1, groups))
        return classifier(t, functional.max_pool2d(x, 3, 2), masks)

    return network


def vgg(t, x, masks, data):
    number = 0
    for convolutions in [2, 2, 3, 3, 3] if "conv[12].w" in t.p else [2, 1, 1]:
        for _ in range(convolutions):
            x = relu(t.conv(f"conv[{number}]", x, padding=1))
            number += 1
        x = pool(x)
    x = t.drop(relu(t.dense("dense", x.flatten(1))), masks, 0, 0.5)
    return t.dense("head", t.drop(relu(t.dense("dense[1]", x)), masks, 1, 0.5))


def index(number):
    return f"[{number}]" if number else ""


def normed(t, path, number, x, training, **how):
    """A convolution and its batch normalisation, both the `number`th of their block."""
    dot = f"{path}." if path else ""
    return t.norm(f"{dot}batchnorm{index(number)}", t.conv(f"{dot}conv2d{index(number)}", x, **how), training)


def shortcut(t, path, x, stride, training):
    return normed(t, f"{path}.shortcut", 0, x, training, stride=stride) if f"{path}.shortcut.conv2d.w" in t.p else x


def basic(t, path, x, stride, training):
    y = relu(normed(t, path, 0, x, training, stride=stride, padding=1))
    return relu(normed(t, path, 1, y, training, padding=1) + shortcut(t, path, x, stride, training))


def bottleneck(t, path, x, stride, training):
    y = relu(normed(t, path, 0, x, training))
    y = relu(normed(t, path, 1, y, training, stride=stride, padding=1))
    return relu(normed(t, path, 2, y, training) + shortcut(t, path, x, stride, training))


def residual(unit, full, narrow, small=False):
    def network(t, x, masks, data):
        training, number = masks is not None, 0
        if small:
            x = relu(normed(t, "", 0, x, training, padding=1))
        else:
            x = functional.max_pool2d(relu(normed(t, "", 0, x, training, stride=2, padding=3)), 3, 2, 1)
        units = full if f"unit[{sum(full) - 1}].conv2d.w" in t.p else narrow
        for stage, count in enumerate(units):
            for i in range(count):
                x = unit(t, f"unit[{number}]", x, 2 if stage and i == 0 else 1, training)
                number += 1
        return t.dense("head", x.mean((2, 3)))

    return network


def mobilenet(t, x, masks, data):
    training, number = masks is not None, 0
    full = [(1, 1, 1), (6, 2, 2), (6, 3, 2), (6, 4, 2), (6, 3, 1), (6, 3, 2), (6, 1, 1)]
    table = full if "unit[16].project.w" in t.p else [(1, 1, 1), (6, 2, 2), (3, 1, 2)]
    x = relu6(normed(t, "", 0, x, training, stride=2, padding=1))
    for expand, count, first in table:
        for i in range(count):
            path, stride, y = f"unit[{number}]", first if i == 0 else 1, x
            if expand > 1:
                y = relu6(t.norm(f"{path}.expand_norm", t.conv(f"{path}.expand", y), training))
            y = relu6(t.norm(f"{path}.depthwise_norm", t.conv(f"{path}.depthwise", y, stride, 1, y.shape[1]), training))
            y = t.norm(f"{path}.project_norm", t.conv(f"{path}.project", y), training)
            x = x + y if stride == 1 and x.shape == y.shape else y
            number += 1
    return t.dense("head", relu6(normed(t, "", 1, x, training)).mean((2, 3)))


def double(t, path, x):
    return relu(t.conv(f"{path}.conv2d[1]", relu(t.conv(f"{path}.conv2d", x, padding=1)), padding=1))


def unet(t, x, masks, data):
    a = double(t, "down", x)
    b = double(t, "down[1]", pool(a))
    c = double(t, "bottom", pool(b))
    b = double(t, "up", torch.cat([functional.interpolate(c, scale_factor=2), b], 1))
    a = double(t, "up[1]", torch.cat([functional.interpolate(b, scale_factor=2), a], 1))
    return t.conv("head", a)


def autoencoder(t, x, masks, data):
    x = relu(t.conv("encoder.conv2d[1]", relu(t.conv("encoder.conv2d", x, 2, 1)), 2, 1))
    rows, columns = x.shape[2:]
    x = relu(t.dense("decoder.dense", t.dense("encoder.code", x.flatten(1))))
    x = x.unflatten(1, (-1, rows, columns))
    return t.conv_transpose("decoder.image", relu(t.conv_transpose("decoder.convtranspose2d", x, 2, 1)), 2, 1)


def vae(t, x, masks, data):
    h = torch.tanh(t.dense("encoder.dense", x.flatten(1)))
    mean, log_variance = t.dense("encoder.mean", h), t.dense("encoder.log_variance", h)
    code = mean + torch.exp(log_variance / 2) * data["noise"]
    h = torch.tanh(t.dense("decoder.dense", code))
    return t.dense("decoder.pixels", h).view(x.shape), mean, log_variance


def detector(t, x, masks, data):
    for number in range(6):
        x = t.conv(f"conv2d[{number}]", x, 1 if number % 2 else 2, 1)
        x = relu(t.norm(f"batchnorm[{number}]", x, masks is not None))
    logits, edges = (t.conv(path, x, 1, 1).flatten(2).transpose(1, 2) for path in ("kind", "edges"))
    x, y = centres(edges.dtype).T
    left, up, right, low = 8 * functional.softplus(edges).movedim(-1, 0)
    return logits - 4, torch.stack([x - left, y - up, x + right, y + low], -1)


def centres(dtype):
    """(x, y) of the middle of each of 8 x 8 cells, row by row."""
    return torch.tensor([[8 * column + 4, 8 * row + 4] for row in range(8) for column in range(8)], dtype=dtype)


def detection_loss(made, data):
    """Cell by cell: the focal loss, and 1 - GIoU with the last box that the cell's middle lies in."""
    logits, found = made
    low = 40 * data["corner"]
    boxes = torch.cat([low, low + 8 + 16 * data["extent"]], -1)
    kinds, total, on = torch.zeros_like(logits), 0, 0
    for image in range(len(logits)):
        corners = boxes[image].tolist()
        for cell, (x, y) in enumerate(centres(logits.dtype).tolist()):
            inside = [b for b, (x1, y1, x2, y2) in enumerate(corners) if x1 < x < x2 and y1 < y < y2]
            if inside:
                on += 1
                if data["kinds"][image, inside[-1]] < 3:
                    kinds[image, cell, data["kinds"][image, inside[-1]]] = 1
                total = total + 1 - giou(found[image, cell], boxes[image, inside[-1]])
    p = torch.sigmoid(logits)
    entropy = functional.binary_cross_entropy_with_logits(logits, kinds, reduction="none")
    focal = (0.25 * kinds + 0.75 * (1 - kinds)) * (p + kinds - 2 * p * kinds) ** 2 * entropy
    return (focal.sum() + total) / max(on, 1)


def giou(a, b):
    def area(low, high):
        return (high - low).clamp(min=0).prod()

    both = area(torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:]))
    union = area(a[:2], a[2:]) + area(b[:2], b[2:]) - both
    hull = area(torch.minimum(a[:2], b[:2]), torch.maximum(a[2:], b[2:]))
    return both / union - (hull - union) / hull


def cross_entropy(logits, data):
    return functional.cross_entropy(logits, data["label"])


def elbo(made, data):
    logits, mean, log_variance = made
    surprise = functional.binary_cross_entropy_with_logits(logits, data["image"], reduction="sum")
    divergence = -0.5 * torch.sum(1 + log_variance - mean**2 - torch.exp(log_variance))
    return (surprise + divergence) / len(logits)


def recurrent(t, kind, path, x, hidden, layers=1, both=False):
    """PyTorch's own layer with the twin's parameters: all outputs, and the last state of the last layer."""
    layer = getattr(torch.nn, kind)(x.shape[2], hidden, layers, batch_first=True, bidirectional=both).to(x.dtype)
    parts = {"weight_ih": "w_in", "weight_hh": "w_h", "bias_ih": "b_in", "bias_hh": "b_h"}
    given = {
        f"{theirs}_l{n}{end}": t.p[f"{path}.{way}[{n}].{ours}"]
        for n in range(layers)
        for way, end in (("forward", ""), ("backward", "_reverse"))[: 1 + both]
        for theirs, ours in parts.items()
    }
    out, last = torch.func.functional_call(layer, given, (x,))
    last = last[0] if kind == "LSTM" else last
    return out, torch.cat([last[-2], last[-1]], 1) if both else last[-1]


def forecast(kind):
    def network(t, x, masks, data):
        past = data["past"]
        steps = ((past - past[:, 35:36]) / 4.0)[..., None]
        _, h = recurrent(t, kind, "cell", steps, t.p["cell.forward[0].w_h"].shape[1])
        return past[:, 24:36] + t.dense("change", h)

    return network


def rows(t, x, masks, data):
    _, h = recurrent(t, "GRU", "rows", x, t.p["rows.forward[0].w_h"].shape[1], 2, both=True)
    return t.dense("head", h)


def speech(t, x, masks, data):
    h = data["mels"]
    for n, stride in (("", 1), ("[1]", 2)):
        h = functional.conv1d(h, t.p[f"listen.conv1d{n}.w"], None, stride, 1)
        h = relu(t.norm(f"listen.batchnorm{n}", h, masks is not None))
    h, _ = recurrent(t, "GRU", "listen.gru", h.transpose(1, 2), t.p["listen.gru.forward[0].w_h"].shape[1], both=True)
    return functional.log_softmax(t.dense("listen.head", h), -1)


def bert(t, data, masks, seen, layers=2):
    """The vectors of all tokens."""
    tokens, heads = data["tokens"], 2 if len(t.p["bert.norm.bias"]) == 8 else 4
    drops = iter(range(100))

    def norm(path, x):
        return functional.layer_norm(x, x.shape[-1:], t.p[f"{path}.scale"], t.p[f"{path}.bias"], 1e-12)

    def split(path, x):
        return t.dense(path, x).unflatten(2, (heads, -1)).transpose(1, 2)

    words, positions, kinds = (t.p[f"bert.{name}"].T for name in ("words", "positions", "kinds"))
    h = t.drop(norm("bert.norm", words[tokens] + positions[: tokens.shape[1]] + kinds[0]), masks, next(drops), 0.1)
    for n in range(layers):
        at = f"bert.layer[{n}]"
        q, k, v = (split(f"{at}.attention.{name}", h) for name in ("query", "key", "value"))
        a = functional.scaled_dot_product_attention(q, k, v, seen[:, None, None]).transpose(1, 2).flatten(2)
        h = norm(f"{at}.attention_norm", h + t.drop(t.dense(f"{at}.attention.output", a), masks, next(drops), 0.1))
        f = t.dense(f"{at}.outer", functional.gelu(t.dense(f"{at}.inner", h)))
        h = norm(f"{at}.norm", h + t.drop(f, masks, next(drops), 0.1))
    return h


def reader(t, x, masks, data):
    return t.dense("head", bert(t, data, masks, data["tokens"] > 0).mean(1))


def guesser(t, x, masks, data):
    h = functional.gelu(t.dense("transform", bert(t, data, masks, data["tokens"] >= 0)), approximate="tanh")
    h = functional.layer_norm(h, h.shape[-1:], t.p["norm.scale"], t.p["norm.bias"])
    return t.dense("words", h).transpose(1, 2)


def points(t, x):
    x = relu(t.conv("net.conv2d[1]", relu(t.conv("net.conv2d", x, 2, 1)), 2, 1))
    return functional.normalize(t.dense("net.point", relu(t.dense("net.dense", x.flatten(1)))))


def partners(t, x, masks, data):
    """Points; in training the likeness of each to the other view of its image, and to those of other images."""
    a = points(t, x)
    if masks is None:
        return a
    b = points(t, data["other"])
    drawn = torch.einsum("nd,nkd->nk", a, b[data["picks"] % 4])
    return 10 * torch.cat([(a * b).sum(1, keepdim=True), drawn], 1)


def ctc_loss(log_p, data):
    said, frames, count = 1 + data["says"] % 4, log_p.shape[1] - data["frames"] % 3, 1 + data["count"] % 3
    return functional.ctc_loss(log_p.transpose(0, 1), said, frames, count)


def judge(t, x):
    x = functional.leaky_relu(t.conv("judge.first", x, 2, 1), 0.2)
    x = functional.leaky_relu(t.conv("judge.second", x, 2, 1), 0.2)
    return t.dense("judge.head", x.flatten(1))[:, 0]


def critic(t, x, masks, data):
    """Scores; in training the slopes between real and drawn pictures, whose gradient is one of a gradient, and both scores."""
    scores = judge(t, x)
    if masks is None:
        return scores
    share = data["share"][:, None, None, None]
    mix = (share * x + (1 - share) * data["fake"]).requires_grad_()
    (slope,) = torch.autograd.grad(judge(t, mix).sum(), mix, create_graph=True)
    return slope.flatten(1).norm(dim=1), scores, judge(t, data["fake"])


def wasserstein(made, data):
    if not isinstance(made, tuple):
        return made.mean()
    slope, real, fake = made
    return 10 * ((slope - 1) ** 2).mean() + fake.mean() - real.mean()


def draw(t, x, masks, data):
    training = masks is not None
    h = functional.linear(data["noise"], t.p["draw.start.w"])
    h = relu(t.norm("draw.batchnorm", h.reshape(len(h), -1, 7, 7), training))
    h = functional.conv_transpose2d(h, t.p["draw.up.w"], None, 2, 1)
    h = relu(t.norm("draw.batchnorm[1]", h, training))
    return torch.tanh(t.conv_transpose("draw.pixels", h, 2, 1))


LOSSES = {
    **torch_loops.LOSSES,
    **torch_transformers.LOSSES,
    "Critic": wasserstein,
    "Draw": lambda found, data: functional.mse_loss(found, data["image"]),
    "Detector": detection_loss,
    "UNet": lambda logits, data: functional.binary_cross_entropy_with_logits(logits, data["mask"]),
    "Autoencoder": lambda logits, data: functional.binary_cross_entropy_with_logits(logits, data["image"]),
    "VAE": elbo,
    "Plain": lambda found, data: functional.mse_loss(found, data["future"]),
    "Lstm": lambda found, data: functional.mse_loss(found, data["future"]),
    "Gru": lambda found, data: functional.mse_loss(found, data["future"]),
    "Speech": ctc_loss,
    "Autoregressive": lambda found, data: functional.mse_loss(found, data["next"]),
    "Embed": lambda found, data: functional.cross_entropy(found, torch.zeros(len(found), dtype=torch.int64)),
    "Masked": lambda logits, data: functional.cross_entropy(logits, data["guessed"] - 1, ignore_index=-1),
}
NETWORKS = {
    "Critic": critic,
    "Draw": draw,
    "Detector": detector,
    "Autoencoder": autoencoder,
    "VAE": vae,
    "Logistic": logistic,
    "MLP": mlp,
    "MLPDrop": mlp_drop,
    "LeNet": lenet,
    "Saliency": lenet,
    "Slope": lenet,
    "FGSM": lenet,
    "LeNetNorm": lenet_norm,
    "AlexNet": alexnet("columns"),
    "AlexNetSingle": alexnet("single"),
    "AlexNetSmall": alexnet("small"),
    "VGG16": vgg,
    "ResNet18": residual(basic, [2, 2, 2, 2], [2, 1]),
    "ResNet50": residual(bottleneck, [3, 4, 6, 3], [1, 2]),
    "ResNet20": residual(basic, [3, 3, 3], [1, 2], small=True),
    "MobileNetV2": mobilenet,
    "UNet": unet,
    "Plain": forecast("RNN"),
    "Lstm": forecast("LSTM"),
    "Gru": forecast("GRU"),
    "Rows": rows,
    "Speech": speech,
    "Bert": reader,
    "Masked": guesser,
    "Digits": mlp,
    "Autoregressive": lambda t, x, masks, data: 100 * t.dense("lags", data["past"] / 100),
    "Embed": partners,
    **torch_loops.NETWORKS,
    **torch_transformers.NETWORKS,
}
