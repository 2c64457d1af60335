"""The checkpoint format carries whatever optimisers and methods keep."""

import math

import pytest
import torch

from imer_bench.harness.engine.checkpoint import load_state, save_state


def test_nested_state_comes_back_as_it_was(tmp_path):
    state = {
        "optimizers": [
            {"state": {0: {"step": torch.tensor(3.0), "m": torch.randn(2, 3)}}, "groups": [{"lr": 0.1}]}
        ],
        "history": [{"loss": 0.1 + 0.2, "best": -math.inf}, {"nan": math.nan}],
        "tuple": (1, "two", None, True),
        "empty": {},
        "half": torch.randn(3, dtype=torch.bfloat16),
        "index": torch.arange(4)[::2],
    }
    save_state(tmp_path / "state.safetensors", state)
    back = load_state(tmp_path / "state.safetensors")
    assert back["optimizers"][0]["groups"] == [{"lr": 0.1}]
    assert list(back["optimizers"][0]["state"]) == [0]
    assert torch.equal(back["optimizers"][0]["state"][0]["m"], state["optimizers"][0]["state"][0]["m"])
    assert back["history"][0] == {"loss": 0.1 + 0.2, "best": -math.inf}
    assert math.isnan(back["history"][1]["nan"])
    assert back["tuple"] == (1, "two", None, True)
    assert back["empty"] == {}
    assert torch.equal(back["half"], state["half"])
    assert back["index"].tolist() == [0, 2]


def test_tensors_that_share_memory_come_back_equal(tmp_path):
    weight = torch.randn(2)
    save_state(tmp_path / "s", {"a": weight, "b": weight.detach(), "c": weight[1:], "d": weight.view(1, 2)})
    back = load_state(tmp_path / "s")
    assert torch.equal(back["a"], weight)
    assert torch.equal(back["b"], weight)
    assert torch.equal(back["c"], weight[1:])
    assert torch.equal(back["d"], weight.view(1, 2))
    back["b"].zero_()
    assert torch.equal(back["a"], weight), "each is a tensor of its own"


def test_a_tensor_that_occurs_twice_is_written_once(tmp_path):
    weight = torch.randn(10_000)
    save_state(tmp_path / "once", {"best": weight})
    save_state(tmp_path / "twice", {"best": weight, "stage_best": weight})
    sizes = [(tmp_path / name).stat().st_size for name in ("once", "twice")]
    assert sizes[1] - sizes[0] < 1000
    assert torch.equal(load_state(tmp_path / "twice")["stage_best"], weight)


def test_what_can_not_be_kept_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(TypeError, match="object"):
        save_state(tmp_path / "s", {"a": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop])
def test_an_optimiser_continues_exactly(tmp_path, optimizer):
    def make():
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return model, optimizer(model.parameters(), lr=0.1)

    def step(model, steps):
        model.zero_grad()
        model(torch.ones(1, 3)).square().sum().backward()
        steps.step()

    model, steps = make()
    step(model, steps)
    save_state(tmp_path / "s", {"weights": model.state_dict(), "optimizer": steps.state_dict()})
    step(model, steps)
    other, others = make()
    state = load_state(tmp_path / "s")
    other.load_state_dict(state["weights"])
    others.load_state_dict(state["optimizer"])
    step(other, others)
    assert torch.equal(model.weight, other.weight)
