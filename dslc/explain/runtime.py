"""DL0650 to DL0665: calling compiled programs, loading artifacts and object code."""

from __future__ import annotations

from dslc.explain import Explanation

EXPLANATIONS = (
    Explanation(
        "DL0650",
        "An input is missing or unknown",
        "A program is called with every input of its signature by name, and with nothing else.",
        "net(img=batch)",
        "net(image=batch)",
        "python",
    ),
    Explanation(
        "DL0651",
        "An input has the wrong shape",
        """
        Sizes other than the batch were fixed when the program was compiled. A single example needs a leading axis of size 1, and images
        are laid out as channels, height, width.
        """,
        "net(image=np.zeros((28, 28), np.float32))",
        "net(image=np.zeros((1, 1, 28, 28), np.float32))",
        "python",
    ),
    Explanation(
        "DL0652",
        "An input has values that the program's type does not hold",
        """
        Arrays are converted where nothing is lost: u8 to f32, i32 to i64, integers that fit. Between floating types values are rounded. A
        float never becomes an integer and a number never a bool by itself, since that is more often a mistake than a wish.
        """,
        "net(token=np.array([0.5]))",
        "net(token=np.array([0]))",
        "python",
    ),
    Explanation(
        "DL0653",
        "The batch is out of range",
        """
        All inputs agree on the batch, which is at least 1 and at most the bound of the batch dimension. Any batch in between runs
        without compiling again.
        """,
        "net(image=np.zeros((300, 1, 28, 28)))  # dim N <= 256",
        "net(image=np.zeros((256, 1, 28, 28)))",
        "python",
    ),
    Explanation(
        "DL0654",
        "A setting is unknown, missing or of the wrong type",
        "Settings are scalars that a run may change without compiling again: the learning rate, the seed. One without a default has to be given.",
        "net(image=batch, seed=1.5)",
        "net(image=batch, seed=1)",
        "python",
    ),
    Explanation(
        "DL0655",
        "`out` does not fit the results",
        """
        `out` gives an array for every result: of the result's dtype and shape, C-contiguous, writeable, none overlapping another. It may
        overlap an input.
        """,
        'net(image=batch, out={"logits": np.zeros((64, 10))})',
        'net(image=batch, out={"logits": np.zeros((64, 10), np.float32)})',
        "python",
    ),
    Explanation(
        "DL0656",
        "An input is not an array of numbers",
        """
        Inputs are NumPy arrays, nested lists, or objects that lend their memory through DLPack or `__array__`. A tensor on a GPU, or one
        that tracks gradients, cannot be lent; a masked array has no single right reading.
        """,
        "net(image=torch_tensor.requires_grad_())",
        "net(image=torch_tensor.detach())",
        "python",
    ),
    Explanation(
        "DL0657",
        "There is no such program",
        "An executable holds the programs that were compiled into it, by name.",
        'executable.program("forwards")',
        'executable.program("forward")',
        "python",
    ),
    Explanation(
        "DL0658",
        "A kernel reported a failure",
        "A compiled kernel ended with a status other than 0. The message names the line of the source that it was made from. This is an error of dslc.",
        "(please report the file and the message)",
        "(compile again with --verify)",
        "text",
    ),
    Explanation(
        "DL0659",
        "Weights do not fit the program",
        """
        Every parameter and state has a value of its shape and type, and there are no others. The names are the parameters' paths;
        `dslc summary` lists them.
        """,
        "net.load_weights(weights_of_another_network)",
        "net.load_weights(weights)",
        "python",
    ),
    Explanation(
        "DL0660",
        "There is not enough memory",
        """
        The exact memory of a program is known before it runs, and the system has not that much. It grows with the batch; `dslc show
        --stage memory` says what takes it.
        """,
        "dslc train net.dl --batch 100000",
        "dslc train net.dl --batch 64",
        "sh",
    ),
    Explanation(
        "DL0661",
        "The program was compiled for another CPU",
        "Object code uses the features of the CPU that it was compiled on, AVX-512 for example. One that this CPU lacks would end the process, so the code is not loaded.",
        "(copying the cache of another machine)",
        "dslc compile net.dl",
        "text",
    ),
    Explanation(
        "DL0662",
        "Object code is missing or cannot be used",
        """
        The code of a kernel is not in the cache, is damaged, or calls something that a kernel must not call. Compiling again makes it anew.
        """,
        "(a cache entry was removed while the program was loaded)",
        "dslc compile net.dl",
        "text",
    ),
    Explanation(
        "DL0663",
        "This is no artifact, or it is damaged",
        """
        A `.dlc` file is written by `dslc compile` and `Program.save`. It is a safetensors file whose metadata holds a manifest; what is
        truncated, contradicts itself or exceeds the limits (a header of 16 MiB, 100,000 tensors) is refused before anything is run.
        """,
        'dslc.load("weights.safetensors")',
        'dslc.load("net.dlc")',
        "python",
    ),
    Explanation(
        "DL0664",
        "The artifact is from a later version of dslc",
        "The format of artifacts has a number, and this version of dslc reads up to its own.",
        'dslc.load("from-next-year.dlc")',
        "pip install --upgrade dslc",
        "text",
    ),
    Explanation(
        "DL0665",
        "The artifact cannot be written",
        "The folder does not exist, may not be written to, or the disk is full. What stood under the name before is still there.",
        'net.save("no/such/folder/net.dlc")',
        'net.save("net.dlc")',
        "python",
    ),
)
