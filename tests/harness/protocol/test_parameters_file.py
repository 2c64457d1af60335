"""``params_from``: parameters of a method from a file of their own."""

import pytest

from imer_bench.harness.protocol.load import Overrides, ProtocolError, load_protocol

from tiny import tiny_plan, write_tiny

ENTRY = """
[[methods]]
name = "late_fusion"
params_from = "found/best.toml"
parameters = { dropout = 0.1 }
"""
FOUND = """
method = "late_fusion"
[parameters]
lr = 0.004
dropout = 0.5
[tuned]
trials = 12
study = "tiny/late_fusion/abc"
"""


def write(folder, text=FOUND):
    (folder / "found").mkdir(exist_ok=True)
    (folder / "found" / "best.toml").write_text(text, encoding="utf-8")


def test_values_enter_the_settings_and_the_row_is_marked(tmp_path):
    write(tmp_path)
    plan = tiny_plan(tmp_path, extra=ENTRY)
    plain, tuned = plan.runs
    parameters = tuned.parameters.model_dump()
    assert (parameters["lr"], parameters["dropout"]) == (0.004, 0.1), "the entry's own value wins"
    assert tuned.variant.label == "late_fusion (tuned)"
    assert tuned.variant.shown_profile == "default, tuned in 12 trials"
    assert tuned.comparison_hash == plain.comparison_hash


def test_the_path_is_relative_to_the_file_that_names_it(tmp_path):
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub")
    write_tiny(tmp_path / "sub", ENTRY)
    child = tmp_path / "child.toml"
    child.write_text('extends = "sub/tiny.toml"\nname = "child"\n', encoding="utf-8")
    entry = load_protocol(child, Overrides(("methods.1.parameters={hidden=4}",))).methods[1]
    assert entry.parameters == {"lr": 0.004, "dropout": 0.5, "hidden": 4}
    assert entry.tuned is not None
    assert entry.tuned.trials == 12


def test_the_same_settings_found_by_a_study_are_a_row_of_their_own(tmp_path):
    write(tmp_path, 'method = "late_fusion"\n[parameters]\nhidden = 8\n[tuned]\ntrials = 3\n')
    plan = tiny_plan(tmp_path, extra=ENTRY.replace("parameters = { dropout = 0.1 }", ""))
    one, two = plan.runs
    assert one.parameters == two.parameters
    assert one.address != two.address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "not readable"),
        ("method = ", "not readable as TOML"),
        (FOUND.replace('"late_fusion"\n[', '"gcnet"\n['), "is for the method 'gcnet'"),
        ('profile = "paper"\n' + FOUND, "is for the profile 'paper'"),
        (FOUND + "trails = 3\n", "unknown key 'tuned.trails'.*did you mean 'trials'"),
        (FOUND.replace("trials = 12", "trials = 0"), "tuned.trials"),
        (FOUND.replace("[parameters]", "[params]"), "unknown key 'params'.*did you mean 'parameters'"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, text, words):
    if text is not None:
        write(tmp_path, text)
    with pytest.raises(ProtocolError, match=words) as error:
        load_protocol(write_tiny(tmp_path, ENTRY))
    assert "best.toml" in str(error.value)
