"""Building blocks of the methods made of modality transformers over a dialogue (MoMKE, ComP).

Layers without layer normalisation, positional encoding and output projection of the attention, as
both papers' code has them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..harness.batch import Batch
from ..harness.spec import DataSpec


class MLP(nn.Module):
    """Linear, exact GELU, dropout, linear, dropout: the last dropout acts on the OUTPUT.

    Args:
        width: Input width.
        hidden: Width between the two linear maps.
        out: Output width.
        dropout: Dropout after the activation.
        out_dropout: Dropout on the output; ``None``: the same.
    """

    def __init__(
        self, width: int, hidden: int, out: int, dropout: float, out_dropout: float | None = None
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out)
        self.dropout = nn.Dropout(dropout)
        self.out_dropout = nn.Dropout(dropout if out_dropout is None else out_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width]`` to ``[..., out]``."""
        return self.out_dropout(self.fc2(self.dropout(functional.gelu(self.fc1(x)))))


class TransformerLayer(nn.Module):
    """x + y + MLP(y) with y the self-attention of x over the valid utterances of its dialogue.

    A dialogue without any valid utterance has attention output 0. Queries are never masked: an
    utterance that lacks the modality attends to those that have it.

    Args:
        width: Model width D, divisible by ``heads``.
        heads: Attention heads.
        hidden: Width inside the MLP.
        dropout: Dropout of the MLP.
        attention_dropout: Dropout on the attention probabilities.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_dropout = attention_dropout
        # Query, key and value in one product; each third is initialised as a linear map D -> D.
        self.qkv = nn.Linear(width, 3 * width)
        self.mlp = MLP(width, hidden, width, dropout)

    def forward(self, x: Tensor, keys: DialogueKeys) -> Tensor:
        """``[N, S, D]`` to ``[N, S, D]``."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=keys.mask,
            dropout_p=self.attention_dropout if self.training else 0.0,
        )
        y = torch.where(keys.some, attended.transpose(1, 2).flatten(2), 0.0)
        return x + y + self.mlp(y)


class DialogueKeys:
    """Attention mask of a batch of dialogues, made once for all layers.

    Args:
        valid: ``[N, S]`` bool, utterances that may be attended to. A dialogue without any gets all
            of them, so that no softmax row is empty (fused kernels differ on those), and
            ``some`` sets its result to 0.
    """

    def __init__(self, valid: Tensor) -> None:
        some = valid.any(dim=1, keepdim=True)
        self.mask = (valid | ~some)[:, None, None, :]
        self.some = some[..., None]


class ModalityTransformer(nn.Module):
    """A stack of layers for one modality's view of a dialogue.

    Args:
        depth: Number of layers.
        width: Model width D.
        heads: Attention heads.
        hidden: Width inside the MLPs.
        dropout: Dropout of the MLPs.
        attention_dropout: Dropout on the attention probabilities.
    """

    def __init__(
        self, depth: int, width: int, heads: int, hidden: int, dropout: float, attention_dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerLayer(width, heads, hidden, dropout, attention_dropout) for _ in range(depth)
        )

    def forward(self, x: Tensor, keys: DialogueKeys) -> Tensor:
        """``[N, S, D]`` to ``[N, S, D]``."""
        for layer in self.layers:
            x = layer(x, keys)
        return x


class JointHead(nn.Module):
    """Concatenated modalities J, hidden = J + Dropout(ReLU(Linear(J))), outputs = Linear(hidden).

    Args:
        width: Width of J.
        outputs: Number of outputs.
        dropout: Dropout of the residual branch.
    """

    def __init__(self, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.projection = nn.Linear(width, width)
        self.classifier = nn.Linear(width, outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, joint: Tensor) -> tuple[Tensor, Tensor]:
        """``[..., width]`` to hidden ``[..., width]`` and outputs ``[..., K]``."""
        hidden = joint + self.dropout(functional.relu(self.projection(joint)))
        return hidden, self.classifier(hidden)


def modality_order(spec: DataSpec) -> tuple[str, ...]:
    """Names of the modalities in alphabetical order, whatever their order in the data set.

    Concatenations and experts follow it, so that a network does not depend on the data set's order;
    for audio, text and vision it is the authors' order.
    """
    return tuple(sorted(spec.names))


def availability(batch: Batch, spec: DataSpec, names: tuple[str, ...]) -> Tensor:
    """Which modalities of the real utterances are there, ``[M, B, S]`` bool in the order ``names``."""
    columns = [batch.available[..., spec.names.index(name)] for name in names]
    return torch.stack(columns) & batch.real


def task_metrics(logits: Tensor, labels: Tensor, real: Tensor, regression: bool) -> Tensor:
    """Accuracy of class logits, or mean absolute error of scores, over real utterances; a scalar."""
    if regression:
        terms = (logits.squeeze(-1) - labels).abs()
    else:
        terms = (logits.argmax(dim=-1) == labels).to(logits.dtype)
    return torch.where(real, terms, 0.0).sum() / real.sum().clamp(min=1)
