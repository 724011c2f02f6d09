import json
import re

import numpy as np
import pytest
import torch
from clusters import clustered_views

from mecoq_index import scoring
from mecoq_index._progress import silent
from mecoq_index.codebooks import Codebooks
from mecoq_index.data.features import FeatureViews
from mecoq_index.errors import ArtifactError, InvalidInputError, TrainingError
from mecoq_index.learn.checkpoint import RunPaths
from mecoq_index.learn.config import TrainConfig
from mecoq_index.learn.objective import contrast
from mecoq_index.learn.objective.settings import ContrastSettings
from mecoq_index.learn.run import TrainingRun
from mecoq_index.learn.trainer import fit

SMALL = TrainConfig(
    objective=ContrastSettings(memory_size=24, memory_start_epoch=1),
    num_codebooks=2, num_codewords=8, dim=8, epochs=3, batch_size=16, lr=0.05, warmup_epochs=1,
)  # fmt: skip


@pytest.fixture
def source():
    return FeatureViews(clustered_views()[0])


def _log(paths):
    return [json.loads(line) for line in paths.log.read_text().splitlines()]


class Interrupting:
    """A source that is interrupted by Ctrl-C in the middle of an epoch."""

    def __init__(self, source, epoch):
        self._source, self._epoch = source, epoch
        self.width = source.width
        self.fingerprint = source.fingerprint
        self.dropout = source.dropout

    def __len__(self):
        return len(self._source)

    def with_dropout(self, dropout):
        return Interrupting(self._source.with_dropout(dropout), self._epoch)

    def steps(self, batch_size):
        return self._source.steps(batch_size)

    def frozen_features(self):
        return self._source.frozen_features()

    def batches(self, epoch, batch_size, seed, partners=None):
        for i, pair in enumerate(self._source.batches(epoch, batch_size, seed, partners)):
            if epoch == self._epoch and i == 2:
                raise KeyboardInterrupt
            yield pair


class Bare:
    """A source of pairs that is nothing else."""

    def __init__(self, source):
        self._source, self.width = source, source.width
        self.batches, self.steps = source.batches, source.steps

    def __len__(self):
        return len(self._source)


def test_training_lowers_the_loss_and_changes_the_codebooks(source, tmp_path):
    config = SMALL.replace(epochs=8, memory_size=0)
    out = tmp_path / "c.pt"
    first = fit(source, config.replace(epochs=1, warmup_lr=1e-9, lr=1e-9, final_lr=0.0))
    books = fit(source, config, out=out)
    records = _log(RunPaths(out))[1:]
    assert records[-1]["contrastive"] < records[0]["contrastive"] - 0.1
    assert np.abs(books.codewords - first.codewords).max() > 0.1
    assert Codebooks.load(out).fingerprint == books.fingerprint


def test_learned_codes_find_items_of_the_same_cluster():
    views, label = clustered_views(n=300)
    books = fit(FeatureViews(views), SMALL.replace(epochs=10, memory_size=0))
    z = books.project(views[0])
    scores = scoring.aqs(z[:50], scoring.encode(z, books), books)
    top = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    precision = (label[top] == label[:50, None]).mean()
    assert precision > 0.9


def test_learned_binary_codes_find_items_of_the_same_cluster(tmp_path):
    views, label = clustered_views(n=300)
    config = SMALL.replace(
        objective="signs", num_codebooks=16, num_codewords=2, dim=16, alpha=1.0, epochs=10
    )
    books = fit(FeatureViews(views), config, out=tmp_path / "c.pt")
    assert (books.M, books.K, books.bits) == (16, 2, 16)
    z = books.project(views[0])
    scores = scoring.aqs(z[:50], scoring.encode(z, books), books)
    top = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    assert (label[top] == label[:50, None]).mean() > 0.9
    assert "quantization_error" not in _log(RunPaths(tmp_path / "c.pt"))[-1]


def test_frozen_codebooks_stay_as_initialized(source):
    config = SMALL.replace(codebooks="frozen")
    one, three = (fit(source, config.replace(epochs=n)) for n in (1, 3))
    np.testing.assert_array_equal(one.codewords, three.codewords)
    assert not np.array_equal(one.projection[0].weight, three.projection[0].weight)


@pytest.mark.parametrize(
    "part,weights",
    [
        ("contrastive", {"regularizer_weight": 0.0, "entropy_weight": 0.0}),
        ("regularizer", {"regularizer_weight": 1.0, "entropy_weight": 0.0}),
        ("entropy", {"regularizer_weight": 0.0, "entropy_weight": 1.0}),
    ],
)
def test_every_part_of_the_objective_moves_the_codewords(source, part, weights, monkeypatch):
    if part != "contrastive":
        monkeypatch.setitem(contrast._LOSSES, "paper", lambda v1, v2, m, **_: 0 * v1.sum())
    config = SMALL.replace(epochs=1, memory_size=0, weight_decay=0.0, **weights)
    still = fit(source, config.replace(lr=1e-12, warmup_lr=1e-12, final_lr=0.0))
    moved = fit(source, config)
    assert np.abs(moved.codewords - still.codewords).max() > 1e-4


@pytest.mark.parametrize(
    "off",
    [
        {"memory_size": 0},
        {"positive_prior": 0.0},
        {"regularizer_weight": 0.0},
        {"entropy_weight": 0.0},
        {"codebooks": "frozen"},
        {"loss": "official"},
        {"projection": "mlp", "hidden_dim": 16},
        {"projection": "mlp-bn", "hidden_dim": 16},
        {"optimizer": "adamw", "lr": 0.005},
        {"max_grad_norm": 0.1},
        {"alpha": 3.0},
        {"neighbors": 3},
        {"precision": "bfloat16"},
    ],
)
def test_every_switch_changes_the_outcome(source, off):
    everything = SMALL.replace(entropy_weight=0.5, epochs=2)
    a, b = fit(source, everything), fit(source, everything.replace(**off))
    assert a.fingerprint != b.fingerprint


def test_the_memory_joins_at_its_epoch(source, tmp_path):
    out = tmp_path / "c.pt"
    fit(source, SMALL.replace(memory_start_epoch=2), out=out)
    assert [r["memory"] for r in _log(RunPaths(out))[1:]] == [0, 0, 24]


def test_a_memory_that_is_still_empty_does_no_harm(source):
    config = SMALL.replace(memory_start_epoch=0, epochs=1, warmup_epochs=0)
    assert fit(source, config).fingerprint != fit(source, config.replace(memory_size=0)).fingerprint


def test_the_log_tells_every_term_and_the_health_of_the_codes(source, tmp_path):
    out = tmp_path / "c.pt"
    fit(source, SMALL.replace(entropy_weight=0.1), out=out)
    header, *records = _log(RunPaths(out))
    assert TrainConfig.from_dict(header["config"]) == SMALL.replace(entropy_weight=0.1)
    assert [r["epoch"] for r in records] == [0, 1, 2]
    for r in records:
        total = r["contrastive"] + 0.5 * r["regularizer"] + 0.1 * r["entropy"]
        assert r["loss"] == pytest.approx(total, rel=1e-5)
        assert 0 < r["codeword_usage"] <= 1
        assert 1 <= r["codeword_perplexity"] <= 8
        assert 0 < r["soft_code_entropy"] <= np.log(8)
        assert 0 < r["quantization_error"] < 4 * SMALL.num_codebooks


def test_same_seed_same_bits_and_other_seed_other_bits(source):
    a, b, c = (fit(source, SMALL.replace(seed=seed)) for seed in (0, 0, 1))
    assert a.fingerprint == b.fingerprint != c.fingerprint


def test_training_leaves_the_callers_random_stream_alone(source):
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    fit(source, SMALL.replace(epochs=1))
    torch.testing.assert_close(torch.rand(3), want)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adamw", "max_grad_norm": 0.1},
        {"neighbors": 4, "projection": "mlp-bn", "precision": "bfloat16"},
        {"view_dropout": 0.3, "projection": "mlp-bn", "hidden_dim": 16},
        {"objective": "signs", "num_codebooks": 8, "num_codewords": 2, "memory_size": 0},
    ],
)
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_an_interrupted_run_resumes_to_equal_bits(source, tmp_path, epoch, changes):
    config = SMALL.replace(**changes)
    whole = fit(source, config, out=tmp_path / "whole.pt")
    out = tmp_path / "c.pt"
    paths = RunPaths(out)
    with pytest.raises(KeyboardInterrupt):
        fit(Interrupting(source, epoch), config, out=out)
    assert not out.exists()
    assert Codebooks.load(paths.checkpoint).provenance["epochs_done"] == epoch
    resumed = fit(source, config, out=out, resume=True)
    assert resumed.fingerprint == whole.fingerprint
    assert not paths.checkpoint.exists()
    timeless = [
        [{k: v for k, v in r.items() if k != "seconds"} for r in _log(RunPaths(p))]
        for p in (out, tmp_path / "whole.pt")
    ]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],  # what a full disk leaves of a record
        lambda text: text + '{"epoch": 7}\n',
        lambda text: text + "[" * 100_000,
        lambda text: text + '{"epoch": null}\n3\n\udcff',
        lambda text: text.replace('"lr": 0.05', '"lr": 0.07', 1),  # the log of another run
        lambda text: "",
    ],
)
def test_a_run_goes_on_whatever_has_become_of_its_log(source, tmp_path, damage):
    fit(source, SMALL, out=tmp_path / "whole.pt")
    paths = RunPaths(tmp_path / "c.pt")
    with pytest.raises(KeyboardInterrupt):
        fit(Interrupting(source, 2), SMALL, out=paths.out)
    damaged = damage(paths.log.read_text()).encode(errors="surrogateescape")
    paths.log.write_bytes(damaged)
    fit(source, SMALL, out=paths.out, resume=True)
    head, *records = _log(paths)
    assert head == _log(RunPaths(tmp_path / "whole.pt"))[0]
    assert [record["epoch"] for record in records][-1] == 2
    assert len(records) == len({record["epoch"] for record in records})


def test_a_run_without_a_checkpoint_has_no_log(source, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"No space left on device: .*c\.checkpoint\.pt"):
        fit(source, SMALL, out=tmp_path / "c.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_log_is_not_written_through_a_link(source, tmp_path):
    (tmp_path / "victim").write_text("precious")
    log = RunPaths(tmp_path / "c.pt").log
    log.symlink_to(tmp_path / "victim")

    def plant(text, done, total):
        if done == 5:
            log.unlink()
            log.symlink_to(tmp_path / "victim")

    with pytest.raises(ArtifactError, match=r"c\.log\.jsonl must be a file of its own"):
        fit(source, SMALL, out=tmp_path / "c.pt", on_progress=plant)
    assert (tmp_path / "victim").read_text() == "precious"
    fit(source, SMALL, out=tmp_path / "c.pt", resume=True)
    assert (tmp_path / "victim").read_text() == "precious"
    assert [record.get("epoch") for record in _log(RunPaths(tmp_path / "c.pt"))][-1] == 2


def test_without_resume_an_old_checkpoint_is_not_used(source, tmp_path):
    out = tmp_path / "c.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(Interrupting(source, 2), SMALL.replace(seed=9), out=out)
    assert fit(source, SMALL, out=out).fingerprint == fit(source, SMALL).fingerprint


def test_a_checkpoint_of_other_settings_or_data_is_refused(source, tmp_path):
    out = tmp_path / "c.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(Interrupting(source, 1), SMALL, out=out)
    with pytest.raises(InvalidInputError, match=r"other settings \(lr=0.05 there, 0.01 here\)"):
        fit(source, SMALL.replace(lr=0.01), out=out, resume=True)
    with pytest.raises(InvalidInputError, match=r"settings \(temperature=0.4 there, 0.3 here\)"):
        fit(source, SMALL.replace(temperature=0.3), out=out, resume=True)
    signs = SMALL.replace(objective="signs", num_codebooks=8, num_codewords=2)
    with pytest.raises(InvalidInputError, match="objective='contrast' there, 'signs' here"):
        fit(source, signs, out=out, resume=True)
    other = FeatureViews(clustered_views(seed=1)[0])
    with pytest.raises(InvalidInputError, match="belongs to a run on other data"):
        fit(other, SMALL, out=out, resume=True)


def test_a_checkpoint_of_another_version_is_refused(source, tmp_path):
    out = tmp_path / "c.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(Interrupting(source, 1), SMALL, out=out)
    checkpoint = RunPaths(out).checkpoint
    content = torch.load(checkpoint, weights_only=True)
    del content["training"]["config"]["objective"]["neighbors"]
    torch.save(content, checkpoint)
    with pytest.raises(InvalidInputError, match="made by another version of mecoq-index"):
        fit(source, SMALL, out=out, resume=True)


def test_bfloat16_is_near_to_float32(source):
    config = SMALL.replace(memory_size=0, epochs=1)
    exact, rounded = (
        fit(source, config.replace(precision=p)).projection[0].weight
        for p in ("float32", "bfloat16")
    )
    assert 0 < np.abs(exact - rounded).max() < 0.05


@pytest.mark.parametrize(
    "capabilities, expected",
    [
        ({"avx512_f": True, "avx512_bf16": True}, True),
        ({"avx512_f": True, "avx512_bf16": False, "l1d_cache_size": 49152}, False),
        ({"avx2": True}, False),
    ],
)
def test_bfloat16_on_a_cpu_without_its_products_is_warned_of(
    source, capabilities, expected, monkeypatch, caplog
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    fit(source, SMALL.replace(epochs=1, precision="bfloat16"))
    assert ("this CPU has no products of bfloat16" in caplog.text) != expected


def test_a_checkpoint_may_have_backslashes_in_its_name(source, tmp_path):
    out = tmp_path / "..\\..\\c.pt"
    if out.name == "c.pt":
        pytest.skip("here, backslashes divide folders")
    with pytest.raises(KeyboardInterrupt):
        fit(Interrupting(source, 1), SMALL, out=out)
    assert RunPaths(out).checkpoint.exists()


def test_a_damaged_checkpoint_is_refused(source, tmp_path):
    out = tmp_path / "c.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(Interrupting(source, 1), SMALL, out=out)
    checkpoint = RunPaths(out).checkpoint
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    with pytest.raises(ArtifactError, match=r"c\.checkpoint\.pt is damaged"):
        fit(source, SMALL, out=out, resume=True)


def test_codebooks_without_a_training_state_are_no_checkpoint(source, tmp_path):
    out = tmp_path / "c.pt"
    fit(source, SMALL.replace(epochs=1)).save(RunPaths(out).checkpoint)
    with pytest.raises(ArtifactError, match="it holds no state of training"):
        fit(source, SMALL, out=out, resume=True)


def test_a_diverging_run_says_so_and_leaves_no_output(tmp_path):
    views = clustered_views()[0].copy()
    views[:, 0] = 3e38
    out = tmp_path / "c.pt"
    with pytest.raises(
        TrainingError, match=r"became (nan|inf|NaN or Inf) in epoch \d.*\. Lower lr"
    ):
        fit(FeatureViews(views), SMALL, out=out)
    assert [p.name for p in tmp_path.iterdir()] == ["c.log.jsonl"]
    with pytest.raises(TrainingError, match=r"c\.log\.jsonl tells how it went; --overwrite repl"):
        fit(FeatureViews(views), SMALL, out=out)


def test_progress_is_reported_to_the_last_step(source):
    seen = []
    fit(source, SMALL, on_progress=lambda *told: seen.append(told))
    texts, done, totals = zip(*seen, strict=True)
    assert re.fullmatch(r"epoch 3/3 loss \S+ contrastive \S+ regularizer \S+", texts[-1])
    assert set(totals) == {3 * source.steps(SMALL.batch_size)}
    assert list(done) == list(range(1, totals[0] + 1))


def test_codewords_are_unit_vectors_and_provenance_names_the_settings(source):
    books = fit(source, SMALL)
    np.testing.assert_allclose(np.linalg.norm(books.codewords, axis=2), 1, atol=1e-6)
    assert TrainConfig.from_dict(books.provenance["config"]) == SMALL
    assert source.width == books.P


@pytest.mark.parametrize("projection", ["linear", "mlp", "mlp-bn"])
def test_the_exported_projection_and_codes_are_those_of_the_model(source, projection):
    config = SMALL.replace(projection=projection, hidden_dim=16)
    run = TrainingRun(source, config, None, None, "cpu")
    run.train_epoch(silent)
    run.model.eval()
    books = run.codebooks({})
    x = clustered_views(seed=3)[0][0]
    with torch.no_grad():
        z = run.model.embed(torch.from_numpy(x))
        codes = run.model.quantizer(z).logits.argmax(-1)
    np.testing.assert_allclose(books.project(x), z, atol=1e-5)
    np.testing.assert_array_equal(scoring.encode(books.project(x), books), codes)


def test_dropout_is_that_of_the_settings(source):
    config = SMALL.replace(view_dropout=0.3)
    assert fit(source, config).fingerprint != fit(source, SMALL).fingerprint
    by_hand = source.with_dropout(0.3)
    assert fit(source, config).fingerprint == fit(by_hand, config).fingerprint
    with pytest.raises(InvalidInputError, match=r"must be 0 or view_dropout, 0\.0, got 0\.3"):
        fit(by_hand, SMALL)


def test_dropout_of_a_source_that_has_none_is_refused(source):
    with pytest.raises(InvalidInputError, match="view_dropout works on features, not on Bare"):
        fit(Bare(source), SMALL.replace(view_dropout=0.3))
    assert fit(Bare(source), SMALL).fingerprint == fit(source, SMALL).fingerprint


def test_cuda_is_refused_where_there_is_none(source, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidInputError, match="torch sees no CUDA GPU here"):
        fit(source, SMALL, device="cuda")


@pytest.mark.gpu
def test_training_on_a_gpu_lowers_the_loss(source, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU on this machine")
    out = tmp_path / "c.pt"
    fit(source, SMALL.replace(epochs=8, memory_size=0), out=out, device="cuda")
    records = _log(RunPaths(out))[1:]
    assert records[-1]["contrastive"] < records[0]["contrastive"] - 0.1
