"""What an index file may say: what we write opens, and what FAISS should not read is refused."""

import functools
import io
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from faiss_layouts import ACCEPTED, codebooks_for, make_codebooks, width_of

import mecoq_index
from mecoq_index.engines.faiss import file_fields
from mecoq_index.engines.faiss.engine import FaissEngine
from mecoq_index.engines.faiss.factory import index_factory, read_index
from mecoq_index.engines.faiss.file_format import check_file
from mecoq_index.engines.faiss.gpu import gpu_twin
from mecoq_index.engines.faiss.reading import read_checked, write_index
from mecoq_index.errors import ArtifactError, InvalidInputError

faiss = pytest.importorskip("faiss")

N = 300


def make(K, string, n=N):
    """An index of `index_factory` with n items, and its codebooks."""
    books = codebooks_for(K, string)
    x = np.random.default_rng(1).standard_normal((N, width_of(books, string)), dtype=np.float32)
    index = index_factory(x.shape[1], string, books)
    index.train(x)
    if n:
        index.add_with_ids(x, np.arange(n) + 7) if "IDMap" in string else index.add(x)
    return index, books


def written(index):
    return faiss.serialize_index(index).tobytes()


@functools.cache
def full(K, string):
    """The content of the file of an index with items."""
    return written(make(K, string)[0])


def check(content, books=None):
    check_file(io.BytesIO(content), "x.faiss", books)


def layers(index):
    """The index and those inside it, outermost first."""
    inner = [index]
    for name in ("index", "base_index", "storage", "quantizer"):
        while hasattr(inner[-1], name):
            inner.append(faiss.downcast_index(getattr(inner[-1], name)))
    return inner


@pytest.mark.parametrize("K,string", ACCEPTED)
def test_every_layout_opens_full_and_empty(K, string):
    index, books = make(K, string, 0)
    check(written(index), books)
    check(full(K, string), books)
    if "IVF" in string:
        check(written(index_factory(width_of(books, string), string, books)), books)


@pytest.mark.parametrize("K,string", ACCEPTED)
@pytest.mark.parametrize("window", [16, 100, 1000])
def test_lists_larger_than_what_is_read_at_once_open(K, string, window, monkeypatch):
    monkeypatch.setattr(file_fields, "_AT_ONCE", window)
    check(full(K, string))


@pytest.mark.parametrize("K,string", ACCEPTED)
def test_every_layout_is_refused_wherever_it_is_cut_or_goes_on(K, string):
    content = full(K, string)
    for size in np.linspace(0, len(content) - 1, 40).astype(int):
        with pytest.raises(ArtifactError, match=r"x\.faiss (cannot be opened|is no)"):
            check(content[:size])
    with pytest.raises(ArtifactError, match="1 bytes follow after the end of the index"):
        check(content + b"\0")


@pytest.mark.parametrize("kind", ["Array", "Hashtable"])
def test_a_map_from_items_to_lists_may_be_there(kind):
    index, books = make(16, "IVF8,MeCoQ")
    index.set_direct_map_type(getattr(faiss.DirectMap, kind))
    content = written(index)
    check(content, books)
    place = index.direct_map.array if kind == "Array" else None
    if place is not None:
        faiss.rev_swig_ptr(place.data(), place.size())[3] = 9 << 32
        with pytest.raises(ArtifactError, match="names places that are in no list"):
            check(written(index))


@pytest.mark.parametrize("string", ["MeCoQ", "IVF8,MeCoQ"])
def test_the_twin_for_a_gpu_opens(string):
    index, books = make(256, string)
    check(written(gpu_twin(index)), books)


def set_everywhere(name, value):
    def change(index):
        for layer in layers(index):
            if hasattr(layer, name):
                setattr(layer, name, value)

    return change


def set_outermost(name, value):
    return lambda index: setattr(index, name, value)


def set_in_graph(name, value):
    def change(index):
        graph = next(layer for layer in layers(index) if hasattr(layer, "hnsw")).hnsw
        setattr(graph, name, value)

    return change


def set_in_vector(path, where, value):
    def change(index):
        first, *more = path.split(".")
        vector = getattr(next(layer for layer in layers(index) if hasattr(layer, first)), first)
        for name in more:
            vector = getattr(vector, name)
        faiss.rev_swig_ptr(vector.data(), vector.size())[where] = value

    return change


def set_list_id(value):
    def change(index):
        core = next(layer for layer in layers(index) if hasattr(layer, "invlists"))
        number = next(i for i in range(core.nlist) if core.invlists.list_size(i))
        faiss.rev_swig_ptr(core.invlists.get_ids(number), 1)[0] = value

    return change


def climb(index):
    """Link an item on level 1 to one that is on level 0 only, whose links there are others'."""
    graph = next(layer for layer in layers(index) if hasattr(layer, "hnsw")).hnsw
    levels = faiss.vector_to_array(graph.levels)
    high, low = int(np.flatnonzero(levels > 1)[0]), int(np.flatnonzero(levels == 1)[0])
    links = faiss.rev_swig_ptr(graph.neighbors.data(), graph.neighbors.size())
    place = graph.offsets.at(high) + graph.cum_nb_neighbors(1)
    links[place] = low


def empty_second(index):
    faiss.downcast_index(index.refine_index).reset()


REFINED, BIG = "MeCoQ4x4fs,Refine(MeCoQ)", 2**31 - 1
HOSTILE = [
    # What crashed, or took any amount of memory.
    (16, "MeCoQ4x4fs", set_everywhere("ntotal2", 2**40), "the number of items in blocks must be"),
    (16, "MeCoQ4x4fs", set_everywhere("ntotal", 2**40), "the number of items in blocks must be"),
    (16, REFINED, empty_second, "the number of items of IxPq inside IxRF must be 300, but is 0"),
    (16, "MeCoQ,RFlat", empty_second, "items of IxFI inside IxRF must be 300, but is 0"),
    (
        16,
        "IVF8,MeCoQ",
        set_outermost("ntotal", 2**40),
        "number of items in all lists must be 1099",
    ),
    (16, "HNSW8,MeCoQ", set_in_graph("efSearch", BIG), "efSearch must be from 1 to 65536"),
    (16, "IVF8_HNSW4,MeCoQ", set_in_graph("efSearch", BIG), "efSearch must be from 1 to 65536"),
    (16, "HNSW8,MeCoQ", set_in_graph("entry_point", 300), "the entry point of the graph must be"),
    (16, "HNSW8,MeCoQ", set_in_graph("max_level", 7), "the highest level must be"),
    (16, "HNSW8,MeCoQ", set_in_vector("hnsw.neighbors", 5, 300), "lead to one of 300 items"),
    (16, "HNSW8,MeCoQ", set_in_vector("hnsw.neighbors", 5, -2), "lead to one of 300 items"),
    (16, "HNSW8,MeCoQ", set_in_vector("hnsw.levels", 5, 60), "the levels of items must be"),
    (16, "HNSW8,MeCoQ", set_in_vector("hnsw.offsets", 5, 60), "offsets of links must fit"),
    (16, "HNSW8,MeCoQ", climb, "links on level 1 must lead to items on it"),
    (256, "IVF8,MeCoQ,IDMap2", set_list_id(N), "rows in lists must be below 300, but one is 300"),
    (256, "IVF8,MeCoQ,IDMap2", set_list_id(299), "lists must hold every row once, but some are"),
    (16, "IVF8,MeCoQ4x4fs,Refine(MeCoQ)", set_list_id(2**40), "rows in lists must be below 300"),
    (16, "IVF8,MeCoQ4x4fs", set_list_id(-5), "ids must be 0 or more, but one is -5"),
    # What was accepted, and meant something else.
    (16, "MeCoQ", set_everywhere("search_type", 1), "the kind of search must be 0, but is 1"),
    (16, "MeCoQ", set_everywhere("encode_signs", True), "flag for codes of signs must be False"),
    (16, "MeCoQ", set_everywhere("metric_type", 3), "the metric must be from 0 to 1, but is 3"),
    (16, "MeCoQ", set_everywhere("d", 20), "the width of the product quantizer must be 20, but"),
    (16, "MeCoQ4x4fs", set_everywhere("implem", 2), "the kind of search must be 0"),
    (16, "MeCoQ4x4fs", set_everywhere("bbs", 48), "blocks must be one of"),
    (16, "MeCoQ4x4fs", set_everywhere("qbs", 0x33333333), "the block of queries must be 0"),
    (
        16,
        REFINED,
        set_everywhere("k_factor", np.nan),
        "k_factor must be from 1 to 1000, but",
    ),
    (16, REFINED, set_everywhere("k_factor", 1e9), "k_factor must be from 1 to"),
    (16, "IVF8,MeCoQ", set_everywhere("nprobe", 0), "nprobe must be from 1 to 8, but is 0"),
    (16, "IVF8,MeCoQ", set_everywhere("nprobe", 9), "nprobe must be from 1 to 8, but is 9"),
    (16, "IVF8(Flat),MeCoQ4x4fs", set_everywhere("bbs", 64), "block of lists must be 64, but is"),
    (256, "MeCoQ4x8,IDMap2", set_in_vector("id_map", 3, -1), "ids must be 0 or more, but one is"),
]


@pytest.mark.parametrize("K,string,change,message", HOSTILE)
def test_what_faiss_should_not_read_is_refused(K, string, change, message, tmp_path):
    index, books = make(K, string)
    change(index)
    content = written(index)
    with pytest.raises(ArtifactError, match=rf"x\.faiss cannot be opened: .*{re.escape(message)}"):
        check(content, books)
    (tmp_path / "x.faiss").write_bytes(content)
    for opened in (read_index, lambda path: FaissEngine.open(path, books)):
        with pytest.raises(ArtifactError, match=re.escape(message)):
            opened(tmp_path / "x.faiss")


@pytest.mark.parametrize(
    "string,message",
    [
        ("Flat", "'IxFI'"),
        ("SQ8", "'IxSQ'"),
        ("IVF4,Flat", "'IwFl'"),
        ("IVF4,SQ8", "'IwSq'"),
        ("HNSW4,Flat", "'IHNf'"),
        ("OPQ4,PQ4x4", "a transform of the kind 'LTra'|'rrot'|'PcAm'"),
        ("IVF128_NSG4,PQ4x4np", "'INSf'"),
        ("RaBitQ", "'Ixrr'|'Ixrq'"),
        ("LSH", "'IxHe'"),
    ],
)
def test_other_indexes_of_faiss_are_named(string, message):
    metric = faiss.METRIC_L2 if string == "LSH" else faiss.METRIC_INNER_PRODUCT
    index = faiss.index_factory(16, string, metric)
    x = np.random.default_rng(0).standard_normal((700, 16), dtype=np.float32)
    index.train(x)
    if string == "OPQ4,PQ4x4":  # a learned rotation is a linear transform like ours
        index.add(x)
        check(written(index))
        return
    with pytest.raises(ArtifactError, match=rf"x\.faiss is refused: .*({message})"):
        check(written(index))


def test_a_graph_may_not_take_more_than_the_file_for_distances_between_codewords():
    books = make_codebooks(M=4097, K=256, Ds=1)
    check(written(index_factory(books.D, "MeCoQ", books)), books)
    with pytest.raises(InvalidInputError, match=r"too many for M=4097\. .* 'MeCoQ4097x8'"):
        index_factory(books.D, "HNSW4,MeCoQ", books)
    content = written(faiss.IndexHNSWPQ(books.D, books.M, 4, 8))
    with pytest.raises(ArtifactError, match="over M=4097 codes of 8 bits would take too much"):
        check(content)


def test_wrappers_out_of_order_or_twice_are_refused():
    index, _ = make(16, "MeCoQ")
    index.reset()
    for wrapped in (faiss.IndexIDMap2(faiss.IndexIDMap(index)),):
        with pytest.raises(ArtifactError, match="an index of the kind 'IxMp', which this package"):
            check(written(wrapped))


def test_lists_in_another_file_are_refused_and_that_file_is_not_touched(tmp_path):
    index, books = make(16, "IVF8,MeCoQ")
    outside = tmp_path / "outside"
    lists = faiss.OnDiskInvertedLists(8, index.code_size, str(outside))
    lists.merge_from(index.invlists, 0)
    index.replace_invlists(lists, False)
    path = tmp_path / "x.faiss"
    faiss.write_index(index, str(path))
    outside.write_bytes(bytes(199_992))
    for opened in (read_index, lambda path: FaissEngine.open(path, books)):
        with pytest.raises(ArtifactError, match="its inverted lists are of the kind 'ilod', which"):
            opened(path)
    assert outside.read_bytes() == bytes(199_992)


def test_lists_without_centroids_are_not_taken_room_for():
    books = codebooks_for(16, "IVF8,MeCoQ")
    content = written(index_factory(16, "IVF8,MeCoQ", books))
    check(content)
    old, new = struct.pack("<QQ", 8, 1), struct.pack("<QQ", 2**30, 1)
    assert content.count(old) == 1
    with pytest.raises(ArtifactError, match="the number of lists must be from 1 to 1048576, but"):
        check(content.replace(old, new))


def test_other_codebooks_are_told_apart_before_faiss_reads_the_file(tmp_path, monkeypatch):
    index, _ = make(16, "MeCoQ")
    faiss.write_index(index, str(tmp_path / "x.faiss"))
    monkeypatch.setattr(faiss, "read_index", lambda *args: pytest.fail("FAISS has read it"))
    for other in (make_codebooks(seed=1), make_codebooks(K=256), make_codebooks(M=8, Ds=2)):
        with pytest.raises(ArtifactError, match="holds other codebooks than the ones given"):
            FaissEngine.open(tmp_path / "x.faiss", other)


def test_files_of_any_name_are_written_and_read(tmp_path):
    index, books = make(16, "IVF4,MeCoQ4x4")
    path = tmp_path / os.fsdecode(b"caf\xe9\n\xff.faiss")
    try:
        path.touch()
    except OSError:
        pytest.skip("this system takes names in UTF-8 only")
    write_index(index, path)
    assert path.read_bytes() == written(index)
    assert read_index(path).ntotal == N
    assert written(read_checked(path, codebooks=books)) == written(index)


def test_a_disk_that_is_full_is_an_error_of_the_system(capfd):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no disk that is always full")
    index, _ = make(16, "MeCoQ4x4")
    with pytest.raises(OSError, match="No space left on device"):
        write_index(index, Path("/dev/full"))
    assert capfd.readouterr() == ("", "")  # FAISS prints by itself what Python raises


def test_faiss_reads_and_writes_files_at_one_door_only():
    reads = re.compile(r"\b(read_index|deserialize_index|read_VectorTransform|read_\w+)\(")
    known = set(dir(faiss))
    found = []
    for path in sorted(Path(mecoq_index.__file__).parent.rglob("*.py")):
        for line in path.read_text(encoding="utf-8").splitlines():
            for name in reads.findall(line):
                if name in known and re.search(rf"(faiss|import_faiss\(\))\.{name}\(", line):
                    found.append((path.name, name))
            found += [(path.name, "write_index")] if "faiss.write_index(" in line else []
    assert sorted(set(found)) == [("reading.py", "read_index"), ("reading.py", "write_index")]
