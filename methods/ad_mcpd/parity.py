"""Golden cases: the components in the reference's names (see ``harness/parity/contract.py``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...harness.language_models import LanguageModel, encoder_from_config, freeze
from ...harness.parity.contract import (
    Component,
    Outcome,
    ParityError,
    ReferenceParameter,
    ReferenceParameters,
    Request,
)
from ...harness.spec import DataSpec, ModalitySpec
from .channels import channel_loss, divergence, log_distribution
from .completion import PromptCompletion
from .graph import pair_weights
from .info import INFO, Parameters
from .model import AdMcpd, Pass
from .prototypes import GivenPrototypes, PromptPrototypes, pool
from .reference import REFERENCE_MODALITIES, reference_names

_LETTERS = {"t": "text", "a": "audio", "v": "vision"}
_ARGUMENTS = {
    name: name
    for name in (
        "shared_dim",
        "temperature",
        "lambda_smooth",
        "delta_threshold",
        "beta",
        "top_k",
        "lambda_entropy",
        "completion_weight",
        "lambda_local",
        "lambda_fusion",
        "lambda_prompt",
        "lambda_uni",
        "prompt_len",
        "cls_len",
        "adapter_dropout",
    )
}
_KNOWN = {*_ARGUMENTS, "feature_dims", "num_classes", "llm_dim", "llm", "modality"}


def _settings(request: Request) -> Parameters:
    request.check_constructor(_KNOWN)
    request.check_condition(_LETTERS)
    constructor: dict[str, Any] = {
        ours: request.constructor[theirs]
        for theirs, ours in _ARGUMENTS.items()
        if theirs in request.constructor
    }
    if "temperature" in constructor:
        constructor["pseudo_temperature"] = constructor["temperature"]
    # Prototypes are given by the case, not by a file; the reference has no map into the encoder.
    constructor |= {"prototypes_file": "-", "prototypes_sha256": "-", "completion_input": "identity"}
    return request.hyper_parameters(INFO, Parameters, constructor)


class _InjectedModel:
    """Stands for the language model: answers with the case's tensor."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.answer = torch.zeros(0)

    def encode_embeddings(self, inputs_embeds: Tensor, attention_mask: Tensor) -> Tensor:
        return self.answer[:, None]


class _Services:
    device = torch.device("cpu")

    def generator(self, name: str) -> torch.Generator:
        return torch.Generator()

    def language_model(self, name: str) -> Any:
        raise LookupError(name)


class Model(Component):
    """Sections 2 to 4 for one batch, prototypes and the language model's answer given."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.settings = _settings(request)
        sizes = request.constructor
        classes = tuple(f"class {index}" for index in range(sizes["num_classes"]))
        modalities = tuple(
            ModalitySpec(name, dim)
            for name, dim in zip(REFERENCE_MODALITIES, sizes["feature_dims"], strict=True)
        )
        spec = DataSpec(
            name=request.section,
            modalities=modalities,
            task="multiclass",
            classes=classes,
            score_range=None,
            longest_dialogue=1,
            speakers=1,
            train_utterances=1,
            train_dialogues=1,
        )
        self.answers = _InjectedModel(sizes["llm_dim"])
        # The width of the injected answer is free: nothing is ever fed into the model.
        completion = PromptCompletion(
            cast(LanguageModel, self.answers),
            self.settings.shared_dim,
            self.settings.cls_token,
            self.settings.completion_absent,
            "identity",
        )
        plain = self.settings.model_copy(update={"prototypes": "learned", "completion": "none"})
        self.method = AdMcpd(spec, plain, _Services())
        self.method.completion = completion
        self.method.prototypes = nn.Identity()
        self.module = self.method

    def reference_parameters(self) -> ReferenceParameters:
        """Our parameters by the released names."""
        ours = dict(self.method.named_parameters())
        return {
            theirs: ReferenceParameter(ours[name]) for theirs, name in reference_names(self.method).items()
        }

    def forward(self, inputs: Mapping[str, Tensor]) -> Outcome:
        """Results of one batch by their golden names."""
        method = self.method
        names = method.spec.names
        available = inputs["availability"].bool()
        if self.request.condition is not None:
            kept = [letter in self.request.condition for letter in "tav"]
            available = available & torch.tensor(kept, device=available.device)
        levels = len(names) + 1
        method.prototypes = GivenPrototypes(inputs["prototypes"], levels, self.settings.shared_dim)
        self.answers.answer = inputs["llm_output"]
        forward = method.analyse({name: inputs[name] for name in names}, available, inputs["labels"])
        losses = method.channel_losses(forward, inputs["labels"])
        outputs = {
            **self._representations(forward),
            **self._anchoring(forward),
            **self._prompting(forward),
            **self._losses(losses),
            "probe_loss": (forward.enhanced * inputs["probe"]).sum(),
        }
        present = dict(zip(names, forward.encoded.available.any(dim=1).tolist(), strict=True))
        gone = tuple(f"_{name}" for name, there in present.items() if not there)
        kept_outputs = {name: value for name, value in outputs.items() if not gone or not name.endswith(gone)}
        return Outcome(kept_outputs, losses["total"])

    def _representations(self, forward: Pass) -> dict[str, Tensor]:
        encoded, graph = forward.encoded, forward.graph
        assert graph is not None
        weights = pair_weights(graph.view, graph.view, self.settings.delta_threshold)
        weights = weights * (1.0 - torch.eye(weights.shape[-1], device=weights.device))
        outputs = {
            "u": encoded.fused,
            "p_fused": encoded.fused_p,
            "X": graph.nodes,
            "A": graph.adjacency,
            "u_enh": forward.enhanced,
        }
        for index, name in enumerate(self.method.spec.names):
            outputs[f"z_{name}"] = encoded.features[index]
            outputs[f"p_{name}"] = encoded.log_p[index].exp()
            outputs[f"centres_{name}"] = graph.centres.means[index]
            outputs[f"edges_{name}"] = weights[index]
        if self.settings.graph_metric == "cosine":
            outputs["A_norm"] = graph.adjacency
        if self.settings.centre_average == "present":
            outputs |= {f"{name}_present": outputs[name] for name in ("A", "X", "u_enh")}
        return outputs

    def _anchoring(self, forward: Pass) -> dict[str, Tensor]:
        settings, outputs = self.settings, {}
        own = log_distribution(
            forward.anchors, forward.anchors, settings.temperature, settings.similarity
        ).exp()
        for index, name in enumerate((*self.method.spec.names, "global")):
            outputs[f"sim_{name}"] = forward.similarities[index]
            outputs[f"anchors_{name}"] = forward.anchors[index]
            outputs[f"dist_{name}"] = forward.log_q[index].exp()
            outputs[f"anchor_dist_{name}"] = own[index]
            if settings.similarity == "cosine":
                outputs[f"dist_cos_{name}"] = forward.log_q[index].exp()
            chosen = [row.nonzero().squeeze(-1) for row in forward.selection.chosen[index]]
            if len({len(row) for row in chosen}) == 1:
                outputs[f"topk_{name}"] = torch.stack(chosen)
        return self._with_documented(outputs)

    def _prompting(self, forward: Pass) -> dict[str, Tensor]:
        settings, encoded = self.settings, forward.encoded
        completion = self.method.completion
        assert isinstance(completion, PromptCompletion)
        tokens, mask = completion.sequence(encoded.features, encoded.available, forward.prototypes[-1])
        probabilities = forward.log_probabilities.exp()
        outputs = {
            "completion_sequence": _cut(tokens, mask, settings),
            "missing_embeddings": forward.completion,
            "q_prompt": log_distribution(
                forward.completion, forward.anchors[-1], settings.temperature, settings.similarity
            ).exp(),
            "missing_flag": encoded.incomplete.float(),
            "compensated": forward.compensated,
            "final_probs": probabilities,
        }
        if settings.similarity == "cosine":
            outputs["final_probs_cos"] = probabilities
        return self._with_documented(outputs)

    def _with_documented(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adds the names of the documented wiring where it is in force."""
        if self.settings.downstream != "enhanced":
            return outputs
        return outputs | {f"{name}.doc": value for name, value in outputs.items()}

    def _losses(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        settings = self.settings
        reverse = "_reverse" if settings.kl_direction == "student_teacher" else ""
        teacher = {"anchor": "_anchor", "prototype": "_prototype", "self": ""}[settings.teacher]
        cls = "cls_nll" if settings.classification_loss == "logits" else "cls"
        outputs = {
            f"loss.local{teacher}{reverse}": losses["local"],
            f"loss.fusion{teacher}{reverse}": losses["fusion"],
            f"loss.prompt{reverse}": losses["prompt"],
            f"loss.{cls}": losses["cls"],
            "loss.total": losses["total"],
        }
        if settings.lambda_uni:
            outputs["loss.uni"] = losses["uni"]
        return outputs


class _WithEncoder(Component):
    """A component around the case's own small encoder."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        from transformers import AutoConfig

        self.settings = _settings(request)
        encoder = encoder_from_config(AutoConfig.for_model(**request.constructor["llm"]))
        self.language_model = freeze("case", encoder, _no_tokens, True, torch.device("cpu"))
        self.module = encoder

    def encoder_parameters(self) -> dict[str, ReferenceParameter]:
        return {
            f"llm_encoder.llm_encoder.encoder.{name}": ReferenceParameter(value)
            for name, value in self.language_model.encoder.named_parameters()
        }


class TextPrototypes(_WithEncoder):
    """Prototypes from tokenised class prompts, without projection."""

    def reference_parameters(self) -> ReferenceParameters:
        """Our parameters by the released names."""
        return self.encoder_parameters()

    def forward(self, inputs: Mapping[str, Tensor]) -> Outcome:
        """Results of one batch by their golden names."""
        modality = self.request.constructor["modality"]
        mask = inputs[f"attention_mask_{modality}"]
        embedded = self.language_model.embed_tokens(inputs[f"input_ids_{modality}"])
        states = self.language_model.encode_embeddings(embedded, mask)
        kind = "meanpool_" if self.settings.pooling == "mean" else ""
        return Outcome({f"prototypes_text_{kind}{modality}": pool(states, mask, self.settings.pooling)})


class PromptedPrototypes(_WithEncoder):
    """Prototypes from learnable tokens in the released layout: one learnable [MOD] vector."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        settings = self.settings
        classes = [f"class {index}" for index in range(request.constructor["num_classes"])]
        self.prototypes = PromptPrototypes(
            self.language_model,
            REFERENCE_MODALITIES,
            classes,
            settings.shared_dim,
            settings.prompt_len,
            settings.cls_len,
            pooling=settings.pooling,
        )
        self.prototypes.words.zero_()
        self.module = nn.ModuleList([self.prototypes, self.language_model.encoder])

    def reference_parameters(self) -> ReferenceParameters:
        """Our parameters by the released names."""
        ours = self.prototypes
        return {
            **self.encoder_parameters(),
            "learnable_prompt": ReferenceParameter(ours.prompts),
            "learnable_cls": ReferenceParameter(ours.class_tokens),
            "mod_token": ReferenceParameter(ours.modality_offset, lambda tensor: tensor.view(1, 1, -1)),
            "llm_encoder.projection.weight": ReferenceParameter(ours.to_shared.weight),
            "llm_encoder.projection.bias": ReferenceParameter(ours.to_shared.bias),
        }

    def forward(self, inputs: Mapping[str, Tensor]) -> Outcome:
        """Results of one batch by their golden names."""
        return Outcome(
            {"prompt_sequence": self.prototypes.sequence()[-1], "prototypes_prompt": self.prototypes()[-1]}
        )


class Completion(_WithEncoder):
    """Completion and its channel for given features, anchors and prototypes."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        settings = self.settings
        if settings.prompt_teacher != "mean_attached":
            raise ParityError(
                f"section {request.section!r}: prompt_teacher {settings.prompt_teacher!r} needs enhanced "
                "features, which the component 'completion' does not have"
            )
        self.completion = PromptCompletion(
            self.language_model,
            settings.shared_dim,
            settings.cls_token,
            settings.completion_absent,
            settings.completion_input,
        )
        self.module = nn.ModuleList([self.completion, self.language_model.encoder])

    def reference_parameters(self) -> ReferenceParameters:
        """Our parameters by the released names."""
        return {
            **self.encoder_parameters(),
            "missing_placeholder": ReferenceParameter(self.completion.placeholder),
            "llm_encoder.projection.weight": ReferenceParameter(self.completion.to_shared.weight),
            "llm_encoder.projection.bias": ReferenceParameter(self.completion.to_shared.bias),
        }

    def forward(self, inputs: Mapping[str, Tensor]) -> Outcome:
        """Results of one batch by their golden names."""
        settings = self.settings
        features = torch.stack([inputs[f"z_{name}"] for name in REFERENCE_MODALITIES])
        kept = [self.request.condition is None or letter in self.request.condition for letter in "tav"]
        there = torch.tensor(kept, device=features.device)
        available = there[:, None].expand(features.shape[:2])
        features = torch.where(available[..., None], features, 0.0)
        tokens, mask = self.completion.sequence(features, available, inputs["prototypes"])
        completed = self.completion(features, available, inputs["prototypes"])

        def distribution(values: Tensor) -> Tensor:
            return log_distribution(
                values, inputs["anchors_global"], settings.temperature, settings.similarity
            )

        mean = features.sum(dim=0) / there.sum()
        prompt = divergence(
            distribution(mean), distribution(completed), settings.kl_direction, settings.similarity
        )
        loss = channel_loss(prompt[None], available.any(dim=0)[None], settings.similarity)
        reverse = "_reverse" if settings.kl_direction == "student_teacher" else ""
        return Outcome(
            {
                "completion_sequence": _cut(tokens, mask, settings),
                "missing_embeddings": completed,
                f"loss.prompt{reverse}": loss,
            },
            loss,
        )


def _cut(tokens: Tensor, mask: Tensor, settings: Parameters) -> Tensor:
    """The sequence without the slots that nobody has left."""
    if settings.completion_absent == "masked":
        return tokens
    return tokens[:, : int(mask.sum(dim=1).max())]


def _no_tokens(texts: Any, special: bool) -> tuple[list[list[int]], int]:
    return [[0] for _ in texts], 0


COMPONENTS: Mapping[str, Callable[[Request], Component]] = {
    "model": Model,
    "text_prototypes": TextPrototypes,
    "prompt_prototypes": PromptedPrototypes,
    "completion": Completion,
}
