import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mecoq_index import scoring
from mecoq_index.data.features import FeatureViews
from mecoq_index.errors import InvalidInputError
from mecoq_index.learn.checkpoint import RunPaths
from mecoq_index.learn.config import TrainConfig
from mecoq_index.learn.objective.distillation import RankingDistillation, straight_through
from mecoq_index.learn.objective.quantizer import SoftQuantizer
from mecoq_index.learn.objective.settings import DistillationSettings
from mecoq_index.learn.presets import recommended
from mecoq_index.learn.run import TrainingRun
from mecoq_index.learn.trainer import fit

CONFIG = TrainConfig(
    objective=DistillationSettings(), num_codebooks=4, num_codewords=16, dim=24, projection="mlp",
    hidden_dim=64, alpha=100.0, optimizer="adamw", lr=1e-3, weight_decay=0.0, batch_size=200,
    epochs=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def vectors():
    """Unit vectors whose variance decays, as that of real embeddings does."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1200, 32)) * 0.8 ** np.arange(32) + 0.3
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def recall(books, x, k=10):
    """Share of the k nearest by cosine among the k best by AQS; the item itself left out."""
    scores = scoring.aqs(books.project(x[:200]), scoring.encode(books.project(x), books), books)
    exact = x[:200] @ x.T
    for s in (scores, exact):
        s[np.arange(200), np.arange(200)] = -np.inf
    found, wanted = (np.argsort(-s, axis=1)[:, :k] for s in (scores, exact))
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(found, wanted, strict=True)])


@pytest.mark.parametrize("teacher_temperature", [0.05, 0.2])
def test_the_loss_is_the_divergence_of_the_two_rankings(teacher_temperature):
    rng = np.random.default_rng(0)
    x, z, r = (rng.standard_normal((5, width)) for width in (3, 4, 4))
    loss = RankingDistillation(teacher_temperature).double()
    loss.log_scale.data.fill_(np.log(2.0))
    got = float(loss(*map(torch.from_numpy, (x, z, r))).detach())
    want = 0.0
    for i in range(5):
        others = [j for j in range(5) if j != i]
        p = np.exp([x[i] @ x[j] / teacher_temperature for j in others])
        q = np.exp([2.0 * z[i] @ r[j] for j in others])
        p, q = p / p.sum(), q / q.sum()
        want += (p * np.log(p / q)).sum() / 5
    assert got == pytest.approx(want)


def test_codes_are_hard_forward_and_soft_backward():
    torch.manual_seed(0)
    quantizer = SoftQuantizer(2, 5, 3, alpha=4.0).double()
    z = torch.randn(6, 6, dtype=torch.float64, requires_grad=True)
    quantized = quantizer(z)
    codewords = quantizer.unit_codewords()
    hard = straight_through(quantized, codewords)
    best = quantized.logits.argmax(-1)
    want = torch.cat([codewords[m][best[:, m]] for m in range(2)], dim=1)
    torch.testing.assert_close(hard, want)
    weights = torch.randn(6, 6, dtype=torch.float64)
    got = torch.autograd.grad((hard * weights).sum(), z, retain_graph=True)[0]
    soft = torch.autograd.grad((quantized.reconstruction * weights).sum(), z)[0]
    torch.testing.assert_close(got, soft)


@pytest.mark.parametrize("projection", ["linear", "mlp"])
@pytest.mark.parametrize("dim", [24, 44])  # fewer and more places than components
def test_it_starts_as_quantized_components(vectors, projection, dim):
    config = CONFIG.replace(projection=projection, dim=dim, hidden_dim=80)
    run = TrainingRun(FeatureViews(vectors[None]), config, None, None, "cpu")
    run.prepare()
    z = run.model.embed(torch.from_numpy(vectors)).detach().view(-1, 4, dim // 4)
    # the last coordinate is constant, the others together keep distances in proportion
    np.testing.assert_allclose(z[..., -1], 2, atol=1e-4)
    kept = z[..., :-1].flatten(1)
    # 20 components hold nearly all of the variance, so distances differ by a factor only
    centered = vectors - vectors.mean(axis=0)
    ours, theirs = torch.pdist(kept[:100]), torch.pdist(torch.from_numpy(centered[:100]))
    ratio = ours / theirs
    assert ratio.std() / ratio.mean() < 0.02
    unit = F.normalize(z, dim=-1)
    best = torch.einsum("nmd,mkd->nmk", unit, run.model.quantizer.unit_codewords()).argmax(-1)
    assert all(len(best[:, m].unique()) == 16 for m in range(4))


@pytest.mark.slow
def test_training_finds_more_of_the_float_neighbors_than_the_start():
    digits = pytest.importorskip("sklearn.datasets").load_digits().data
    x = (digits / np.linalg.norm(digits, axis=1, keepdims=True)).astype(np.float32)
    source = FeatureViews(x[None])
    config = CONFIG.replace(hidden_dim=128)
    run = TrainingRun(source, config, None, None, "cpu")
    run.prepare()
    start = recall(run.codebooks({}), x)
    trained = recall(fit(source, config.replace(epochs=40)), x)
    assert 0.3 < start < trained - 0.03, (start, trained)


def test_an_interrupted_run_resumes_to_equal_bits(vectors, tmp_path):
    source = FeatureViews(vectors[None])
    whole = fit(source, CONFIG)

    def interrupt(text, done, total):
        if text.startswith("epoch 3/"):
            raise KeyboardInterrupt

    out = tmp_path / "c.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(source, CONFIG, out=out, on_progress=interrupt)
    assert RunPaths(out).checkpoint.exists()
    assert fit(source, CONFIG, out=out, resume=True).fingerprint == whole.fingerprint


def test_vectors_of_other_lengths_are_refused(vectors):
    x = vectors.copy()
    x[7] *= 1.5
    with pytest.raises(InvalidInputError, match=r"1 of 1200 rows .* first of them row 7 of length"):
        fit(FeatureViews(x[None]), CONFIG)


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"projection": "mlp-bn"}, "goes with a linear or mlp projection"),
        ({"codebooks": "frozen"}, "unknown setting 'codebooks'"),
        ({"regularizer_weight": 0.5}, "unknown setting 'regularizer_weight'"),
        ({"entropy_weight": 0.5}, "unknown setting 'entropy_weight'"),
        ({"view_dropout": 0.1}, r"has no use for view_dropout: set it to 0, got 0\.1"),
        ({"held_out": 10}, "has no use for held_out: set it to 0, got 10"),
        ({"neighbors": 3}, "unknown setting 'neighbors'"),
        ({"memory_size": 5}, "unknown setting 'memory_size'"),
        ({"temperature": 0.3}, "unknown setting 'temperature'; did you mean 'teacher_temperature'"),
        ({"positive_prior": 0.0}, "unknown setting 'positive_prior'"),
        ({"teacher_temperature": 0}, "teacher_temperature must be above 0, got 0"),
        ({"dim": 4}, "dim must be at least 8, got 4"),
        ({"hidden_dim": 39}, r"at least 2 \* \(dim - num_codebooks\) = 40, got 39"),
    ],
)
def test_settings_without_sense_are_refused(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        CONFIG.replace(**changes)


def test_more_than_one_vector_an_item_is_refused(vectors):
    for source in (
        FeatureViews(np.stack([vectors, vectors])),
        FeatureViews(vectors[None], features=vectors),
    ):
        with pytest.raises(InvalidInputError, match="give one vector an item"):
            fit(source, CONFIG)


@pytest.mark.parametrize(
    "x,message",
    [
        (np.eye(32), "there is no ranking to distil"),
        (np.eye(32)[[0] * 20], "there is no ranking to distil"),
        (np.eye(32)[:2], "there is no ranking to distil"),
        (np.eye(3), "num_codebooks must be at most the width of the vectors, 3, got 4"),
    ],
)
def test_vectors_without_a_ranking_are_refused(x, message):
    with pytest.raises(InvalidInputError, match=message):
        fit(FeatureViews(x.astype(np.float32)[None]), CONFIG)


def test_the_recommended_mlp_starts_where_the_linear_map_does():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 40))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    z = []
    for projection in ("linear", "mlp"):
        config = recommended("vectors", 32, 16, "distillation").replace(projection=projection)
        run = TrainingRun(FeatureViews(x[None]), config, None, None, "cpu")
        run.prepare()
        z.append(run.model.embed(torch.from_numpy(x)).detach())
    torch.testing.assert_close(*z, atol=1e-4, rtol=1e-4)
