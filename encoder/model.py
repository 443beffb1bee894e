"""The trained model: item tower, sequence block, unit vectors. Sizes: b users, t events, d dimensions, h state width.

An event's input is its item's vector, its type, the time since the event before, and a rating if it was one. The block
of this project is a gated linear recurrence; self-attention (SASRec, Kang and McAuley 2018) and GRU4Rec (Hidasi et al.
2016) share tower, loss and loop with it, as yardsticks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor, nn

from encoder.config import ModelConfig
from encoder.scan import linear_recurrence

EMBEDDING_DEVIATION = 0.02
CONTENT_DEVIATION = 0.16
"""A unit content vector then weighs as much as eight ids at the start: what is known beats what is not learned yet."""
DECAY_BIAS_MIN, DECAY_BIAS_MAX = 0.5, 3.5
"""Before it learns, a state keeps .62 to .97 of itself at each event: memories of 2 to 30 events."""
NORM_MIN = 1e-6


@dataclass(frozen=True, slots=True)
class EventInputs:
    """A batch of users' events, oldest first, padded at the end."""

    items: Tensor
    """(b, t) rows of the item vectors that come with the batch."""
    types: Tensor
    """(b, t) rows of the type vocabulary, 0 = unknown."""
    features: Tensor
    """(b, t, EVENT_FEATURES) as `encoder.features.event_features` makes them."""
    attributes: Tensor
    """(b, a) attribute rows of each user, 0 = none."""
    masked: Tensor | None = None
    """(b, t) events whose item is hidden, to be guessed."""


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """Rows of the embeddings: how many items, attribute tokens and types there are, without the rows for "none"."""

    items: int
    item_attributes: int
    user_attributes: int
    types: int


class ItemTower(nn.Module):
    """Items -> unit vectors: projected text and image + an embedding of the id + its attributes' mean embedding.

    In training the id is left out now and then (ID dropout), so that the others alone are worth something: an item that
    nobody has touched has no more than that.
    """

    content_mean: Tensor
    image_mean: Tensor

    def __init__(self, config: ModelConfig, sizes: ModelSizes) -> None:
        super().__init__()
        self.ids = nn.Embedding(sizes.items, config.dim)  # (i, d)
        nn.init.normal_(self.ids.weight, 0.0, EMBEDDING_DEVIATION)
        self.attributes = _sparse_table(sizes.item_attributes, config.dim)  # (a + 1, d)
        self.content = nn.Linear(config.content_dim, config.dim, bias=False) if config.content_dim else None
        if self.content is not None:
            nn.init.normal_(self.content.weight, 0.0, CONTENT_DEVIATION)
        # texts of one catalogue share a direction that tells nothing (ADR 9); constant, so that vectors stay comparable
        self.register_buffer("content_mean", torch.zeros(config.content_dim))  # (c,)
        self.image = nn.Linear(config.image_dim, config.dim, bias=False) if config.image_dim else None
        if self.image is not None:
            nn.init.normal_(self.image.weight, 0.0, CONTENT_DEVIATION)
            self.register_buffer("image_mean", torch.zeros(config.image_dim))  # (m,)
        self.id_dropout = config.id_dropout

    def forward(
        self, rows: Tensor, content: Tensor | None, attributes: Tensor | None, images: Tensor | None = None
    ) -> Tensor:
        """Unit vectors (n, d).

        Args:
            rows: (n,) rows of the vocabulary, -1 for an item it does not hold.
            content: (n, c) frozen vectors of texts, zeros where there are none; None for a model without.
            attributes: (n, a) rows of the attribute vocabulary, 0 = none; None for a model without them.
            images: (n, m) frozen vectors of images, zeros where there are none; None for a model without.
        """
        total = self.ids(rows.clamp(min=0)) * (rows >= 0)[:, None]  # (n, d)
        knows_more = self.content is not None or self.attributes is not None or self.image is not None
        if self.training and self.id_dropout > 0 and knows_more:
            total = total * (torch.rand(len(rows), 1, device=total.device) >= self.id_dropout)
        if self.content is not None and content is not None:
            known = content.any(dim=-1, keepdim=True)  # (n, 1)
            total = total + self.content((content - self.content_mean) * known)
        if self.image is not None and images is not None:
            shown = images.any(dim=-1, keepdim=True)  # (n, 1)
            total = total + self.image((images - self.image_mean) * shown)
        if self.attributes is not None and attributes is not None:
            total = total + mean_embedding(self.attributes, attributes)
        return F.normalize(total, dim=-1, eps=NORM_MIN)


class GatedRecurrence(nn.Module):
    """h[t] = a[t] h[t-1] + (1 - a[t]) W x[t], a[t] = sigmoid(A x[t]); y[t] = V (h[t] * silu(G x[t])).

    The gates see the input only, so that training scans all positions at once and serving is one multiply-add
    (as in minGRU, Feng et al. 2024, and RG-LRU, De et al. 2024).
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.value = nn.Linear(dim, width)
        self.decay = nn.Linear(dim, width)
        self.gate = nn.Linear(dim, width)
        self.out = nn.Linear(width, dim)
        nn.init.uniform_(self.decay.bias, DECAY_BIAS_MIN, DECAY_BIAS_MAX)

    def forward(self, x: Tensor, initial: Tensor) -> Tensor:
        """(b, t, d) from x (b, t, d) and the state before the first event, (b, h)."""
        decays = torch.sigmoid(self.decay(x))  # (b, t, h)
        states = linear_recurrence(decays, (1 - decays) * self.value(x), initial)  # (b, t, h)
        y: Tensor = self.out(states * F.silu(self.gate(x)))  # (b, t, d)
        return y


class CausalSelfAttention(nn.Module):
    """Softmax attention to the event itself and those before it."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.heads, self.dropout = heads, dropout

    def forward(self, x: Tensor, initial: Tensor) -> Tensor:  # noqa: ARG002 - attention has no state to start from
        """(b, t, d) from x (b, t, d)."""
        b, t, d = x.shape
        qkv = self.qkv(x).view(b, t, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (b, heads, t, d / heads)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)
        y: Tensor = self.out(mixed.transpose(1, 2).reshape(b, t, d))  # (b, t, d)
        return y


class Block(nn.Module):
    """Mixing over time, then a feed-forward layer, each with LayerNorm before and a residual around it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d = config.dim
        self.mix_norm, self.feed_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.mix = (
            GatedRecurrence(d, config.width)
            if config.kind == "gated-recurrence"
            else CausalSelfAttention(d, config.heads, config.dropout)
        )
        self.feed_in, self.feed_out = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, initial: Tensor) -> Tensor:
        """(b, t, d) from x (b, t, d) and the state before the first event, (b, h)."""
        x = x + self.dropout(self.mix(self.mix_norm(x), initial))
        y: Tensor = x + self.dropout(self.feed_out(self.dropout(F.relu(self.feed_in(self.feed_norm(x))))))
        return y


class RatingHead(nn.Module):
    """A rating = the mean of all + what the item gets more + what the user gives more + a scale times their cosine."""

    mean: Tensor

    def __init__(self, dim: int, items: int) -> None:
        super().__init__()
        self.item_bias = nn.Embedding(items, 1)
        nn.init.zeros_(self.item_bias.weight)
        self.user_bias = nn.Linear(dim, 1, bias=False)
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, users: Tensor, vectors: Tensor, rows: Tensor) -> Tensor:
        """(n,) ratings of the items at `rows` (n,) with `vectors` (n, d) by `users` (n, d)."""
        cosines = (users * vectors).sum(-1)  # (n,)
        rating: Tensor = self.mean + self.item_bias(rows)[:, 0] + self.user_bias(users)[:, 0] + self.scale * cosines
        return rating


class SequenceModel(nn.Module):
    """Events of one user -> a unit vector after each of them, comparable with the items' vectors by cosine."""

    def __init__(self, config: ModelConfig, sizes: ModelSizes) -> None:
        super().__init__()
        d = config.dim
        self.config, self.sizes = config, sizes
        self.tower = ItemTower(config, sizes)
        self.types = nn.Embedding(sizes.types + 1, d, padding_idx=0)
        self.features = nn.Linear(config.event_features, d, bias=False)
        self.hidden_item = nn.Parameter(torch.zeros(d))  # stands for an item that is masked
        self.people = _sparse_table(sizes.user_attributes, config.width)  # (a + 1, h)
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.gru = nn.GRU(d, config.width, config.blocks, batch_first=True) if config.kind == "gru" else None
        self.gru_out = nn.Linear(config.width, d) if config.kind == "gru" else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(0 if config.kind == "gru" else config.blocks))
        self.positions = nn.Embedding(config.history_max, d) if config.kind == "self-attention" else None
        for weight in (self.types.weight, self.features.weight, *([self.positions.weight] if self.positions else ())):
            nn.init.normal_(weight, 0.0, EMBEDDING_DEVIATION)
        self.rating = RatingHead(d, sizes.items) if config.rates else None
        self.norm = nn.LayerNorm(d)
        self.projection = nn.Linear(d, d, bias=False)
        nn.init.eye_(self.projection.weight)
        with torch.no_grad():
            self.types.weight[0] = 0.0
            if self.people is not None:
                self.people.weight.zero_()  # at first everybody starts from the zero state

    def rating_head(self) -> RatingHead:
        """What predicts ratings. Raises ValueError: the model has none."""
        if self.rating is None:
            raise ValueError("The objective is `rating`, so the model's config must say `rates=True`.")
        return self.rating

    def initial_states(self, attributes: Tensor) -> Tensor:
        """(b, h) the state before the first event: zeros for a user of whom nothing is known."""
        if self.people is None:
            return torch.zeros(len(attributes), self.config.width, device=attributes.device)
        return mean_embedding(self.people, attributes)

    def starts(self, attributes: Tensor) -> Tensor:
        """(b, d) unit vectors of users before their first event: what an event without item, type and time would give.

        Only a model whose config says `starts` was trained for it.
        """
        b, device = len(attributes), attributes.device
        nothing = EventInputs(
            items=torch.zeros(b, 1, dtype=torch.int64, device=device),
            types=torch.zeros(b, 1, dtype=torch.int64, device=device),
            features=torch.zeros(b, 1, self.config.event_features, device=device),
            attributes=attributes,
            masked=torch.ones(b, 1, dtype=torch.bool, device=device),
        )
        start: Tensor = self(nothing, self.hidden_item[None])[:, 0]  # (b, d)
        return start

    def forward(self, events: EventInputs, vectors: Tensor) -> Tensor:
        """(b, t, d) unit vectors of the user after each event, from the unit vectors (n, d) of the batch's items."""
        x = self.input_dropout(self._inputs(events, vectors))  # (b, t, d)
        initial = self.initial_states(events.attributes)  # (b, h)
        if self.gru is not None and self.gru_out is not None:
            states, _ = self.gru(x, initial.expand(self.config.blocks, -1, -1).contiguous())  # (b, t, h)
            x = self.gru_out(self.input_dropout(states))
        for block in self.blocks:
            x = block(x, initial)
        return F.normalize(self.projection(self.norm(x)), dim=-1, eps=NORM_MIN)

    def _inputs(self, events: EventInputs, vectors: Tensor) -> Tensor:
        x: Tensor = F.embedding(events.items, vectors)  # (b, t, d)
        if events.masked is not None:
            x = torch.where(events.masked[..., None], self.hidden_item, x)
        # unit vectors times sqrt(d): components of size 1, as LayerNorm gives them
        x = x * math.sqrt(self.config.dim) + self.types(events.types) + self.features(events.features)
        if self.positions is not None:
            x = x + self.positions.weight[: x.shape[1]]
        return x


def mean_embedding(table: nn.Embedding, rows: Tensor) -> Tensor:
    """(n, d) mean over the rows (n, a) that are not padding; zeros where all are."""
    count = (rows > 0).sum(-1, keepdim=True).clamp(min=1)  # (n, 1)
    mean: Tensor = table(rows).sum(-2) / count
    return mean


def _sparse_table(rows: int, dim: int) -> nn.Embedding | None:
    """An embedding whose row 0 means none and stays zero; nothing where there are no rows."""
    if not rows:
        return None
    table = nn.Embedding(rows + 1, dim, padding_idx=0)
    nn.init.normal_(table.weight, 0.0, EMBEDDING_DEVIATION)
    with torch.no_grad():
        table.weight[0] = 0.0
    return table
