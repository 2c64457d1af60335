"""Cost of AD-MCPD: its graph, a training step per language model, a whole run of 20 epochs.

::

    python benchmarks/ad_mcpd.py [--parts graph,step,run] [--threads 1]

The reference figures are those of the method's specification, measured elsewhere (released code, torch
2.13.0 on a CPU, 2 cores) and not measured again here: ratios against them compare two machines. CPU
seconds are those of this process, which other work on the machine hardly moves; seconds on the clock
are printed beside them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from imer_bench.harness.batch import Batch
from imer_bench.harness.language_models import (
    LanguageModel,
    LanguageModels,
    byte_tokenizer,
    encoder_from_config,
    freeze,
)
from imer_bench.harness.method import Stage, StagePlan
from imer_bench.harness.spec import SENTIMENT_CLASSES, DataSpec, ModalitySpec
from imer_bench.methods.ad_mcpd.encoder import Encoded, fuse, fused_pseudo_labels
from imer_bench.methods.ad_mcpd.graph import ResidualGraphConvolution, SemanticGraph
from imer_bench.methods.ad_mcpd.info import Parameters
from imer_bench.methods.ad_mcpd.model import AdMcpd

WIDTH, CLASSES, MODALITIES = 512, 3, 3
# Released graph, forward and backward, D = 512, three classes, three modalities, complete batch.
SPECIFICATION_SECONDS = {32: 0.86, 128: 19.3}
# Shapes of the encoders; the weights are random, which costs the same.
T5_SHAPES = {
    "t5-small": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
    "t5-base": {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
}
MOSI_DIMS = {"text": 768, "audio": 74, "vision": 35}


@dataclass(frozen=True)
class Cost:
    """Best of several repetitions, in seconds."""

    cpu: float
    wall: float


def best_of(work: Callable[[], object], repetitions: int) -> Cost:
    """Best CPU and wall time; one repetition in front does not count."""
    work()
    cpu, wall = [], []
    for _ in range(repetitions):
        busy, clock = time.process_time(), time.perf_counter()
        work()
        cpu.append(time.process_time() - busy)
        wall.append(time.perf_counter() - clock)
    return Cost(min(cpu), min(wall))


def graph_pass(size: int) -> Callable[[], None]:
    """Forward and backward through graph and convolution of a complete batch."""
    generator = torch.Generator().manual_seed(0)
    graph, convolution = SemanticGraph(CLASSES, WIDTH, 1.5), ResidualGraphConvolution(WIDTH)
    values = torch.randn(MODALITIES, size, WIDTH, generator=generator)
    logits = torch.randn(MODALITIES, size, CLASSES, generator=generator)
    available = torch.ones(MODALITIES, size, dtype=torch.bool)

    def work() -> None:
        features = values.clone().requires_grad_(True)
        log_p = torch.log_softmax(logits.clone().requires_grad_(True), dim=-1)
        encoded = Encoded(
            features=features,
            log_p=log_p,
            available=available,
            fused=fuse(features, available, 0.1),
            fused_p=fused_pseudo_labels(log_p, available, "mean"),
        )
        built = graph(encoded)
        hidden = convolution(
            built.adjacency[:size], built.degree[:size], built.degree, built.nodes, encoded.fused
        )
        hidden.sum().backward()

    return work


class _Services:
    """What the method needs, without an engine."""

    device = torch.device("cpu")

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    def generator(self, name: str) -> torch.Generator:
        """A fixed generator."""
        return torch.Generator().manual_seed(0)

    def language_model(self, name: str) -> LanguageModel:
        """The one model."""
        return self.model


def model_of(name: str) -> LanguageModel:
    """A random encoder of the registry, or one of the shape of a T5."""
    if name not in T5_SHAPES:
        return LanguageModels().resolve(name)
    from transformers import AutoConfig

    config = AutoConfig.for_model("t5", vocab_size=32128, pad_token_id=0, eos_token_id=1, **T5_SHAPES[name])
    return freeze(name, encoder_from_config(config), byte_tokenizer, True, torch.device("cpu"))


def step_of(model: LanguageModel, size: int = 32) -> tuple[Callable[[], object], int]:
    """A training step on half-incomplete utterances of CMU-MOSI's widths, and the trainable parameters."""
    spec = DataSpec(
        name="shape of CMU-MOSI",
        modalities=tuple(ModalitySpec(name, dim, 1) for name, dim in MOSI_DIMS.items()),
        task="regression",
        classes=SENTIMENT_CLASSES,
        score_range=(-3.0, 3.0),
        longest_dialogue=63,
        speakers=1,
        train_utterances=1284,
        train_dialogues=52,
        class_counts=(),
        level="vectors",
    )
    torch.manual_seed(0)
    method = AdMcpd(spec, Parameters(language_model=model.name), _Services(model))
    method.start_stage(StagePlan(Stage(), 0, 1))
    method.train()
    available = torch.ones(size, MODALITIES, dtype=torch.bool)
    available[::2, 1] = False
    features = {
        name: torch.randn(size, dim) * available[:, index, None]
        for index, (name, dim) in enumerate(MOSI_DIMS.items())
    }
    batch = Batch(
        features=features,
        available=available,
        real=torch.ones(size, dtype=torch.bool),
        speakers=torch.zeros(size, dtype=torch.int64),
        lengths=(1,) * size,
        rows=torch.arange(size),
        labels=torch.randn(size),
    )
    trainable = sum(values.numel() for values in method.parameters() if values.requires_grad)
    return lambda: method.training_step(batch), trainable


def run_of_twenty_epochs(threads: int) -> tuple[Cost, int]:
    """A whole run, evaluations included, on generated data of CMU-MOSI's size and widths."""
    from imer_bench.harness.api import plan_protocol, run_plan

    entry = (
        '{ name = "ad_mcpd", parameters = { language_model = "random-t5-tiny", patience = 20, epochs = 20 } }'
    )
    plan = plan_protocol(
        "protocols/mosi_single.toml",
        settings=[f"methods=[{entry}]", f"compute.threads={threads}", "leaderboard.resamples=100"],
        seeds=[1],
        synthetic=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        busy, clock = time.process_time(), time.perf_counter()
        results = run_plan(plan, folder)
        cost = Cost(time.process_time() - busy, time.perf_counter() - clock)
        (stored,) = results.store.runs()
    if stored.status != "finished":
        raise SystemExit(f"the run ended as {stored.status}: {stored.record['error']}")
    return cost, stored.record["epochs"]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default="graph,step,run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--models", default="random-t5-tiny,t5-small,t5-base")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    parts = args.parts.split(",")
    print(f"torch {torch.__version__}, CPU, {args.threads} threads, float32")
    if "graph" in parts:
        print(f"\nGraph, forward and backward, D = {WIDTH}, C = {CLASSES}, M = {MODALITIES}, complete batch")
        for size in (32, 128, 512):
            cost = best_of(graph_pass(size), args.repetitions)
            reference = SPECIFICATION_SECONDS.get(size)
            beside = "no reference figure"
            if reference is not None:
                beside = f"specification's figure {reference:g} s, {reference / cost.cpu:.0f} times as long"
            print(f"  B = {size:3d}: CPU {1e3 * cost.cpu:6.1f} ms, clock {1e3 * cost.wall:6.1f} ms; {beside}")
    if "step" in parts:
        print(f"\nTraining step, B = 32, D = {WIDTH}, half of the utterances incomplete, random weights")
        for name in args.models.split(","):
            step, trainable = step_of(model_of(name))
            cost = best_of(step, max(3, args.repetitions // 4))
            print(
                f"  {name:15s}: CPU {cost.cpu:6.3f} s, clock {cost.wall:6.3f} s, "
                f"{trainable / 1e6:.2f} million trainable parameters"
            )
    if "run" in parts:
        cost, epochs = run_of_twenty_epochs(args.threads)
        print(
            f"\nRun of {epochs} epochs, D = {WIDTH}, random-t5-tiny, generated data of CMU-MOSI's size: "
            f"CPU {cost.cpu:.0f} s, clock {cost.wall:.0f} s"
        )


if __name__ == "__main__":
    main()
