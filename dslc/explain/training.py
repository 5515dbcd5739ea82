"""DL0720 to DL0732: settings of a run, checkpoints, and what goes wrong while training."""

from __future__ import annotations

from dslc.explain import Explanation

EXPLANATIONS = (
    Explanation(
        "DL0720",
        "A setting of the recipe is out of range or unknown",
        """
        epochs, steps and batch are positive, the seed is from 0 to 2^63 - 1, and the batch fits the bound of the batch dimension. `--set`
        changes what the recipe names, such as a learning rate.
        """,
        "dslc train lenet.dl --batch 0",
        "dslc train lenet.dl --batch 64",
        "sh",
    ),
    Explanation(
        "DL0721",
        "There is no checkpoint to resume from",
        """
        `--resume` goes on from the file that the recipe's `save` statement names, in the folder of the run. A recipe without `save` leaves
        nothing to go on from. Where the file is only not written yet, training begins at the beginning.
        """,
        "train t { ... epochs 5 }",
        'train t { ... epochs 5  save Net as "net.safetensors" with every = 1 }',
        "text",
    ),
    Explanation(
        "DL0722",
        "A checkpoint is damaged",
        """
        A checkpoint carries a checksum of its position and of every tensor, and the file does not fit it. dslc writes a checkpoint under
        another name and renames it when it is safely on disk, so a crash does not damage one; copying or the disk may have.
        """,
        "head -c 1000 net.safetensors > copy.safetensors",
        "cp net.safetensors copy.safetensors",
        "sh",
    ),
    Explanation(
        "DL0723",
        "The file is no checkpoint of this dslc",
        """
        The file is in the safetensors format but holds only tensors, as weights from elsewhere do, or a newer dslc wrote it. Weights are read
        with a `load` statement or --weights; a training run resumes only from its own checkpoint.
        """,
        "dslc train net.dl --resume   # net.safetensors was downloaded",
        "dslc run net.dl --weights net.safetensors --input image=x.npy",
        "sh",
    ),
    Explanation(
        "DL0724",
        "The checkpoint does not fit the program",
        """
        The model or its optimizer was changed since: names, shapes or types of the tensors differ, and the message lists which. Nothing is
        loaded in part.
        """,
        "dslc train net.dl --resume   # after a layer was added",
        "dslc train net.dl",
        "sh",
    ),
    Explanation(
        "DL0725",
        "A file of the run cannot be written",
        """
        The folder is missing or may not be written, or the disk is full. An older checkpoint stays as it was: it is replaced only when the
        new one is whole on disk.
        """,
        "dslc train net.dl   # on a full disk",
        "df -h .",
        "sh",
    ),
    Explanation(
        "DL0726",
        "Training met NaN or an infinity",
        """
        The loss, a parameter or a state became infinite or NaN; from there on everything would be NaN, so training stops. The step that
        failed is made again operator by operator, and the message names the first that made NaN or an infinity of finite numbers, in the forward
        pass, the backward pass or the update, with its place in the file. The run stands before that step, and `dslc train F --replay STEP`
        shows it again. The usual causes are a learning rate that is too large, a logarithm, root or division of zero, and data that are not
        scaled. `--no-check` turns the watch off.
        """,
        "dslc train net.dl --set lr=10",
        "dslc train net.dl --set lr=0.001",
        "sh",
    ),
    Explanation(
        "DL0727",
        "The run would go on with another seed or other data",
        """
        A resumed run has the same bits as one that was not interrupted. With another seed or other examples it would be neither
        the old run nor a new one.
        """,
        "dslc train net.dl --resume --seed 8   # begun with seed 7",
        "dslc train net.dl --resume --seed 7",
        "sh",
    ),
    Explanation(
        "DL0728",
        "A recipe saves outside the folder of the run",
        """
        A .dl file may come from anywhere, so the names in it stay within the folder that you run it in: no absolute name, no `..`.
        """,
        'save Net as "/home/me/.bashrc"',
        'save Net as "net.safetensors"',
        "text",
    ),
    Explanation(
        "DL0729",
        "A PNG of the curves needs matplotlib",
        "The curves are drawn as SVG without any library; for PNG matplotlib has to be installed.",
        "pip install dslc",
        "pip install 'dslc[plot]'",
        "sh",
    ),
    Explanation(
        "DL0730",
        "Training would take more memory than the recipe's budget",
        """
        The memory of a training step is known exactly before it runs: parameters, optimizer states and the arena at the recipe's batch.
        `budget 2GiB` refuses more than that.
        """,
        "batch 4096  budget 64MiB",
        "batch 64  budget 64MiB",
        "text",
    ),
    Explanation(
        "DL0731",
        "A metric in Python cannot be used",
        """
        A metric in Python is a function that is called after each evaluation with arrays over the whole test split. Its parameters name
        what it wants, data or tensors of the recipe with a row for each example, and it gives one number. Its name is not one that the
        recipe has already.
        """,
        'dslc.Trainer("net.dl", metrics={"mAP": lambda *everything: ...})',
        'dslc.Trainer("net.dl", metrics={"mAP": lambda boxes, label: ...})',
        "python",
    ),
    Explanation(
        "DL0732",
        "There is no such step to replay",
        """
        Steps count from 1 to the end of the run. A step is replayed from the beginning, from the checkpoint or from where a failed run stopped,
        whichever is nearest before it.
        """,
        "dslc train net.dl --steps 100 --replay 1000",
        "dslc train net.dl --steps 100 --replay 100",
        "sh",
    ),
)
