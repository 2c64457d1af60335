"""The parity runner itself: what must fail fails, with the offending thing named."""

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from imer_bench.harness.parity import add_arguments, run, runner
from imer_bench.harness.parity.case import Schedule, Tolerance, Where, read_case
from imer_bench.harness.parity.compare import deviation, region, sorted_edges
from imer_bench.harness.parity.contract import (
    Component,
    Outcome,
    ParityError,
    ReferenceParameter,
    load_reference,
)
from imer_bench.harness.parity.expression import evaluate

GOLDEN = Path(__file__).parent / "golden" / "momke" / "iemocap4_two_stage_train"


@dataclass
class Copy:
    """A golden case in a folder of its own, to be spoiled."""

    folder: Path

    def description(self, edit):
        path = self.folder / "case.json"
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    def tensors(self, name, edit):
        path = self.folder / f"{name}.safetensors"
        content = {key: value.clone() for key, value in load_file(path).items()}
        edit(content)
        save_file(content, path)

    def run(self, *options):
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        return run(parser.parse_args(["--cases", str(self.folder), "--quiet", *options]))


@pytest.fixture
def case(tmp_path):
    folder = tmp_path / "case"
    shutil.copytree(GOLDEN, folder)
    return Copy(folder)


def test_an_untouched_case_passes_and_prints_the_largest_errors(case, capsys):
    assert case.run() == 0
    summary = capsys.readouterr().out
    assert "momke/iemocap4_two_stage_train" in summary
    assert "largest ratio" in summary
    assert "1 of 1 cases within tolerance" in summary


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("stage1.loss.total", 1e-3),
        ("grad.stage2.proj1.weight", 1e-3),
        ("stage2.adam1.proj1.weight", 1e-5),
        ("stage1.metric.acc", 1e-2),
    ],
)
def test_a_perturbed_golden_tensor_fails(case, capsys, name, step):
    names = load_file(GOLDEN / "outputs.safetensors")
    if name not in names:  # take another parameter of the same kind
        name = next(key for key in sorted(names) if key.startswith(name.rsplit(".", 2)[0]))

    def edit(outputs):
        outputs[name].flatten()[0] += step

    case.tensors("outputs", edit)
    assert case.run() == 1
    printed = capsys.readouterr().out
    assert f"FAIL {name}" in printed


def test_padding_is_free_but_real_utterances_are_not(case):
    real = load_file(GOLDEN / "inputs.safetensors")["umask"] != 0

    def spoil(where):
        row, column = where.nonzero()[0].tolist()

        def edit(outputs):
            outputs["stage1.logits"][row, column] += 1

        return edit

    case.tensors("outputs", spoil(~real))
    assert case.run() == 0
    case.tensors("outputs", spoil(real))
    assert case.run() == 1


def _set(path, value):
    def edit(content):
        *parents, last = path
        for key in parents:
            content = content[key]
        content[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (_set(["colour"], "red"), "colour"),
        (_set(["schema"], 2), "schema"),
        (_set(["sections", 0, "repeat"], 3), "repeat"),
        (_set(["sections", 0, "component"], "stage9"), "stage9"),
        (_set(["sections", 0, "condition"], "x"), "condition"),
        (_set(["sections", 1, "start"], "stage7"), "stage7"),
        (_set(["switches", "rooter"], "soft"), "router"),
        (_set(["switches", "router"], "sharp"), "router"),
        (_set(["switches", "profile"], "publishd"), "published"),
        (_set(["constructor", "width"], 3), "width"),
        (_set(["method"], "momkey"), "momke"),
        (_set(["method"], "os:system"), "os:system"),
        (_set(["mode"], "test"), "mode"),
        (_set(["compare", 0, "kind"], "guess"), "kind"),
        (_set(["compare", 0, "section"], "stage7"), "stage7"),
        (_set(["compare", 0, "names"], ["stage1.nothing"]), "stage1.nothing"),
        (_set(["compare", 0, "where", "mask"], "vmask"), "umask"),
        (_set(["compare", 0, "where", "axes"], [0, 7]), "axes"),
        (_set(["optimizer", "name"], "sgd"), "optimizer.name"),
        (_set(["optimizer", "momentum"], 0.9), "momentum"),
        (_set(["optimizer"], None), "steps"),
    ],
)
def test_what_is_unknown_or_contradictory_is_an_error(case, capsys, edit, named):
    case.description(edit)
    assert case.run() != 0
    assert named in capsys.readouterr().out


@pytest.mark.parametrize("field", ["tolerance", "notes", "informational", "task"])
def test_a_missing_field_is_an_error(case, capsys, field):
    case.description(lambda content: content.pop(field))
    assert case.run() == 1
    assert field in capsys.readouterr().out


def test_an_output_that_nothing_names_or_two_patterns_name_is_an_error(case, capsys):
    case.tensors("outputs", lambda outputs: outputs.update({"stage3.new": torch.zeros(2)}))
    assert case.run() == 1
    assert "stage3.new" in capsys.readouterr().out
    case.tensors("outputs", lambda outputs: outputs.pop("stage3.new"))
    case.description(lambda content: content["informational"].append("stage1.loss.*"))
    assert case.run() == 1
    assert "2 patterns" in capsys.readouterr().out


def test_globs_are_case_sensitive(case, capsys):
    case.description(lambda content: content["compare"][1].update(names=["STAGE1.loss.*"]))
    assert case.run() == 1


def test_an_output_that_the_method_does_not_produce_fails(case, capsys):
    case.tensors("outputs", lambda outputs: outputs.update({"stage1.loss.novel": torch.zeros(())}))
    assert case.run() == 1
    assert "stage1.loss.novel" in capsys.readouterr().out


def test_another_shape_fails(case, capsys):
    def edit(outputs):
        outputs["stage1.loss.total"] = outputs["stage1.loss.total"].expand(2).clone()

    case.tensors("outputs", edit)
    assert case.run() == 1
    assert "shape" in capsys.readouterr().out


def test_weights_must_be_complete_and_used(case, capsys):
    case.tensors("weights", lambda weights: weights.update(extra=torch.zeros(3)))
    assert case.run() == 1
    assert "extra" in capsys.readouterr().out
    case.description(lambda content: content["weights_unused"].append("ext*"))
    assert case.run() == 0
    case.tensors("weights", lambda weights: weights.pop("proj1.bias"))
    assert case.run() == 1
    assert "proj1.bias" in capsys.readouterr().out


def test_a_weight_that_must_get_no_gradient_is_watched(case, capsys):
    case.description(lambda content: content["no_gradient"]["stage2"].append("router_a.*"))
    assert case.run() == 1
    printed = capsys.readouterr().out
    assert "no gradient of the total" in printed
    assert "not moved" in printed


@pytest.mark.parametrize("broken", ["case.json", "outputs.safetensors"])
def test_a_broken_file_is_a_failure_that_names_it(case, capsys, broken):
    (case.folder / broken).write_bytes(b"\x00nonsense")
    assert case.run() == 1
    assert str(case.folder) in capsys.readouterr().out


def test_no_case_is_a_failure(tmp_path, capsys):
    assert Copy(tmp_path).run() != 0
    assert "no case.json" in capsys.readouterr().out


def test_one_failing_case_does_not_hide_behind_another(tmp_path, capsys):
    for name in ("good", "bad"):
        shutil.copytree(GOLDEN, tmp_path / name)
    Copy(tmp_path / "bad").tensors("outputs", lambda outputs: outputs["stage1.loss.total"].add_(1))
    assert Copy(tmp_path).run() == 1
    assert "1 of 2 cases" in capsys.readouterr().out


def test_strict_pass_uses_its_own_tolerance(case, capsys):
    tight = {"switches": {}, "tolerance": {"atol": 0.0, "rtol": 0.0}}
    case.description(lambda content: content.update(strict=tight))
    assert case.run() == 0
    assert case.run("--strict") == 1
    assert "(strict)" in capsys.readouterr().out


# Optimiser, accumulation and clipping on a component whose gradient is its input.


class Dot(Component):
    """total = 2 (w · x), so that the gradient is 2 x."""

    def __init__(self, request):
        super().__init__(request)
        self.w, self.idle = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(2))
        self.module = nn.ParameterList([self.w, self.idle])

    def forward(self, inputs):
        term = (self.w * inputs["x"]).sum()
        return Outcome({"term": term}, 2 * term)

    def reference_parameters(self):
        return {"w": ReferenceParameter(self.w), "idle": ReferenceParameter(self.idle)}


FIRST, SECOND = torch.tensor([0.3, -4.0, 0.1]), torch.tensor([0.3, 5.0, -0.2])
OPTIMIZER = {
    "name": "adamw",
    "lr": 0.1,
    "betas": [0.9, 0.99],
    "eps": 1e-8,
    "weight_decay": 0.5,
    "clip": None,
    "schedule": None,
    "accumulate": 1,
    "steps": 0,
}


def dot_case(folder, monkeypatch, sections, compare, outputs, **optimizer):
    """Runs a hand-made case and returns its differences by name."""
    folder.mkdir()
    content = {
        "schema": 1,
        "method": "dot",
        "case": "dot",
        "reference": "",
        "what": "",
        "task": None,
        "mode": "train",
        "torch_seed": 0,
        "constructor": {},
        "switches": {},
        "dims": {"B": 3},
        "sections": sections,
        "optimizer": {**OPTIMIZER, **optimizer},
        "tolerance": {"atol": 1e-6, "rtol": 1e-6},
        "compare": compare,
        "informational": [],
        "weights_unused": [],
        "tensors": {"inputs": {"*.x": {"shape": ["B"], "dtype": "float32", "about": ""}}, "outputs": {}},
        "notes": [],
    }
    (folder / "case.json").write_text(json.dumps(content))
    weights = {"w": torch.tensor([1.0, 2.0, 3.0]), "idle": torch.ones(2)}
    save_file(weights, folder / "weights.safetensors")
    save_file({"one.x": FIRST, "two.x": SECOND}, folder / "inputs.safetensors")
    save_file(outputs, folder / "outputs.safetensors")
    monkeypatch.setattr(runner, "components", lambda method: {"dot": Dot})
    return {item.name: item for item in runner.run_case(read_case(folder))}


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        (None, 2 * (FIRST + SECOND)),
        (
            {"kind": "value", "value": 1.0, "when": "each_backward"},
            ((2 * FIRST).clamp(-1, 1) + 2 * SECOND).clamp(-1, 1),
        ),
        ({"kind": "value", "value": 1.0, "when": "each_step"}, (2 * (FIRST + SECOND)).clamp(-1, 1)),
        (
            {"kind": "norm", "value": 1.0, "when": "each_step"},
            2 * (FIRST + SECOND) / ((2 * (FIRST + SECOND)).norm() + 1e-6),
        ),
    ],
)
def test_gradients_are_summed_over_batches_and_clipped_when_the_case_says(
    tmp_path, monkeypatch, clip, expected
):
    found = dot_case(
        tmp_path / "dot",
        monkeypatch,
        [{"name": "both", "component": "dot", "input_prefix": ["one.", "two."]}],
        [{"names": ["acc.*"], "section": "both", "kind": "accumulated", "prefix": "acc.", "of": "2 * term"}],
        {"acc.w": expected},
        clip=clip,
        accumulate=2,
    )
    assert found["acc.w"].passed, found["acc.w"]


def test_warmup_starts_at_rate_zero_and_state_carries_over_sections(tmp_path, monkeypatch):
    weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    reference = torch.optim.AdamW([weight], lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    values = []
    for taken, x in enumerate((FIRST, SECOND, FIRST, SECOND)):
        reference.param_groups[0]["lr"] = 0.1 * (taken / 2 if taken < 2 else (10 - taken) / 8)
        weight.grad = 2 * x
        reference.step()
        values.append(weight.detach().clone())
    assert torch.equal(values[0], torch.tensor([1.0, 2.0, 3.0]))
    prefixes = ["one.", "two."]
    found = dot_case(
        tmp_path / "dot",
        monkeypatch,
        [
            {"name": "a", "component": "dot", "input_prefix": prefixes, "steps": 2},
            {"name": "b", "component": "dot", "input_prefix": prefixes, "steps": 2, "start": "a"},
        ],
        [
            {"names": ["a.after.*"], "section": "a", "kind": "parameter", "prefix": "a.after."},
            {"names": ["b.after.*"], "section": "b", "kind": "parameter", "prefix": "b.after."},
        ],
        {
            "a.after.w": values[1],
            "a.after.idle": torch.ones(2),
            "b.after.w": values[3],
            "b.after.idle": torch.ones(2),
        },
        schedule={"name": "linear_warmup_decay", "warmup_steps": 2, "total_steps": 10},
        steps=2,
    )
    assert all(item.passed for item in found.values()), found


def test_gradient_of_an_input_and_samples_cut_out(tmp_path, monkeypatch):
    found = dot_case(
        tmp_path / "dot",
        monkeypatch,
        [
            {"name": "all", "component": "dot", "input_prefix": "one."},
            {"name": "last", "component": "dot", "input_prefix": "two.", "batch": [1, 1, 1]},
        ],
        [
            {
                "names": ["dx.x"],
                "section": "all",
                "kind": "gradient",
                "wrt": "input",
                "prefix": "dx.",
                "of": "all.term",
            },
            {"names": ["last.term"], "section": "last"},
        ],
        {"dx.x": torch.tensor([1.0, 2.0, 3.0]), "last.term": (1 + 2 + 3) * SECOND[1]},
    )
    assert all(item.passed for item in found.values()), found


# Small parts.


def test_learning_rate_factor_is_the_documented_one():
    schedule = Schedule(name="linear_warmup_decay", warmup_steps=4, total_steps=12)
    factors = [schedule.factor(k) for k in (0, 1, 4, 8, 12, 20)]
    assert factors == [0.0, 0.25, 1.0, 0.5, 0.0, 0.0]


def test_nan_and_infinity_of_ours_never_pass():
    golden = torch.zeros(2)
    for value in (torch.nan, torch.inf):
        _, ratio = deviation(torch.tensor([0.0, value]), golden, Tolerance(atol=1.0, rtol=0.0))
        assert ratio > 1


def test_integers_are_compared_exactly():
    golden = torch.tensor([1, 2])
    loose = Tolerance(atol=5.0, rtol=0.0)
    assert deviation(golden.clone(), golden, loose) == (0.0, 0.0)
    assert deviation(torch.tensor([1, 3]), golden, loose)[1] > 1


def test_scalar_may_be_empty_or_of_length_one_only():
    tolerance = Tolerance(atol=0.0, rtol=0.0)
    assert deviation(torch.tensor(2.0), torch.tensor([2.0]), tolerance) == (0.0, 0.0)
    with pytest.raises(ParityError, match="shape"):
        deviation(torch.full((2,), 2.0), torch.tensor([2.0]), tolerance)
    with pytest.raises(ParityError, match="shape"):
        deviation(torch.zeros(1, 3), torch.zeros(3), tolerance)


def test_mask_axes_and_column_follow_the_output():
    mask = torch.tensor([[1, 0, 1], [0, 1, 1]])
    output = torch.zeros(3, 2, 4)
    where = region(Where(mask="m", axes=[1, 0]), mask, output.shape).expand_as(output)
    for i in range(3):
        for j in range(2):
            assert bool(where[i, j].all()) == bool(mask[j, i])
    column = region(Where(mask="m", axes=[1], column=2), mask, output.shape).expand_as(output)
    assert bool(column.all())


def test_edges_are_a_set():
    index = torch.tensor([[2, 0, 1], [0, 1, 1]])
    kind = torch.tensor([5, 6, 7])
    order = torch.tensor([1, 2, 0])
    left, right = sorted_edges(index, kind), sorted_edges(index[:, order], kind[order])
    assert torch.equal(left[0], right[0])
    assert torch.equal(left[1], right[1])
    assert not torch.equal(left[1], sorted_edges(index[:, order], kind)[1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b/c", 2.0),
        ("a.b/c + x", 5.0),
        ("x - a.b/c * 2", -1.0),
        ("(x - a.b/c) * 2", 2.0),
        ("sum(v * w)", 11.0),
        ("-x + 1e1", 7.0),
    ],
)
def test_expressions(text, expected):
    values = {
        "a.b/c": torch.tensor(2.0),
        "x": torch.tensor(3.0),
        "v": torch.tensor([1.0, 2.0]),
        "w": torch.tensor([3.0, 4.0]),
    }
    assert float(evaluate(text, values.__getitem__)) == expected


@pytest.mark.parametrize("text", ["", "x +", "(x", "x y", "x ; y", "x * )"])
def test_what_is_no_expression_is_an_error(text):
    with pytest.raises(ParityError):
        evaluate(text, lambda name: torch.tensor(1.0))


def test_packed_parameters_are_loaded_through_their_views():
    packed = nn.Parameter(torch.zeros(6, 2))
    parts = {
        "q": ReferenceParameter(packed, lambda tensor: tensor[:3]),
        "k": ReferenceParameter(packed, lambda tensor: tensor[3:]),
    }
    load_reference(parts, {"q": torch.ones(3, 2), "k": 2 * torch.ones(3, 2)})
    (packed[3:] * torch.tensor([1.0, 5.0])).sum().backward()
    assert torch.equal(packed.detach(), torch.tensor([1.0] * 3 + [2.0] * 3)[:, None].expand(6, 2))
    torch.testing.assert_close(parts["k"].gradient, torch.tensor([[1.0, 5.0]] * 3))
    torch.testing.assert_close(parts["q"].gradient, torch.zeros(3, 2))
    with pytest.raises(ParityError, match="k"):
        load_reference(parts, {"q": torch.ones(3, 2)})
    with pytest.raises(ParityError, match="shape"):
        load_reference(parts, {"q": torch.ones(3, 2), "k": torch.ones(2, 3)})
