"""Names of files, numbers and settings that nobody types by mistake."""

import json
import os

import numpy as np
import pytest
from click.testing import CliRunner

from mecoq_index._arguments import whole_number
from mecoq_index._json import parse_json
from mecoq_index.cli import main
from mecoq_index.cli._output import Output, visible
from mecoq_index.codebooks import Codebooks
from mecoq_index.data.metadata import check_names, load_ids, load_labels, write_names
from mecoq_index.errors import ArtifactError, InvalidInputError
from mecoq_index.index.index import Index, open_index
from mecoq_index.index.manifest import checksum
from mecoq_index.index.merge import merge_bundles
from mecoq_index.learn.config import TrainConfig
from mecoq_index.scoring import encode

BOOKS = Codebooks(np.eye(4, dtype=np.float32)[None].repeat(2, axis=0))
ODD = "a\x1b[31m\nb\u202e\x85c\udcff\u2028.jpg"


def test_controls_are_shown_and_everything_else_stays():
    assert visible(ODD) == r"a\x1b[31m\nb\u202e\x85c\xff\u2028.jpg"
    assert visible("über 写真 👩‍👩‍👧 می‌خواهم \\n") == "über 写真 👩‍👩‍👧 می‌خواهم \\n"
    for code in [*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]:
        assert visible(chr(code)).isprintable()


@pytest.mark.parametrize("options", [[], ["--\x1b[31m"], ["\x1b[31m"], ["inspect", ODD[:-5]]])
def test_no_control_reaches_the_terminal_by_an_error(options):
    done = CliRunner().invoke(main, options)
    assert done.exit_code in (0, 2)
    assert "\x1b" not in done.output
    assert "\u202e" not in done.output


def test_names_of_items_are_printed_visibly_and_in_json_exactly(tmp_path):
    z = np.eye(8, dtype=np.float32)
    names = [ODD, *map(str, range(7))]
    Index.build(z, BOOKS, out=tmp_path / "x", engine="numpy", names=names, progress=False)
    np.save(tmp_path / "q.npy", z[:1])
    command = ["search", str(tmp_path / "x"), str(tmp_path / "q.npy"), "-k", "1"]
    shown = CliRunner().invoke(main, command)
    assert visible(ODD) in shown.stdout
    assert "\x1b" not in shown.output
    listed = CliRunner().invoke(main, [*command, "--json"])
    assert json.loads(listed.stdout)["hits"][0]["name"] == ODD


def test_json_for_scripts_is_json(capsys):
    Output(as_json=True).print_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": "\udcff"})
    printed = capsys.readouterr().out
    assert json.loads(printed, parse_constant=pytest.fail) == {
        "a": None, "b": [None, 1.5], "c": "\udcff",
    }  # fmt: skip


def test_what_to_try_next_can_be_pasted(capsys):
    Output().done("done", {}, next_command=("mecoq-index", "search", "a; rm -rf x", "QUERY"))
    assert "now try: mecoq-index search 'a; rm -rf x' QUERY" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names", [["\ufeffa", "b"], ["caf\udce9.jpg", " \t\x1b\x85\u2028"], ["", ""]]
)
def test_names_come_back_from_a_text_file(names, tmp_path):
    check_names(names)
    write_names(tmp_path / "z.names.txt", names)
    assert load_ids(tmp_path / "z.names.txt") == names


@pytest.mark.parametrize(
    "name,message", [("a\nb", "line break"), ("a\r", "line break"), ("\ud800", "must be text")]
)
def test_names_that_would_shift_the_others_are_refused(name, message):
    with pytest.raises(InvalidInputError, match=message):
        check_names(["good", name])


def test_a_name_with_a_line_break_is_refused_before_the_work(tmp_path):
    from mecoq_index.embed.files import write_embeddings

    image = pytest.importorskip("PIL.Image")
    (tmp_path / "photos").mkdir()
    image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a\nb.png")
    with pytest.raises(InvalidInputError, match=r"'a\\nb.png' holds a line break"):
        write_embeddings(tmp_path / "photos", BOOKS, tmp_path / "z.npy")
    assert os.listdir(tmp_path) == ["photos"]


def test_images_whose_names_are_no_utf_8_have_a_fingerprint(tmp_path):
    from mecoq_index.data.images import ImageFiles, fingerprint

    paths = [tmp_path / "caf\udce9.jpg", tmp_path / "b.jpg"]
    assert len(fingerprint(ImageFiles(paths, tmp_path))) == 64


@pytest.mark.parametrize(
    "text,number",
    [("12", 12), ("-3", -3), ("+0", 0), ("9" * 18, 10**18 - 1)]
    + [(text, None) for text in ("²", "٣", "", "--5", "1.0", "1_0", " 1", "9" * 19, "9" * 5000)],
    ids=ascii,
)
def test_numbers_in_text_are_ascii_and_short(text, number):
    assert whole_number(text) == number


def test_labels_that_only_look_like_numbers_are_names(tmp_path):
    (tmp_path / "l.txt").write_text("²\n--5\n" + "9" * 5000 + "\n", encoding="utf-8")
    assert sorted(load_labels(tmp_path / "l.txt")) == [0, 1, 2]


@pytest.mark.parametrize(
    "text,message",
    [
        ("[" * 20_000, "nested more than 50 deep"),
        ("[" * 60 + "]" * 60, "nested more than 50 deep"),
        ('{"a": NaN}', "not finite"),
        ("1e999", "not finite"),
        ("9" * 30, "more than 64 bits"),
        ("9" * 5000, "integer string conversion"),
        (b"\xff", "utf-8"),
        ("", "Expecting value"),
    ],
    ids=range(8),
)
def test_json_of_others_is_refused_where_it_is_odd(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_settings_nested_20000_deep_are_one_sentence(tmp_path):
    (tmp_path / "c.json").write_text('{"a":' * 20_000)
    with pytest.raises(ArtifactError, match=r"no JSON file: it is nested more than 50 deep"):
        TrainConfig.from_json(tmp_path / "c.json")


@pytest.mark.parametrize("setting", ["dim", "hidden_dim", "memory_size", "epochs", "batch_size"])
def test_settings_have_a_highest_value(setting):
    with pytest.raises(InvalidInputError, match=f"{setting} must be at most"):
        TrainConfig().replace(**{setting: 10**9})


@pytest.mark.parametrize(
    "options",
    [
        ["embed", ".", "--out", "x.npz", "--backbone", "a:b", "--views", "100000000"],
        ["embed", ".", "--out", "x.npz", "--backbone", "a:b", "--image-size", "1000000000"],
        ["embed", ".", "--out", "x.npz", "--backbone", "a:b", "--seed", str(2**70)],
        ["embed", ".", "--out", "x.npz", "--backbone", "a:b", "--workers", "100000"],
        ["build", ".", "--codebooks", ".", "--out", "x", "--shards", "²/4"],
        ["build", ".", "--codebooks", ".", "--out", "x", "--shards", "1/" + "9" * 5000],
    ],
    ids=lambda options: options[-2],
)
def test_options_beyond_all_use_are_refused(options):
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 2
    assert "Invalid value for" in done.output


def test_numbers_of_results_have_a_limit():
    index = Index.build(np.eye(8, dtype=np.float32), BOOKS, engine="numpy", progress=False)
    with pytest.raises(InvalidInputError, match="must be at most 16,777,216, got 1000000000000"):
        index.search(np.eye(8, dtype=np.float32), 10**12)


@pytest.mark.parametrize("shard", [[1, 10**12], [1, True], "1/2", [1, 2, 3], [10**30, 2]])
def test_odd_shards_in_a_manifest_are_refused_at_once(shard, tmp_path):
    z = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    for part in (1, 2):
        path = tmp_path / str(part)
        Index.build(z, BOOKS, out=path, engine="numpy", progress=False)
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["description"]["shard"] = shard
        manifest["checksum"] = checksum(manifest)
        (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        (ArtifactError, InvalidInputError), match=r"which shard|must be 1 to|damaged"
    ):
        merge_bundles([tmp_path / "1", tmp_path / "2"], tmp_path / "out")


def test_a_manifest_of_a_gigabyte_is_not_read(tmp_path):
    Index.build(np.eye(8), BOOKS, out=tmp_path / "x", engine="numpy", progress=False)
    os.truncate(tmp_path / "x" / "manifest.json", 1 << 30)
    with pytest.raises(ArtifactError, match=r"must be at most 16,777,216 bytes long"):
        open_index(tmp_path / "x")


def test_vectors_near_the_largest_float_have_the_codes_of_their_directions():
    rng = np.random.default_rng(0)
    codewords = rng.standard_normal((4, 16, 8))
    books = Codebooks(codewords / np.linalg.norm(codewords, axis=2, keepdims=True))
    z = rng.standard_normal((50, 32)).astype(np.float32)
    z /= np.abs(z).max()
    mixed = np.where(np.arange(50)[:, None] % 2, z * np.float32(3.3e38), z * np.float32(1e-30))
    np.testing.assert_array_equal(encode(mixed, books), encode(z, books))
