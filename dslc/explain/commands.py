"""DL0801 to DL0809, DL0820 to DL0822, DL0830 to DL0833, DL0904: sources, weights, inputs and results of the Python interface and the command line."""

from __future__ import annotations

from dslc.explain import Explanation

EXPLANATIONS = (
    Explanation(
        "DL0801",
        "There is no such source",
        """
        A source is a path, or the name of a network that comes with dslc where no such file exists. From Python, text with a line break or a
        brace is taken as the source itself.
        """,
        "dslc train lennet",
        "dslc train lenet",
        "sh",
    ),
    Explanation(
        "DL0802",
        "The weights cannot be read",
        """
        Weights are files in the safetensors format: what training saves, what `save_weights` writes, or files from elsewhere. A .dlc artifact
        holds weights too.
        """,
        "dslc run lenet --weights lenet.pt --input image=x.npy",
        "dslc run lenet --weights lenet.safetensors --input image=x.npy",
        "sh",
    ),
    Explanation(
        "DL0803",
        "A file cannot be written",
        "The folder must exist and may be written. Files are written under another name and renamed, so an older one is untouched.",
        "dslc run lenet --input image=x.npy -o /nowhere/y.npz",
        "dslc run lenet --input image=x.npy -o y.npz",
        "sh",
    ),
    Explanation(
        "DL0804",
        "The weights do not fit the model",
        """
        The tensors of the file and those of the model must be the same by path and shape; the message lists what is missing, left over or of
        another shape. Nothing is loaded in part. Tensors of an optimizer, whose names have a slash, are passed over. Weights of another network
        are brought to these names with `rename`, `fresh` and `layout`. The layout "torch" pairs tensors in the order of definition, which a
        file does not keep; where names and shapes leave a choice, it is named and has to be made with `rename`.
        """,
        'net.load_weights({"LeNet.head.w": w})',
        "net.load_weights(other.weights)",
        "python",
    ),
    Explanation(
        "DL0805",
        "There is no such stage or pass",
        "The stages are graph, clusters, loops, kernels, memory and asm. With `--after PASS` the graph after an earlier pass is printed.",
        "dslc show lenet --after fusion",
        "dslc show lenet --after autodiff",
        "sh",
    ),
    Explanation(
        "DL0806",
        "Weights cannot be renamed so",
        """
        `rename` is a list of pairs of a pattern and a new name, or `None` to drop the tensor; `fresh` is a list of patterns; the only layout is
        "torch". In a pattern `*` stands for any characters, and each `*` of the new name for what the `*` at its place stood for. Names are
        relative to the model. A pattern that fits nothing is a mistake.
        """,
        'net.load_weights("f.safetensors", rename=[("head", "*.w")])',
        'net.load_weights("f.safetensors", rename=[("fc.*", None), ("trunk.*", "stem.*")], fresh=["head.*"])',
        "python",
    ),
    Explanation(
        "DL0807",
        "A network cannot be built so",
        """
        `dslc.Builder` takes names that the language takes, sizes from 1 to 2^31 - 1, the name N for the batch as the first size of an input, the
        language's element types, initialisers and operators. `to_dl` refuses what the language has no spelling for, such as a constant array.
        """,
        'b.input("x", "f32", ("T", 4))',
        'b.input("x", "f32", ("N", 4))',
        "python",
    ),
    Explanation(
        "DL0808",
        "An input or result file does not serve",
        """
        Inputs come from .npy and .npz files, for inputs that are pictures from .png and .jpg, for sounds from .wav: these are brought to size
        and scaled as the data of training were. Results go to .npz, a single one also to .npy.
        """,
        "dslc run lenet --input image=shoe.gif",
        "dslc run lenet --input image=shoe.png",
        "sh",
    ),
    Explanation(
        "DL0809",
        "A pattern matches no value",
        """
        `--dump` names values inside a model by the place of their operation in the source and its kind, such as 5:30.matmul; `*` stands for
        anything, and a kind alone for all values of that kind.
        """,
        "dslc run digits --input image=x.npy --dump '*softplus'",
        "dslc run digits --input image=x.npy --dump '*relu'",
        "sh",
    ),
    Explanation(
        "DL0820",
        "There is no such operator or block",
        "`dslc ops` lists the operators by family and the blocks, optimizers and schedules of the library.",
        "dslc ops Conv3D",
        "dslc ops Conv2D",
        "sh",
    ),
    Explanation(
        "DL0821",
        "An export leads out of the folder",
        """
        What a source exports is written to the folder in which `dslc compile` runs: a source cannot choose another. `-o` can.
        """,
        'export Net as "../net.dlc"',
        'export Net as "net.dlc"',
        "text",
    ),
    Explanation(
        "DL0822",
        "Copies of weights cannot be set",
        """
        `program.weights` and `trainer.weights` are copies, as they were when they were asked for. Setting one of them would change no network.
        `load_weights` sets all weights of a program, from a dictionary that may be made of these copies.
        """,
        'net.weights["Net.head.b"] = b',
        'net.load_weights(net.weights | {"Net.head.b": b})',
        "python",
    ),
    Explanation(
        "DL0830",
        "An operator cannot be translated",
        """
        `dslc bench --against` runs the same network in other libraries: its graph, operator by operator. Where one has no counterpart, the
        comparison is refused rather than made of another network. The message names the operator and the library.
        """,
        "dslc bench detector:Detect --against onnxruntime",
        "dslc bench detector:Detector --against onnxruntime",
        "sh",
    ),
    Explanation(
        "DL0831",
        "A training step cannot be compared",
        """
        Training is compared with PyTorch, whose own optimizer must move parameters as the recipe does: SGD, Adam or AdamW, without clipping by
        the norm of all gradients, moving averages or accumulated gradients.
        """,
        "dslc bench lenet --train --against onnxruntime",
        "dslc bench lenet --train --against torch",
        "sh",
    ),
    Explanation(
        "DL0832",
        "A library to compare with is not there",
        "`--against` takes torch, torch.compile and onnxruntime, with commas between; each must be installed, onnxruntime with the package onnx.",
        "dslc bench lenet --against tensorflow",
        "dslc bench lenet --against torch,onnxruntime",
        "sh",
    ),
    Explanation(
        "DL0833",
        "A contender ended early",
        "The process of one library of a comparison ended before it was measured: the message has its last words. Memory may be short.",
        "dslc bench vgg:VGG16 --batch 4096 --against torch",
        "dslc bench vgg:VGG16 --batch 8 --against torch",
        "sh",
    ),
    Explanation(
        "DL0904",
        "The target cannot run programs",
        """
        Programs run on the CPU. For CUDA there is a probe, which writes kernels and their launches: `dslc compile F --target cuda -o folder`.
        """,
        'dslc.compile("lenet", target="cuda")',
        'dslc.compile("lenet", target="cpu")',
        "python",
    ),
)
