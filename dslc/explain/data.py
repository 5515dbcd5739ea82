"""DL0701 to DL0717: data sets, from a name, a file or Python."""

from __future__ import annotations

from dslc.explain import Explanation

EXPLANATIONS = (
    Explanation(
        "DL0701",
        "There is no such data source",
        """
        A recipe names its data: "digits" comes with dslc, "shapes" and "tones" are made; "fashion-mnist", "mnist", "cifar10" and "brown"
        are read in their published formats; "npz:FILE", "csv:FILE", "series:FILE" and "text:FILE" read files of your own,
        "images:FOLDER/", "pairs:FOLDER/", "coco:FOLDER/", "wav:FOLDER/" and "text:FOLDER/" folders. Data that Python makes is given to
        `dslc.Trainer(..., data=...)`. See data.md.
        """,
        'data image: f32[N, 64], label: i64[N] from "digit"',
        'data image: f32[N, 64], label: i64[N] from "digits"',
        "text",
    ),
    Explanation(
        "DL0702",
        "A data file is not there",
        """
        Data sets are looked for in the folders given with --data, in their subfolders of the data set's name, and, for Fashion-MNIST,
        where Debian's package `dataset-fashion-mnist` puts it. Files of your own stand beside the .dl file or in a folder of --data.
        """,
        "dslc train lenet.dl",
        "apt install dataset-fashion-mnist\ndslc train lenet.dl --data ~/sets/fashion",
        "sh",
    ),
    Explanation(
        "DL0703",
        "A data file is damaged, or of another format",
        """
        Headers, sizes and checksums of data files are checked before they are used; a download that was cut off is the usual cause.
        npz files and CIFAR-10's Python version are read without unpickling: Python objects are refused, as they could run code.
        """,
        "curl -r 0-999999 -O .../train-images-idx3-ubyte.gz",
        "curl -O .../train-images-idx3-ubyte.gz",
        "sh",
    ),
    Explanation(
        "DL0704",
        "The data do not fit the declared field",
        """
        The recipe declares for each field a type and the shape of a batch, `image: f32[N, 1, 28, 28]`; the data have another shape, or
        values that this type does not hold. Axes of size 1 may be left out, and examples may be flat. Nothing is rounded or cut off
        unseen: fractions are not turned into integers, and integers out of range are refused.
        """,
        'data image: f32[N, 3, 8, 8], label: i64[N] from "digits"',
        'data image: f32[N, 1, 8, 8], label: i64[N] from "digits"',
        "text",
    ),
    Explanation(
        "DL0705",
        "A data file lies outside the folders it may lie in",
        """
        A .dl file may come from anywhere, so it reads data only from its own folder and from those that you give with --data; names with
        `..`, absolute names and links that lead out are refused.
        """,
        'data x: f32[N, 4], y: i64[N] from "csv:../../secret.csv"',
        'data x: f32[N, 4], y: i64[N] from "csv:plants.csv"',
        "text",
    ),
    Explanation(
        "DL0706",
        "The fields of the data are not all there",
        """
        Every declared field needs an array of its name, and all of them as many examples, at least one. An npz file may hold
        `train_image` and `test_image` instead of `image`.
        """,
        'numpy.savez("f.npz", image=x[:100], label=y[:99])',
        'numpy.savez("f.npz", image=x[:100], label=y[:100])',
        "python",
    ),
    Explanation(
        "DL0707",
        "A value in a table is missing or no number",
        """
        Every row of a CSV file needs a value in every column that is used. Empty cells, NA and NaN count as missing. They are not filled in,
        since any choice would change what is learned. A column of words is read as classes where its field is an integer.
        """,
        "x,y\n0.5,1\n,0",
        "x,y\n0.5,1\n0.25,0",
        "text",
    ),
    Explanation(
        "DL0708",
        "The columns of a table do not fit the fields",
        """
        The first row of a CSV file names its columns. A field of one number an example takes the column of its name, a field of four
        takes x0 to x3, or the columns that are left when there are four.
        """,
        "0.5,0.25,1\n0.125,0.75,0",
        "x0,x1,y\n0.5,0.25,1\n0.125,0.75,0",
        "text",
    ),
    Explanation(
        "DL0709",
        "The Python data cannot be read as examples",
        """
        Give a dictionary of arrays by field name, a tuple of arrays in the order of the fields, or an iterable of examples, each a tuple or
        a dictionary; for a test split, {"train": ..., "test": ...} of these.
        """,
        'dslc.Trainer("net.dl", data=(x,))',
        'dslc.Trainer("net.dl", data={"train": (x, y), "test": (x_test, y_test)})',
        "python",
    ),
    Explanation(
        "DL0710",
        "An option of the data does not hold",
        """
        `test` (a share to hold out) and `normalize` may stand behind any source. `fit` belongs to pictures, `columns` to tables,
        `count` and `seed` to generated examples.
        """,
        'data image: f32[N, 64], label: i64[N] from "digits" with test = 20',
        'data image: f32[N, 64], label: i64[N] from "digits" with test = 0.2',
        "text",
    ),
    Explanation(
        "DL0711",
        "A picture cannot be read",
        """
        Pictures are PNG and JPEG files, whole, of at most 67,108,864 pixels; masks with a class a pixel are grey or palette PNG files. The size
        is checked before the pixels are decoded, so that a small file cannot take all memory.
        """,
        "curl -r 0-9999 -O .../cat.jpg",
        "curl -O .../cat.jpg",
        "sh",
    ),
    Explanation(
        "DL0712",
        "A folder of examples is laid out in another way",
        """
        "images:" and "wav:" want a subfolder for each class, "pairs:" one for each field with files of the same names, "coco:"
        annotations.json and images/. Parts for training and test are the subfolders train/ and test/. See data.md.
        """,
        "pets/cat1.png  pets/cat2.png  pets/dog1.png",
        "pets/cat/1.png  pets/cat/2.png  pets/dog/1.png",
        "text",
    ),
    Explanation(
        "DL0713",
        "Annotations of pictures do not hold together",
        """
        A file of COCO instances lists images, annotations and categories. Every annotation names an image and a category of the file, and
        has a box [x, y, width, height] in pixels. A picture has no more boxes than the recipe declares.
        """,
        '{"images": [], "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5]}], "categories": []}',
        """{"images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}],
 "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5]}], "categories": [{"id": 1, "name": "cat"}]}""",
        "text",
    ),
    Explanation(
        "DL0714",
        "Sound cannot be read",
        """
        Sounds are RIFF WAVE files: PCM of 8, 16, 24 or 32 bits, or floats, whole, and all of one rate. Nothing is resampled.
        """,
        "ffmpeg -i a.mp3 -c:a adpcm_ms a.wav",
        "ffmpeg -i a.mp3 -c:a pcm_s16le -ar 16000 a.wav",
        "sh",
    ),
    Explanation(
        "DL0715",
        "The data would take more memory than there is",
        """
        What a file announces is compared with the machine's memory before any is taken. Folders of pictures and sounds are held in
        memory up to a quarter of it, and read for each batch beyond.
        """,
        'data image: f32[N, 3, 512, 512] from "npz:million_images.npz"',
        'data image: f32[N, 3, 512, 512] from "images:million_images/"',
        "text",
    ),
    Explanation(
        "DL0716",
        "Text that the vocabulary cannot spell",
        """
        A network that was trained on characters knows those of its text. Where a vocabulary is smaller than the text needs, its first
        symbol stands for all others; where it has them all, nothing does, and another character is refused.
        """,
        "dslc run gpt --weights gpt.safetensors --input tokens='text:\u20ac 5'",
        "dslc run gpt --weights gpt.safetensors --input tokens='text:5 Euros'",
        "sh",
    ),
    Explanation(
        "DL0717",
        "The library that reads this tokenizer is not installed",
        """
        A `tokenizer.json` may describe any of many algorithms; Hugging Face's library `tokenizers` reads them all. BERT's `vocab.txt`,
        bytes, characters and words need no library.
        """,
        'data x: i64[N, 64], y: i64[N, 64] from "text:book.txt" with level = "tokenizer.json"',
        "pip install 'dslc[text]'",
        "text",
    ),
)
