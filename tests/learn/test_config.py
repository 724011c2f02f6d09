import json

import pytest

from mecoq_index.errors import ArtifactError, InvalidInputError
from mecoq_index.learn.config import TrainConfig
from mecoq_index.learn.presets import PRESETS, preset


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"temperature": 0.0}, r"temperature must be at least 0\.03, got 0\.0"),
        ({"temperature": float("nan")}, "temperature must be finite, got nan"),
        ({"alpha": 0}, "alpha must be above 0, got 0"),
        ({"positive_prior": 1.0}, r"positive_prior must lie in \[0, 1\), got 1\.0"),
        ({"num_codewords": 257}, "num_codewords must be at most 256 .* got 257"),
        ({"num_codewords": 1}, "num_codewords must be at least 2, got 1"),
        ({"dim": 100}, "dim must be a multiple of num_codebooks=8, got 100"),
        ({"epochs": 2.5}, r"epochs must be int, got 2\.5"),
        ({"epochs": True}, "epochs must be int, got True"),
        ({"lr": "fast"}, "lr must be float, got 'fast'"),
        ({"loss": "papr"}, r"loss must be one of .*, got 'papr'"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"epochs": 1, "warmup_epochs": 2}, "warmup_epochs must be at most epochs=1, got 2"),
        ({"neighbor_share": 1.1}, r"neighbor_share must lie in \[0, 1\], got 1\.1"),
        ({"neighbors": -1}, "neighbors must be at least 0, got -1"),
        ({"codebooks": "signs"}, "one bit a coordinate: num_codewords must be 2 .* got 256, 8 and"),
        ({"lr": 1e-6}, "warmup_lr must be at most lr=1e-06, got 1e-05"),
        ({"temprature": 0.2}, "unknown setting 'temprature'; did you mean 'temperature'"),
    ],
)
def test_bad_settings_say_what_must_hold(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        TrainConfig().replace(**changes)


def test_settings_survive_json(tmp_path):
    config = TrainConfig(num_codebooks=4, num_codewords=16, dim=32, lr=1)
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(config.to_dict()))
    assert TrainConfig.from_json(path) == config
    assert config.bits == 16


@pytest.mark.parametrize(
    "text,message",
    [
        ("", "is empty"),
        ("{", "is no JSON file"),
        ("[1]", "must hold one JSON object of settings"),
    ],
)
def test_a_bad_settings_file_is_named(tmp_path, text, message):
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=rf"settings\.json {message}"):
        TrainConfig.from_json(path)


def test_a_typo_in_a_settings_file_names_the_file(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text('{"epoch": 3}')
    with pytest.raises(InvalidInputError, match=r"settings\.json: unknown setting 'epoch'; did"):
        TrainConfig.from_json(path)


def test_there_are_twelve_presets_with_the_bits_in_their_names():
    assert len(PRESETS) == 12
    for name in PRESETS:
        assert preset(name).bits == int(name.rpartition("-")[2])


def test_presets_of_the_two_variants_are_never_mixed():
    for name in PRESETS:
        settings = preset(name).objective, preset(name, loss="official").objective
        paper, official = settings
        assert (paper.loss, paper.codebooks, paper.entropy_weight) == ("paper", "learned", 0)
        assert (official.loss, official.codebooks) == ("official", "frozen")
        assert official.entropy_weight > 0
        assert paper.temperature == official.temperature


def test_a_preset_has_the_released_values():
    got = preset("nuswide-16", loss="official")
    assert (got.dim, got.weight_decay, got.trainable_layers) == (64, 1e-2, 0)
    own = got.objective
    assert (own.temperature, own.entropy_weight) == (0.2, 1.0)
    assert (own.positive_prior, own.memory_start_epoch) == (0.15, 10)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(InvalidInputError, match=r"unknown preset 'cifar'; choose one of \['flickr"):
        preset("cifar")
