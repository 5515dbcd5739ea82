"""From a text to a network that spells it: vocabulary and windows in training, prompts and generated symbols in `run`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dslc as library

Run = Callable[..., tuple[int, str, str]]
NEXT = """dim N <= 16, T = 5
const V = 12

model Scores(x: i64[N, T]) -> f32[N, T, V] { return Embedding[V, V](x) as table }

model Net(x: i64[N, T], length: i64[N]) -> (next: i64[N, T], said: i64[N]) {
  return argmax[axis = 2](Scores(x)), length
}

train spell {
  data x: i64[N, T], y: i64[N, T] from "text:abc.txt" with level = "characters", vocabulary = V, stride = 1, test = 0.2
  logits = transpose[0, 2, 1](Scores(x))
  minimize cross_entropy(logits, y) over Scores with Adam[0.1]
  metric right = mean(argmax[axis = 1](logits) == y)
  epochs 5  batch 16  seed 3
  save "spell.safetensors" with every = 1
}
"""


def test_a_text_is_learned_and_run_spells(tmp_path: Path, dslc: Run) -> None:
    Path("abc.txt").write_text("abcdefghij\n" * 40)
    Path("spell.dl").write_text(NEXT)
    status, out, err = dslc("train", "spell.dl")
    assert status == 0, err
    assert "347 + 17 held out examples of abc.txt" in out and "right 1" in out.splitlines()[-2]
    Path("prompt.txt").write_text("hi")
    given = ("--input", "x=text:cafebabe", "--input", "x=prompt.txt")
    status, out, err = dslc("run", "spell.dl:Net", "--weights", "spell.safetensors", *given)
    assert status == 0, err
    assert "next[0]: dbgfc\n" in out and "next[1]: ijaaa\n" in out  # what follows c, a, f, e, b; and h, i and the line's end
    assert "said: int64[2]\n[5 2]" in out
    status, out, err = dslc("run", "spell.dl:Net", "--weights", "spell.safetensors", "--input", "x=text:xyz")
    assert status == 1 and "DL0716" in err


def test_the_vocabulary_goes_with_an_artifact(tmp_path: Path, dslc: Run) -> None:
    Path("abc.txt").write_text("abcdefghij\n" * 40)
    trainer = library.Trainer(NEXT, folder=tmp_path, data_folders=[tmp_path])
    trainer.fit()
    net = library.compile(NEXT, "Net")
    net.load_weights(tmp_path / "spell.safetensors")
    net.save("spell.dlc")
    data = library.load("spell.dlc").data
    assert (
        data is not None
        and data.coding is not None
        and data.coding.decode(data.coding.encode("bad cafe".replace(" ", "\n"))) == "bad\ncafe"
    )
