"""Protocol files: what is accepted, and what an error tells its reader."""

from pathlib import Path

import pytest

from imer_bench.harness.protocol.load import Overrides, ProtocolError, load_protocol

from tiny import write_tiny


def problem(path: Path, *settings: str) -> str:
    with pytest.raises(ProtocolError) as caught:
        load_protocol(path, Overrides(settings))
    return str(caught.value)


def test_an_unknown_key_is_named_with_file_value_and_nearest_key(tmp_path):
    path = write_tiny(tmp_path, "profil = 'published'\n")
    message = problem(path)
    assert str(path) in message
    assert "'methods.0.profil'" in message
    assert "'published'" in message
    assert "did you mean 'profile'" in message


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("comparison.regime=matchd", ["'comparison.regime'", "'matchd'", "did you mean 'matched'"]),
        ("compute.epochs=0", ["'compute.epochs'", "0", "greater than or equal to 1"]),
        ("train.seeds=[1, 1]", ["train.seeds", "repeats a seed"]),
        ("validation.mask_seeds=[201]", ["share the mask seeds [201]"]),
        ("comparison.regime=no_prior", ["train.schedule", "'no_prior'"]),
        ("data.split.kind=nested", ["'data.0.split.kind'", "'nested'", "did you mean 'nested_folds'"]),
        ("schema=2", ["'schema'", "2"]),
        ("name=../up", ["'name'", "'../up'"]),
    ],
)
def test_a_wrong_value_is_named(tmp_path, setting, parts):
    message = problem(write_tiny(tmp_path), setting)
    for part in parts:
        assert part in message


def test_a_missing_file_names_the_nearest_one(tmp_path):
    write_tiny(tmp_path)
    assert f"did you mean '{tmp_path / 'tiny.toml'}'" in problem(tmp_path / "tinny.toml")


def test_broken_toml_is_an_error_with_a_line(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("schema = 1\nname = nobody\n")
    assert "line" in problem(path)


def test_a_variant_changes_only_what_it_says(tmp_path):
    write_tiny(tmp_path)
    (tmp_path / "variant.toml").write_text(
        'extends = "tiny.toml"\nname = "variant"\n[compute]\nthreads = 2\n[test]\nconditions = ["complete"]\n'
    )
    base, variant = load_protocol(tmp_path / "tiny.toml"), load_protocol(tmp_path / "variant.toml")
    assert variant.name == "variant"
    assert (variant.compute.threads, variant.compute.epochs) == (2, 3)
    assert variant.test.conditions == ("complete",)
    assert variant.test.mask_seeds == base.test.mask_seeds
    assert variant.methods == base.methods


def test_files_that_extend_each_other_are_an_error(tmp_path):
    (tmp_path / "a.toml").write_text('extends = "b.toml"\n')
    (tmp_path / "b.toml").write_text('extends = "a.toml"\n')
    assert "extend each other" in problem(tmp_path / "a.toml")


def test_settings_take_toml_values_and_bare_text(tmp_path):
    path = write_tiny(tmp_path)
    settings = (
        "train.seeds=[4, 5]",
        "metrics.primary=mae",
        "methods.0.parameters.hidden=4",
        "data.scale=none",
    )
    protocol = load_protocol(path, Overrides(settings))
    assert protocol.train.seeds == (4, 5)
    assert protocol.metrics.primary == "mae"
    assert protocol.methods[0].parameters == {"hidden": 4}
    assert protocol.data[0].scale == "none"


@pytest.mark.parametrize("setting", ["compute.epochs", "methods.7.name=x", "=3", "name.x.y=1"])
def test_a_setting_that_fits_nowhere_is_an_error(tmp_path, setting):
    assert setting in problem(write_tiny(tmp_path), setting)


def test_methods_are_picked_by_label_or_name_or_from_the_registry(tmp_path):
    extra = '[[methods]]\nname = "late_fusion"\nlabel = "wide"\nparameters = { hidden = 99 }\n'
    path = write_tiny(tmp_path, extra)

    def picked(*names: str) -> list[tuple[str, str | None]]:
        protocol = load_protocol(path, Overrides(methods=names))
        return [(entry.name, entry.label) for entry in protocol.methods]

    assert picked("wide") == [("late_fusion", "wide")]
    assert picked("late_fusion") == [("late_fusion", None), ("late_fusion", "wide")]
    assert picked("constant") == [("constant", None)]


def test_several_data_sets_are_an_array_of_tables(tmp_path):
    path = write_tiny(tmp_path)
    protocol = load_protocol(path, Overrides(('data=[{set="synthetic"},{set="meld_dev"}]',)))
    assert [entry.set for entry in protocol.data] == ["synthetic", "meld_dev"]
