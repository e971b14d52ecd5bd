"""Models that differ in their loss or seed alone, trained as one network, and what works on them.

K backbones become one whose maps lie side by side as channels: its convolutions are grouped, its
linear layers a batch of products, its batch normalisation one over all channels. Each model keeps
its own parameters, head, loss, optimiser and records; it trains to what it would alone, but for
float32's rounding, and can be taken up alone at any epoch.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.backbones.base import Backbone
from trainables.config import ModelConfig, TrialConfig
from trainables.execution import Execution, free_memory
from trainables.regimes.standard import Standard
from trainables.store import Store
from trainables.training import Batch, Epoch, Tally, Trainer
from trainables.transforms.none import NoTransform
from trainables.trial import SLICE_SECONDS, Report, Trial

Packing = int | Literal["auto"]
MOST = 8  # models in a pack, for `auto`
MOST_ON_A_GPU = 16
TIMED = 3  # steps each way, after one that warms up, by which `auto` decides
MARGIN = 0.9  # of the time alone, that a pack must stay below


class _Planned(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def model(self) -> ModelConfig: ...


P = TypeVar("P", bound=_Planned)


def packs(
    trials: Sequence[P], store: Store, packing: Packing, slots: int, *, gpu: bool = False
) -> list[list[P]]:
    """Trials by the worker that takes them up together; never fewer packs than slots.

    Args:
        trials: what is to be run.
        store: a model that it holds needs no training, hence no pack.
        packing: the largest pack; `auto` is 8, on a GPU 16, and leaves it to each worker
            whether to train its pack as one network.
        slots: workers that run at once.
        gpu: whether they have a GPU.
    """
    most = (MOST_ON_A_GPU if gpu else MOST) if packing == "auto" else packing
    if most == 1:
        return [[trial] for trial in trials]
    trained = store.entries("models")
    alike: dict[Hashable, list[P]] = {}
    for trial in trials:
        kind = None if trial.id in trained else kind_of(trial.model)
        alike.setdefault(kind or trial.id, []).append(trial)
    groups = []
    for members in alike.values():
        share = -(-slots * len(members) // len(trials))
        count = min(len(members), max(share, -(-len(members) // most)))
        members.sort(key=lambda trial: trial.model.seed)  # equal seeds share their batches
        bounds = [index * len(members) // count for index in range(count + 1)]
        groups += [members[a:b] for a, b in itertools.pairwise(bounds)]
    return groups


def kind_of(model: ModelConfig) -> Hashable | None:
    """Equal for models that may be packed together; None for one that never is."""
    plain = isinstance(model.regime, Standard) and isinstance(model.transform, NoTransform)
    if not plain or model.training.precision != "float32":
        return None
    return model.dataset, model.backbone, model.training


class Pack:
    """Trials that one worker advances, trained as one network as long as that can be done.

    A pack of one is a trial. In a larger one all are trained, epoch by epoch, then the cells of
    one after another are measured. Where an epoch goes wrong, it is repeated by each alone, so
    that what is wrong with one (a loss that is not finite) fails that one.

    Args:
        configs: of its trials.
        store: where results are kept.
        execution: what to compute on.
        packing: `auto` trains as one network only where the first steps show that it is faster.
    """

    def __init__(
        self,
        configs: Sequence[TrialConfig],
        store: Store,
        execution: Execution,
        packing: Packing = 1,
    ) -> None:
        models = [config.model for config in configs]
        kind = kind_of(models[0])
        self._clock = None
        self._together = (
            len(models) > 1
            and kind is not None
            and all(kind_of(model) == kind for model in models)
            and joinable(models[0].backbone, models[0].dataset.shape)
        )
        if self._together and packing == "auto":
            seeds = len({model.seed for model in models})
            self._clock = _clock(kind, len(models), seeds == 1, execution)
            self._together = self._clock.verdict is not False
        trainer = Member if self._together else Trainer
        self.left = [Trial(config, store, execution, trainer) for config in configs]

    @property
    def done(self) -> bool:
        """Whether every trial has reported its end."""
        return not self.left

    def advance(self, seconds: float = SLICE_SECONDS) -> list[Report]:
        """Works for about `seconds`; a report of each trial that has come further."""
        reports, started = self._open(), time.perf_counter()
        while not reports or time.perf_counter() - started < seconds:
            level = self._level()
            if not level:
                break
            reports += self._epoch(level)
        reports = _merged(reports) or [self.left[0].advance(seconds)]
        ended = {report.trial_id for report in reports if report.done}
        self.left = [trial for trial in self.left if trial.id not in ended]
        return reports

    def _open(self) -> list[Report]:
        """What is in the store must be known of all before they are trained together."""
        opened = [trial.open() for trial in self.left] if self._together else []
        return [report for report in opened if report is not None]

    def _level(self) -> list[Trial]:
        """The trials that are trained next: those that are behind, after a crash."""
        training = [trial for trial in self.left if trial.trainer is not None]
        if not self._together or len(training) < 2:
            return []
        least = min(_epochs(trial) for trial in training)
        return [trial for trial in training if _epochs(trial) == least]

    def _epoch(self, level: Sequence[Trial]) -> list[Report]:
        """An epoch of each, at once if that can be done."""
        members = [trial.trainer for trial in level if isinstance(trial.trainer, Member)]
        error = train_together(members, self._clock) if len(members) > 1 else None
        reports = [trial.advance(0.0) for trial in level]
        if error is not None and not any(report.failed or report.starved for report in reports):
            self._together = False
            why = f"models could not be trained together ({error}): they are trained alone"
            reports[0] = replace(reports[0], warning=why)
        if self._clock is not None and self._clock.verdict is False:
            self._together = False
        return reports


def _epochs(trial: Trial) -> int:
    return len(trial.trainer.history) if trial.trainer is not None else 0


def _merged(reports: Sequence[Report]) -> list[Report]:
    """One report a trial: its last one, with what the earlier ones told."""
    merged: dict[str, Report] = {}
    for report in reports:
        if (earlier := merged.get(report.trial_id)) is not None:
            warnings = [text for text in (earlier.warning, report.warning) if text]
            report = replace(
                report,
                epochs=[*earlier.epochs, *report.epochs],
                warning="; ".join(warnings) or None,
            )
        merged[report.trial_id] = report
    return list(merged.values())


class Member(Trainer):
    """A trainer whose next epoch others may have trained with it already."""

    ahead: Epoch | None = None

    @property
    def done(self) -> bool:
        """Whether all epochs have been trained and told."""
        return self.ahead is None and super().done

    def epoch(self) -> Epoch:
        """The epoch that was trained already, or one alone."""
        if self.ahead is None:
            return super().epoch()
        record, self.ahead = self.ahead, None
        return record


def train_together(members: Sequence[Member], clock: _Clock | None = None) -> Exception | None:
    """Trains the next epoch of each, which its own `epoch` then returns.

    Returns:
        What went wrong, with every member as it was before; None where nothing did. One model's
        infinities may have reached the others' gradients by then (0 times infinity), so none
        of the epoch is kept.
    """
    before = [member.save() for member in members]
    try:
        records = _trained(members, clock)
    except Exception as error:
        failure: Exception = error.with_traceback(None)  # which would keep the epoch's tensors
    else:
        for member, record in zip(members, records, strict=True):
            member.ahead = record
        return None
    for member, state in zip(members, before, strict=True):
        member.load(state)
    free_memory()
    return failure


def _trained(members: Sequence[Member], clock: _Clock | None) -> list[Epoch]:
    started = time.perf_counter()
    network = Joint([member.classifier.backbone for member in members])
    tallies = [Tally() for _ in members]
    for member in members:
        member.classifier.train()
    for batches in _batches(members):
        joint = clock is None or clock.next()
        with contextlib.nullcontext() if clock is None else clock.timing(joint):
            _step(members, batches, tallies, network if joint else None)
    seconds = (time.perf_counter() - started) / len(members)
    return [member.conclude(tally, seconds) for member, tally in zip(members, tallies, strict=True)]


def _batches(members: Sequence[Member]) -> Iterator[list[Batch]]:
    """Each member's next batch; those of equal seed are given the very same."""
    feeds = {member.config.seed: member.batches() for member in members}
    for batches in zip(*feeds.values(), strict=True):
        by_seed = dict(zip(feeds, batches, strict=True))
        yield [by_seed[member.config.seed] for member in members]


def _step(
    members: Sequence[Member],
    batches: Sequence[Batch],
    tallies: Sequence[Tally],
    network: Joint | None,
) -> None:
    """One step of each member, through one network if it is given."""
    triples = list(zip(members, batches, tallies, strict=True))
    if network is None:
        for member, batch, tally in triples:
            tally.add(batch, member.descend(batch))
        return
    inputs = {id(batch): members[0].classifier.inputs(batch.images) for batch in batches}
    features = network([inputs[id(batch)] for batch in batches])
    passes = [
        member.classifier.training_pass_from(own, batch.labels)
        for own, (member, batch, _) in zip(features, triples, strict=True)
    ]
    for member in members:
        member.optimizer.zero_grad(set_to_none=True)
        member.packing = max(member.packing, len(members))
    torch.stack([passed.losses.mean() for passed in passes]).sum().backward()
    for passed, (member, batch, tally) in zip(passes, triples, strict=True):
        member.update(batch, passed)
        tally.add(batch, passed)


class _Clock:
    """Whether models of a kind train faster as one network: told by their own first steps.

    Nothing is computed for the sake of timing: the first steps are made one way and the other
    by turns, and either way leads to the same weights.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[bool, list[float]] = {False: [], True: []}

    @property
    def verdict(self) -> bool | None:
        """Whether to train as one network; None while that is not known yet."""
        if any(len(times) <= TIMED for times in self.seconds.values()):
            return None
        best = {joint: min(times[1:]) for joint, times in self.seconds.items()}
        return best[True] < MARGIN * best[False]

    def next(self) -> bool:
        """Whether the next step is to be made as one network."""
        if self.verdict is None:
            return len(self.seconds[True]) < len(self.seconds[False])
        return self.verdict

    @contextlib.contextmanager
    def timing(self, joint: bool) -> Iterator[None]:
        """Takes the time of a step, while it is needed."""
        if self.verdict is not None:
            yield
            return
        started = self._now()
        yield
        self.seconds[joint].append(self._now() - started)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


@functools.cache
def _clock(kind: Hashable, models: int, shared: bool, execution: Execution) -> _Clock:
    """One a process for packs that are alike."""
    return _Clock(execution.device)


@functools.cache
def joinable(backbone: Backbone, shape: tuple[int, int, int]) -> bool:
    """Whether networks of a backbone can be joined: tried on two of them, in float64.

    So a backbone of one's own may be packed too; what mixes channels in ways of its own, or
    draws at random, is found out and trained alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = [backbone.build(shape).double().train() for _ in range(2)]
        one, other = torch.rand(2, 2, *shape, dtype=torch.float64)
        try:
            return _agree(networks, [one, one]) and _agree(networks, [one, other])
        except Exception:  # whatever a network of a user's own raises for more channels
            return False


def _agree(networks: Sequence[nn.Module], inputs: Sequence[Tensor]) -> bool:
    """Whether features, gradients and statistics are the same together as alone."""
    alone, joined = copy.deepcopy(list(networks)), copy.deepcopy(list(networks))
    expected = [network(maps) for network, maps in zip(alone, inputs, strict=True)]
    found = Joint(joined)(inputs)
    weights = torch.rand_like(expected[0])
    for features in (expected, found):
        sum((weights * own).sum() for own in features).backward()  # type: ignore[union-attr]
    pairs = list(zip(found, expected, strict=True))
    for ours, theirs in zip(joined, alone, strict=True):
        pairs += zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
        gradients = (
            [parameter.grad for parameter in network.parameters()] for network in (ours, theirs)
        )
        pairs += zip(*gradients, strict=True)
    return all(torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9) for ours, theirs in pairs)


class Joint:
    """K equal networks in training mode as one, of the same parameters and statistics.

    Args:
        networks: as alone. Their running statistics become rows of one tensor.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self.network = _joined(networks)
        first = self.network
        while isinstance(first, nn.Sequential) and len(first):
            first = first[0]
        grouped = isinstance(first, _Convolution) and first.layers[0].groups > 1
        self.takes_shared = isinstance(first, _Convolution | _Linear) and not grouped

    def __call__(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The features of each, (B, D), of each one's input (B, C, H, W).

        Where all inputs are one and the first layer is a convolution, it runs over them once.
        """
        shared = self.takes_shared and all(maps is inputs[0] for maps in inputs)
        maps = inputs[0] if shared else torch.cat(list(inputs), dim=1)
        return self.network(maps).chunk(len(inputs), dim=1)  # type: ignore[no-any-return]


def _joined(layers: Sequence[nn.Module]) -> nn.Module:
    """K equal layers as one over maps (B, K C, H, W) or features (B, K D).

    A layer of layers keeps its own `forward`; one that is not known works on each model's maps.
    """
    first = layers[0]
    join = _JOINED.get(type(first).forward)
    if join is not None and (layer := join(layers)) is not None:
        return layer
    if type(first) in _CHANNELWISE:
        return first
    children = dict(first.named_children())
    if not children or first._parameters or first._buffers:
        return _Each(layers)
    whole = copy.copy(first)
    whole._modules = {
        name: _joined([layer.get_submodule(name) for layer in layers]) for name in children
    }
    return whole


class _Layer(nn.Module):
    """K layers as one; they stay the models' own."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = tuple(layers)  # not registered


class _Each(_Layer):
    """Each layer on its model's maps."""

    def forward(self, maps: Tensor) -> Tensor:
        own = zip(self.layers, maps.chunk(len(self.layers), dim=1), strict=True)
        return torch.cat([layer(maps) for layer, maps in own], dim=1)


class _Convolution(_Layer):
    """A grouped convolution; of maps that all models share, one with all their filters."""

    layers: tuple[nn.Conv2d, ...]

    def forward(self, maps: Tensor) -> Tensor:
        first = self.layers[0]
        return F.conv2d(
            maps,
            torch.cat([layer.weight for layer in self.layers]),
            _cat([layer.bias for layer in self.layers]),
            first.stride,
            first.padding,
            first.dilation,
            first.groups * (maps.shape[1] // first.in_channels),
        )


class _Linear(_Layer):
    """A batch of products."""

    layers: tuple[nn.Linear, ...]

    def forward(self, features: Tensor) -> Tensor:
        width = self.layers[0].in_features
        bias = _cat([layer.bias for layer in self.layers])
        if features.shape[1] == width:  # that all models share
            return F.linear(features, torch.cat([layer.weight for layer in self.layers]), bias)
        weight = torch.stack([layer.weight for layer in self.layers])
        own = features.unflatten(1, (-1, width)).transpose(0, 1)
        result = torch.bmm(own, weight.mT).transpose(0, 1).flatten(1)
        return result if bias is None else result + bias


class _Normalisation(_Layer):
    """Batch normalisation over all models' channels."""

    layers: tuple[nn.BatchNorm2d, ...]

    def __init__(self, layers: Sequence[nn.BatchNorm2d]) -> None:
        super().__init__(layers)
        self.mean = _as_rows(layers, "running_mean").flatten()
        self.variance = _as_rows(layers, "running_var").flatten()
        self.batches = _as_rows(layers, "num_batches_tracked")

    def forward(self, maps: Tensor) -> Tensor:
        first = self.layers[0]
        assert first.momentum is not None
        self.batches += 1
        return F.batch_norm(
            maps,
            self.mean,
            self.variance,
            torch.cat([layer.weight for layer in self.layers]),
            torch.cat([layer.bias for layer in self.layers]),
            training=True,
            momentum=first.momentum,
            eps=first.eps,
        )


def _cat(biases: Sequence[Tensor | None]) -> Tensor | None:
    there = [bias for bias in biases if bias is not None]
    return torch.cat(there) if there else None


def _as_rows(layers: Sequence[nn.Module], buffer: str) -> Tensor:
    """All layers' buffers in one tensor, whose rows they then are: what changes it changes them."""
    rows = torch.stack([layer.get_buffer(buffer) for layer in layers])
    for layer, row in zip(layers, rows, strict=True):
        setattr(layer, buffer, row)
    return rows


def _convolution(layers: Sequence[nn.Module]) -> nn.Module | None:
    return _Convolution(layers) if layers[0].padding_mode == "zeros" else None


def _normalisation(layers: Sequence[nn.Module]) -> nn.Module | None:
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    first = norms[0]
    usual = first.affine and first.track_running_stats and first.momentum is not None
    return _Normalisation(norms) if usual else None


_JOINED: dict[Callable[..., Tensor], Callable[[Sequence[nn.Module]], nn.Module | None]] = {
    nn.Conv2d.forward: _convolution,
    nn.Linear.forward: _Linear,
    nn.BatchNorm2d.forward: _normalisation,
}
_CHANNELWISE = {nn.Identity, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten}
