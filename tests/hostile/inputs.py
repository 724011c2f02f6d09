"""Good inputs of every kind that commands take, in every format that they read.

A new format is attacked once it has a line in `WRITERS`, or a file in `FORMATS`.
"""

import json
from pathlib import Path

import numpy as np

N, P, M, K = 40, 16, 4, 16


def _npy(path, x):
    np.save(path, x)


def _npz(path, x):
    np.savez(path, features=x)


def _bin(path, x):
    head = np.array(np.shape(x)[:2], "<u4")
    path.write_bytes(head.tobytes() + _plain(path, x).tobytes())


def _vecs(path, x):
    rows = _plain(path, x)
    width = np.array([rows.shape[1]], "<i4").tobytes()
    path.write_bytes(b"".join(width + row.tobytes() for row in rows))


def _plain(path, x):
    if x.ndim != 2 or x.dtype.kind not in "fiu":
        raise TypeError("the format holds matrices of one type")
    return np.ascontiguousarray(x, np.uint8 if path.suffix in (".u8bin", ".bvecs") else "<f4")


def _hdf5(path, x):
    import h5py

    with h5py.File(path, "w") as file:
        file["train"] = x


def table(x):
    """A table of vectors with a name, a number and a label for each."""
    import pyarrow

    return pyarrow.table(
        {
            "v": list(x),
            "name": [f"item {i}" for i in range(len(x))],
            "year": np.arange(len(x)) + 1990,
            "label": np.arange(len(x)) % 3,
        }
    )


def _parquet(path, x):
    import pyarrow.parquet

    pyarrow.parquet.write_table(table(x), path, row_group_size=16)


def _arrow(path, x):
    import pyarrow

    made = table(x)
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_file(sink, made.schema) as file:
        file.write_table(made)


# How a matrix is written, by the suffix of the file.
WRITERS = {
    ".npy": _npy,
    ".npz": _npz,
    ".fbin": _bin,
    ".u8bin": _bin,
    ".fvecs": _vecs,
    ".bvecs": _vecs,
    ".hdf5": _hdf5,
    ".h5": _hdf5,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
}

# The inputs of each kind, by their names in the folder that `make` fills; the first is the usual.
FORMATS = {
    "vectors": [*(f"x{suffix}" for suffix in WRITERS), "parts"],
    "few": ["few.npy", "few.fvecs", "few.parquet"],
    "table": ["x.parquet", "x.arrow"],
    "codes": ["codes.npy", "codes.bvecs"],
    "views": ["views.npz", "views.npy"],
    "pack": ["pack.npz", "pack.hdf5"],
    "photos": ["photos", "query.png"],
    "image": ["query.png", "query.jpg", "query.gif", "query.bmp", "query.webp", "query.tif"],
    "codebooks": ["c.safetensors", "c.pt", "c.npy", "model.cpt"],
    "network": ["net.safetensors", "net.pt"],
    "index": ["named.mecoq", "flat.mecoq", "graph.mecoq", "fast.mecoq", "arrays.mecoq"],
    "plain": ["flat.mecoq", "ids.mecoq", "graph.mecoq", "fast.mecoq", "arrays.mecoq"],
    "ivf": ["ids.mecoq"],
    "numbered": ["ids.mecoq", "arrays.mecoq"],
    "album": ["photos.mecoq"],
    "part": ["part1.mecoq"],
    "other": ["part2.mecoq"],
    "ids": ["names.txt", "ids.npy", "ids.parquet"],
    "more_ids": ["more.npy"],
    "gone": ["gone.txt"],
    "labels": ["labels.npy", "labels.txt"],
    "few_labels": ["few_labels.npy"],
    "config": ["config.json"],
    "database": ["items.db"],  # of milvus-lite; the collection is called items
}


def make(folder):
    """Write all inputs into a folder."""
    import torch

    from mecoq_index import Codebooks

    folder = Path(folder)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, P)).astype(np.float32)
    for suffix, write in WRITERS.items():
        write(folder / f"x{suffix}", x)
    for suffix in (".npy", ".fvecs", ".parquet"):
        WRITERS[suffix](folder / f"few{suffix}", x[:8] + np.float32(0.01))
    (folder / "parts").mkdir()
    for part in range(2):
        np.save(folder / "parts" / f"{part}.npy", x[part * 20 : part * 20 + 20])
    codes = rng.integers(K, size=(N, M)).astype(np.uint8)
    np.save(folder / "codes.npy", codes)
    _vecs(folder / "codes.bvecs", codes)
    views = x + 0.1 * rng.standard_normal((3, N, P)).astype(np.float32)
    np.save(folder / "views.npy", views)
    np.savez(
        folder / "views.npz",
        **{f"view{i}": view for i, view in enumerate(views)},
        features=x,
        paths=[f"item {i}" for i in range(N)],
        labels=np.arange(N) % 3,
    )
    np.savez(folder / "pack.npz", database=x, queries=x[:8], database_labels=np.arange(N) % 3,
             query_labels=np.arange(8) % 3)  # fmt: skip
    _pack(folder / "pack.hdf5", x)
    (folder / "names.txt").write_text("".join(f"item {i}\n" for i in range(N)))
    (folder / "gone.txt").write_text("item 3\nitem 7\n")
    np.save(folder / "ids.npy", np.arange(N) * 3 + 5)
    np.save(folder / "more.npy", np.arange(8) + 10**12)
    _ids_table(folder / "ids.parquet")
    np.save(folder / "labels.npy", np.arange(N) % 3)
    np.save(folder / "few_labels.npy", np.arange(8) % 3)
    (folder / "labels.txt").write_text("".join(f"{i % 3}\n" for i in range(N)))
    centers = rng.standard_normal((M, K, P // M)).astype(np.float32)
    centers /= np.linalg.norm(centers, axis=-1, keepdims=True)
    books = Codebooks(centers)
    books.save(folder / "c.safetensors")
    books.save(folder / "c.pt")
    np.save(folder / "c.npy", centers)
    official = {"pq_layer._C": centers, "projection.weight": np.eye(P, dtype=np.float32),
                "projection.bias": np.zeros(P, np.float32)}  # fmt: skip
    torch.save({name: torch.from_numpy(x) for name, x in official.items()}, folder / "model.cpt")
    _images(folder, rng)
    _indexes(folder)


def _pack(path, x):
    import h5py

    with h5py.File(path, "w") as file:
        file["train"], file["test"] = x, x[:8]


def _ids_table(path):
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"id": np.arange(N) + 100}), path)


def _images(folder, rng):
    from PIL import Image

    for name in ("cats", "dogs"):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.png")
    for file in FORMATS["image"]:
        Image.fromarray(pixels).save(folder / file)


def _indexes(folder):
    from mecoq_index import Codebooks, train
    from mecoq_index.cli import main
    from mecoq_index.learn.config import TrainConfig

    def run(command):
        words = [word if word.startswith("-") or "." not in word else str(folder / word)
                 for word in command.split()]  # fmt: skip
        main([*words, "--quiet"], standalone_mode=False)

    build = "build x.npy --codebooks c.safetensors --out"
    run("build x.parquet --codebooks c.safetensors --out named.mecoq --factory IVF2,MeCoQ "
        "--vector-column v --id-column name --columns year")  # fmt: skip
    run(f"{build} flat.mecoq")
    run(f"{build} ids.mecoq --factory IVF2,MeCoQ --ids ids.npy")
    run(f"{build} graph.mecoq --factory HNSW4,MeCoQ")
    run(f"{build} fast.mecoq --factory IVF2,MeCoQ4x4fs,Refine(MeCoQ4x4)")
    run(f"{build} arrays.mecoq --engine numpy")
    run("build x.npy --codebooks c.safetensors --engine milvus --uri items.db --collection items")
    run(f"{build} part1.mecoq --shards 1/2")
    run(f"{build} part2.mecoq --shards 2/2")
    config = TrainConfig.from_dict(
        {
            "epochs": 1,
            "num_codebooks": 4,
            "num_codewords": 16,
            "batch_size": 8,
            "dim": 16,
            "objective": {"neighbors": 2},
        }
    )
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    train(folder / "photos", out=folder / "net.pt", bits=16, codewords=16, image_size=16,
          backbone="mecoq:small", batch_size=2, epochs=1, progress=None)  # fmt: skip
    Codebooks.load(folder / "net.pt").save(folder / "net.safetensors")
    main(["build", str(folder / "photos"), "--codebooks", str(folder / "net.pt"), "--quiet",
          "--out", str(folder / "photos.mecoq")], standalone_mode=False)  # fmt: skip
