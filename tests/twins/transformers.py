"""The zoo's Transformers as cases of `cases.py`: rows of its `Case`. Symbols are ten, from 0 to 9."""

from __future__ import annotations

from typing import Any


def _writes(block: str, length: int, result: str = "logits") -> str:
    """A model that gives the logits as cross entropy takes them: a class's along axis 1."""
    call = f"({block}(symbols{', 0.0' if result == 'text' else ''}) as net)"
    classes = block.split("[")[1].split(",")[0]
    return (
        f"model Around(symbols: i64[N, {length}]) -> f32[N, {classes}, {length}] {{\n  return transpose[0, 2, 1]({call}.logits)\n}}\n"
        if result == "text"
        else f"model Around(symbols: i64[N, {length}]) -> (logits: f32[N, {classes}, {length}], balance: f32[]) {{\n"
        f"  made = {call}\n  return transpose[0, 2, 1](made.logits), made.balance\n}}\n"
    )


def _masked(words: int, sizes: str, width: int, length: int) -> str:
    """The model that guesses words: `Masked` around a `Bert` of other sizes."""
    return (
        f"model Around(tokens: i64[N, {length}]) -> f32[N, {words}, {length}] {{\n"
        f"  h = Bert[{words}, {sizes}](tokens, tokens >= 0) as bert |> Dense[{width}] as transform |> gelu |> LayerNorm as norm\n"
        f"  return transpose[0, 2, 1](h |> Dense[{words}] as words)\n}}\n"
    )


def _case(model: str, file: str, narrow: str, full: str, length: int, result: str = "text") -> dict[str, Any]:
    return {
        "model": model,
        "file": file,
        "narrow": {"L": 6},
        "full": {"L": length},
        "zoo": True,
        "extra": (_writes(narrow, 6, result), _writes(full, length, result)),
        "data": "symbols: i64[N, {L}], label: i64[N, {L}]",
        "loss": "cross_entropy({model}(symbols), label)"
        if result == "text"
        else "cross_entropy({model}(symbols).logits, label) + 0.01 * {model}(symbols).balance",
        "stored": 1,
        "full_batches": (2, 3, 1),
        "full_draws": 24 if result == "text" else 8,
    }


ROWS: tuple[dict[str, Any], ...] = (
    _case("GPT", "gpt.dl", "Transformer[10, 8, 2, 2, 7]", "Transformer[96, 256, 4, 8, 128, tied = false]", 128),
    _case("Llama", "llama.dl", "Llama[10, 8, 2, 4, 2, 12, 7]", "Llama[96, 128, 4, 4, 2, 352, 128]", 128),
    _case("Mixture", "moe.dl", "Mixture[10, 8, 2, 2, 4, 2, 12, 7]", "Mixture[96, 128, 4, 4, 8, 2, 256, 128]", 128, "balance"),
    {
        "model": "Small",
        "file": "vit.dl",
        "narrow": {"s": 6},
        "full": {"s": 28},
        "zoo": True,
        "block": "ViT[2, 8, 2, 2, 10, 6, channels = 1, drop = 0.1]",
        "data": "image: f32[N, 1, {s}, {s}], label: i64[N]",
        "stored": 1,
        "full_batches": (3, 4, 2),
        "full_draws": 96,  # Adam divides gradients of a key's bias, which are all rounding: medians of fewer say nothing
    },
    {
        "model": "Masked",
        "file": "bert.dl",
        "narrow": {"L": 6},
        "full": {"L": 64},
        "zoo": True,
        "extra": (_masked(10, "8, 2, 2, 12, 7", 8, 6), _masked(4000, "96, 2, 4, 384, 128", 96, 64)),
        "data": "tokens: i64[N, {L}], guessed: i64[N, {L}]",
        "loss": "cross_entropy[ignore_index = -1]({model}(tokens), guessed - 1)",
        "vanishing": r"gradient/.*\.key\.b",  # what is added to all scores of a query alike
        "stored": 1,
        "full_batches": (3, 4, 2),
        "full_draws": 3,
    },
)
