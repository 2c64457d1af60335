"""What every registered method must show, whatever it is: see docs/add-a-method.md."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from imer_bench.harness.batch import Batch
from imer_bench.harness.engine.evaluation import predict
from imer_bench.harness.engine.masking import draw
from imer_bench.harness.engine.run import RunServices, SplitCache, Workshop, build_method, make_job
from imer_bench.harness.engine.training import Training
from imer_bench.harness.hashing import derive_seed
from imer_bench.harness.language_models import LanguageModel, LanguageModels
from imer_bench.harness.record import MethodInfo
from imer_bench.harness.registry import method_class, method_info, method_names
from imer_bench.harness.schedules import Fixed, Random
from imer_bench.harness.store import Store

from batches import make_batch, make_spec
from small import SMALL
from tiny import tiny_plan

NAMES = [name for name in method_names() if name in SMALL]
TASKS = {
    "regression": [],
    "binary": ["data.mapping=negative_nonnegative"],
    "multiclass": ["data.label=emotion"],
}
TRAINED = [name for name in NAMES if name != "constant"]


@pytest.fixture(scope="module")
def models() -> LanguageModels:
    return LanguageModels()


def prepare(folder, models, name: str, *settings: str, task: str = "regression"):
    """Training, job and method of a method at small size on tiny data."""
    parameters = ", ".join(f"{key}={value!r}" for key, value in SMALL[name].items())
    entry = f"methods.0={{name='{name}', parameters={{{parameters}}}}}".replace("True", "true")
    plan = tiny_plan(folder, entry, "compute.epochs=2", *TASKS[task], *settings)
    (run,) = plan.runs
    if run.skip:
        pytest.skip(run.skip)
    shop = Workshop(plan.protocol, plan.execution, Store(folder / "store"), SplitCache(), models)
    job, _, _ = make_job(run, shop)
    method = build_method(run, RunServices(run.seed, torch.device("cpu"), models))
    return Training(job, method), job, method


def test_every_method_of_the_folder_is_tested_here():
    assert set(method_names()) == set(SMALL)


@pytest.mark.parametrize("name", NAMES)
def test_the_record_says_what_a_reader_needs(name):
    info = method_info(name)
    assert info.name == name
    assert info.title
    assert info.summary.endswith(".")
    assert "default" in info.profiles
    for profile in info.profiles.values():
        info.parameters.model_validate({**profile})
    for data_set, values in info.data_set_parameters.items():
        from imer_bench.harness.corpus.catalogue import data_sets

        assert data_set in {item.name for item in data_sets()}, data_set
        info.parameters.model_validate(values)
    if info.reference:
        assert info.reference.licence


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", NAMES)
def test_it_trains_and_predicts_every_task(tmp_path, models, name, task):
    training, job, method = prepare(tmp_path, models, name, task=task)
    progress = training.run()
    assert progress.step >= 1
    assert "wf1" in {key.removeprefix("validation/") for key in progress.history[-1]}
    predicted = predict(method, job.valid, job.validation[0].masks, job.evaluation_batch, "float32")
    if method_info(name).predicts_score and task == "regression":
        assert predicted.score is not None
    else:
        assert predicted.probabilities is not None


@pytest.mark.parametrize("name", NAMES)
def test_absent_content_can_not_matter(tmp_path, models, name):
    """Poison: absent features are not a number; losses, weights and predictions don't notice.

    Methods that declare ``targets`` read absent features in training; they are poisoned in
    validation and test only.
    """
    outcomes = []
    for poison in (False, True):
        training, job, method = prepare(tmp_path, models, name, "train.schedule=fixed-ta")
        masks = draw(job.valid, Fixed(kind="fixed", available=("text",)), job.data_set, seed=0)
        if poison:
            if not job.targets:
                job.train._values["vision"][: len(job.train)] = torch.nan
            for modality in ("audio", "vision"):
                job.valid._values[modality][: len(job.valid)] = torch.nan
        training.job = replace(job, validation=(replace(job.validation[0], masks=masks),))
        progress = training.run()
        predicted = predict(method, job.valid, masks, job.evaluation_batch, "float32")
        weights = torch.cat([value.flatten().double() for value in method.state_dict().values()])
        history = [str({k: v for k, v in row.items() if k != "seconds"}) for row in progress.history]
        outcomes.append((weights, predicted, history))
    (weights, predicted, history), (poisoned, other, other_history) = outcomes
    assert torch.equal(weights, poisoned)
    assert history == other_history
    for one, two in ((predicted.score, other.score), (predicted.probabilities, other.probabilities)):
        assert (one is None) == (two is None)
        assert one is None or (one == two).all()


@pytest.mark.parametrize("name", TRAINED)
def test_predictions_depend_on_no_padding_and_no_neighbour_in_the_batch(tmp_path, models, name):
    training, job, method = prepare(tmp_path, models, name, "train.schedule=random-0.3")
    training.run()
    masks = draw(job.valid, Random(kind="random", rate=0.4), job.data_set, seed=1)
    whole = predict(method, job.valid, masks, job.valid.units, "float32")
    for size in (1, 3):
        parts = predict(method, job.valid, masks, size, "float32")
        for one, two in ((whole.score, parts.score), (whole.probabilities, parts.probabilities)):
            if one is not None:
                assert abs(one - two).max() < 2e-5


@pytest.mark.parametrize("name", NAMES)
def test_prediction_needs_no_labels(tmp_path, models, name):
    training, job, method = prepare(tmp_path, models, name)
    batch = job.valid.batch(torch.arange(2), job.valid.everything(), labels=False, targets=False)
    assert batch.labels is None
    method.eval()
    with torch.no_grad():
        method.before_evaluation(training._view)
        method.predict(batch)


class NoReads(TorchDispatchMode):
    """Fails on what would make the host wait for a device: a value read, or a size that depends on one."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal.default")

    def __init__(self) -> None:
        super().__init__()
        self.paused = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).removeprefix("aten.")
        if not self.paused:
            assert not name.startswith(self.FORBIDDEN), f"{name} reads from the device"
            if name.startswith(("index.", "index_put")):
                masks = [index for index in args[1] if index is not None and index.dtype == torch.bool]
                assert not masks, f"{name} with a mask has a size that only the device knows"
        return func(*args, **(kwargs or {}))

    def pausing(self, function):
        """The function, whose reads are of tensors that live on the CPU whatever the device."""

        def call(*args, **kwargs):
            self.paused = True
            try:
                return function(*args, **kwargs)
            finally:
                self.paused = False

        return call


@pytest.mark.parametrize("name", TRAINED)
def test_a_training_step_reads_nothing_from_the_device(tmp_path, models, name, monkeypatch):
    training, _, method = prepare(tmp_path, models, name, "train.schedule=random-0.3")
    step, guard, steps = method.training_step, NoReads(), []

    def refuse(*_):
        raise AssertionError("a tensor was taken to the host")

    def watched(batch: Batch):
        steps.append(1)
        with monkeypatch.context() as patch, guard:
            for reading in ("tolist", "numpy", "cpu"):
                patch.setattr(torch.Tensor, reading, refuse)
            for optimizer in method.optimizers:  # its counter of steps
                patch.setattr(optimizer, "step", guard.pausing(optimizer.step))
            for recurrent in (torch.nn.LSTM, torch.nn.GRU):  # the batch sizes of packed sequences
                patch.setattr(recurrent, "forward", _paused_method(guard, recurrent.forward))
            # The transformers library looks at its mask; that is its own, not the method's.
            read = LanguageModel.encode_embeddings
            patch.setattr(LanguageModel, "encode_embeddings", _paused_method(guard, read))
            return step(batch)

    method.training_step = watched
    training.run()
    assert steps


def _paused_method(guard, forward):
    return lambda self, *args, **kwargs: guard.pausing(forward)(self, *args, **kwargs)


@pytest.mark.parametrize("name", TRAINED)
def test_every_trainable_parameter_gets_a_gradient_in_some_stage(tmp_path, models, name):
    training, job, method = prepare(tmp_path, models, name, "train.schedule=random-0.3")
    touched: dict[str, bool] = {}
    step = method.training_step

    def spy(batch: Batch):
        result = step(batch)
        for key, parameter in method.named_parameters():
            moved = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
            touched[key] = touched.get(key, False) or moved
        return result

    method.training_step = spy
    training.run()
    trainable = {key for key, parameter in method.named_parameters() if parameter.requires_grad}
    idle = sorted(key for key in trainable if not touched.get(key))
    # Learnable class centres only act when a class of the batch is empty (see docs/methods/ad_mcpd.md).
    assert [key for key in idle if not (name == "ad_mcpd" and "centre" in key)] == []


@pytest.mark.parametrize("schedule", ["fixed-t", "fixed-a", "fixed-v"])
@pytest.mark.parametrize("name", TRAINED)
def test_it_trains_on_a_single_modality(tmp_path, models, name, schedule):
    training, job, method = prepare(tmp_path, models, name, f"train.schedule={schedule}")
    progress = training.run()
    assert progress.step >= 1
    assert all(torch.isfinite(value).all() for value in method.state_dict().values())


@pytest.mark.parametrize("name", TRAINED)
def test_a_batch_of_one_and_an_absent_class_are_finite(tmp_path, models, name):
    _, job, method = prepare(tmp_path, models, name, "compute={epochs=1, batch_size=1}", task="multiclass")
    training = Training(job, method)
    progress = training.run()
    assert progress.step == 1
    assert all(torch.isfinite(value).all() for value in method.state_dict().values())


@pytest.mark.parametrize("name", TRAINED)
def test_two_and_four_modalities_work_or_are_skipped_with_a_reason(tmp_path, models, name):
    for dims in ("{text=6, audio=4}", "{text=6, audio=4, vision=5, gaze=3}"):
        folder = tmp_path / str(len(dims))
        folder.mkdir()
        features = dims.replace("6", "'vectors'").replace("4", "'vectors'").replace("5", "'vectors'")
        features = features.replace("3", "'vectors'")
        try:
            training, _, _ = prepare(
                folder, models, name, f"data.synthetic.dims={dims}", f"data.features={features}"
            )
        except pytest.skip.Exception as skipped:
            assert str(skipped)
            continue
        assert training.run().step >= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_model(tmp_path, models, name):
    states = []
    for _ in range(2):
        training, _, method = prepare(tmp_path, models, name)
        training.run()
        states.append(torch.cat([value.flatten().double() for value in method.state_dict().values()]))
    assert torch.equal(states[0], states[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", TRAINED)
def test_cuda_agrees_with_the_cpu(name, models):
    info: MethodInfo = method_info(name)
    spec = make_spec(level=info.takes[0])
    batch = make_batch(spec)
    losses = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        services = RunServices(1, torch.device(device), models)
        method = method_class(info)(spec, info.parameters(**SMALL[name]), services).to(device).eval()
        moved = replace(batch, **{key: _moved(value, device) for key, value in vars(batch).items()})
        losses.append(float(method.losses(moved)["total"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def _moved(value: Any, device: str) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: item.to(device) for key, item in value.items()}
    return value


def test_seeds_of_different_uses_differ():
    seeds = {derive_seed(1, "a"), derive_seed(1, "b"), derive_seed(2, "a"), derive_seed(1, "a", 0)}
    assert len(seeds) == 4
