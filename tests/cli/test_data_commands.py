"""From a folder of files to a trained network and back: what `run` makes of a file is what training made of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from PIL import Image

import dslc as library
from dslc.data import DataDescription, Field, open_data
from dslc.data.images import Geometry, read_picture

Run = Callable[..., tuple[int, str, str]]

PETS = """dim N <= 16

model Pets(image: f32[N, 3, 8, 8]) -> f32[N, 2] {
  return image |> flatten |> Dense[2]
}

train pets {
  data image: f32[N, 3, 8, 8], label: i64[N] from "images:pets/" with test = 0.25, normalize = true
  logits = Pets(image)
  minimize cross_entropy(logits, label) over Pets with SGD[0.1]
  metric accuracy = mean(argmax[axis = 1](logits) == label)
  epochs 4  batch 4  seed 3
  save "pets.safetensors" with every = 1
}
"""


def pets(base: Path) -> None:
    rng = np.random.default_rng(0)
    for c, name in enumerate(("cat", "dog")):
        (base / "pets" / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(100 * c, 100 * c + 100, (10, 14, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(base / "pets" / name / f"{i}.png")


def test_an_image_folder_is_learned_and_run_prepares_pictures_alike(tmp_path: Path, dslc: Run) -> None:
    pets(tmp_path)
    Path("pets.dl").write_text(PETS)
    assert dslc("check", "pets.dl")[0] == 0
    status, out, err = dslc("train", "pets.dl")
    assert status == 0, err
    assert "12 + 4 held out images of pets" in out and "accuracy 100.0%" in out
    epochs = [r for line in Path("pets.jsonl").read_text().splitlines() if (r := json.loads(line))["event"] == "epoch"]
    assert all(r["waits"] == 0 and r["waited"] == 0.0 for r in epochs)

    photo = np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(photo).save("photo.png")
    status, out, err = dslc("run", "pets.dl", "--weights", "pets.safetensors", "--input", "image=photo.png", "--json")
    assert status == 0, err
    net = library.compile("pets.dl")
    net.load_weights("pets.safetensors")
    description = net.data
    assert isinstance(description, DataDescription) and description["label"].classes == ("cat", "dog")
    described = description["image"]
    assert described.fit == "crop" and isinstance(described.scale, tuple)
    values = described.from_picture(read_picture(Path("photo.png"), Geometry(3, 8, 8, "crop")))
    want = net(image=values[None])
    assert np.array_equal(np.array(json.loads(out)["output"], np.float32), want)

    data = open_data("images:pets/", [Field("image", "f32", (3, 8, 8)), Field("label", "i64")], options={"normalize": True, "test": 0.25})
    assert data.description == description
    Path("broken.png").write_bytes(b"\x89PNG and no more")
    assert "DL0711" in dslc("run", "pets.dl", "--weights", "pets.safetensors", "--input", "image=broken.png")[2]
    assert "DL0808" in dslc("run", "pets.dl", "--weights", "pets.safetensors", "--input", "image=none.png")[2]


def test_resumption_to_the_bit_with_batches_made_ahead(tmp_path: Path, dslc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pets(tmp_path)
    Path("pets.dl").write_text(PETS)
    assert dslc("train", "pets.dl", "--no-log")[0] == 0
    whole = Path("pets.safetensors").read_bytes()
    Path("pets.safetensors").unlink()
    monkeypatch.setattr("dslc.data.images.machine_memory", lambda: 100)  # read for each batch, in a thread
    assert dslc("train", "pets.dl", "--no-log", "--epochs", 2)[0] == 0
    status, _, err = dslc("train", "pets.dl", "--no-log", "--resume")
    assert status == 0, err
    resumed, plain = (np.asarray(w) for w in (_weights(Path("pets.safetensors").read_bytes()), _weights(whole)))
    assert resumed.tobytes() == plain.tobytes()
    assert [t.name for t in threading.enumerate() if t.name.startswith("dslc-prefetch")] == []


def _weights(content: bytes) -> np.ndarray:
    """The tensors of a safetensors file as bytes, without the metadata, where times stand."""
    return np.frombuffer(content, np.uint8)[8 + int.from_bytes(content[:8], "little") :]


def test_a_damaged_file_stops_training_with_its_name(tmp_path: Path, dslc: Run) -> None:
    pets(tmp_path)
    Path("pets.dl").write_text(PETS)
    Path("pets/dog/3.png").write_bytes(b"gone")
    status, _, err = dslc("train", "pets.dl")
    assert status == 1 and "DL0711" in err and "pets/dog/3.png" in err and "pets.dl:8" in err


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ("tset = 0.2", "DL0103", "`augment`, `test`"),
        ("test = [1, 2]", "DL0305", "a list of texts"),
        ("test = relu", "DL0305", "the option `test`"),
    ],
)
def test_options_that_the_checker_refuses(dslc: Run, options: str, code: str, says: str) -> None:
    Path("a.dl").write_text(PETS.replace("test = 0.25, normalize = true", options))
    status, _, err = dslc("check", "a.dl")
    assert status == 1 and code in err and says in err


def test_options_are_judged_when_training_begins(tmp_path: Path, dslc: Run) -> None:
    pets(tmp_path)
    Path("a.dl").write_text(PETS.replace("test = 0.25, normalize = true", 'fit = "squeeze"'))
    status, _, err = dslc("train", "a.dl")
    assert status == 1 and "DL0710" in err and "a.dl:8" in err


TABLE = """dim N <= 16

model Both(x: f32[N, 2], z: f32[N]) -> f32[N, 2] {
  return concat[axis = 1](x, reshape[N, 1](z)) |> Dense[2]
}

train both {
  data x: f32[N, 2], z: f32[N], y: i64[N] from "csv:t.csv" with columns = ["a b", "c", "d", "kind"], test = 0.5
  minimize cross_entropy(Both(x, z), y) over Both with SGD[0.1]
  epochs 2  batch 4
}
"""


def test_several_inputs_from_a_table_and_from_python(tmp_path: Path, dslc: Run) -> None:
    Path("both.dl").write_text(TABLE)
    Path("t.csv").write_text("kind,d,c,a b\n" + "".join(f"{'xy'[i % 2]},{i},{i * 0.5},{-i}\n" for i in range(12)))
    trainer = library.Trainer("both.dl")
    assert trainer.data.train.count == 6 and trainer.data.test is not None and trainer.data.description["y"].classes == ("x", "y")
    assert len(trainer.fit()) == 2 and trainer.history[-1].test_metrics
    again = library.Trainer("both.dl")
    assert again.cached and again.recipe.data_options == trainer.recipe.data_options

    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(9, 2)), "z": rng.normal(size=9), "y": rng.integers(0, 2, 9)}
    examples = [(arrays["x"][i], arrays["z"][i], int(arrays["y"][i])) for i in range(9)]
    weights = []
    for given in (arrays, tuple(arrays.values()), examples, iter(examples), {"train": arrays, "test": tuple(arrays.values())}):
        one = library.Trainer("both.dl", data=given, batch=9)
        assert one.data.train.count == (9 if isinstance(given, dict) and "train" in given else 5)
        one.fit()
        weights.append(b"".join(w.tobytes() for w in one.weights.values()))
    assert len(set(weights[:4])) == 1


SOUND = """dim N <= 16

model Ear(sound: f32[N, 64]) -> f32[N, 2] {
  return sound |> Dense[2]
}

train ear {
  data sound: f32[N, 64], label: i64[N] from "wav:tones/"
  minimize cross_entropy(Ear(sound), label) over Ear with SGD[0.1]
  batch 4
  save "ear.safetensors"
}
"""


def test_sound(tmp_path: Path, dslc: Run) -> None:
    import wave

    def tone(path: Path, step: int, rate: int = 8000, count: int = 50) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes((np.arange(2 * count) * step).astype("<i2").tobytes())

    for i in range(4):
        tone(tmp_path / "tones" / ("low", "high")[i % 2] / f"{i}.wav", i + 1)
    Path("ear.dl").write_text(SOUND)
    status, _, err = dslc("train", "ear.dl")
    assert status == 0, err
    status, out, err = dslc("run", "ear.dl", "--weights", "ear.safetensors", "--input", "sound=tones/low/0.wav", "--json")
    assert status == 0, err
    net = library.compile("ear.dl")
    net.load_weights("ear.safetensors")
    samples = np.zeros((1, 64), np.float32)
    samples[0, :50] = (np.arange(50) * 2 + 0.5) / 2**15
    assert np.array_equal(np.array(json.loads(out)["output"], np.float32), net(sound=samples))
    tone(tmp_path / "other.wav", 1, rate=16000)
    assert "16,000 samples a second" in dslc("run", "ear.dl", "--weights", "ear.safetensors", "--input", "sound=other.wav")[2]


def test_other_threads_run_while_a_program_does(dslc: Run) -> None:
    """The thread that makes batches ahead needs Python's lock, which a running program must not hold."""
    text = "model Long(x: f32[1024, 1024]) -> f32[1024, 1024] { return x @ x @ x @ x @ x @ x }"
    long, x = library.compile(text, threads=1), np.full((1024, 1024), 1e-3, np.float32)
    long(x=x)
    stamps: list[float] = []
    stop = threading.Event()

    def stamp() -> None:
        while not stop.is_set():
            stamps.append(perf_counter())
            stop.wait(0.001)

    thread = threading.Thread(target=stamp)
    thread.start()
    try:
        for _ in range(20):
            stamps.clear()
            begin = perf_counter()
            long(x=x)
            end = perf_counter()
            middle = sum(begin + 0.2 * (end - begin) < t < end - 0.2 * (end - begin) for t in stamps)
            if middle >= 5:
                return
    finally:
        stop.set()
        thread.join()
    raise AssertionError(f"{middle} stamps while a call of {end - begin:.3f} s was running")
