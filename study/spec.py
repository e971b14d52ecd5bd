"""What a study file may hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from study.exclude import as_rules
from study.files import study_name

MOST_SEEDS = 1000
Count = Annotated[int, Field(ge=1, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]


class Part(BaseModel):
    """A mapping of a study file: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Evaluate(Part):
    """How many images of each split are attacked, from the front of its fixed order."""

    validation: Count = 200
    test: Count = 200


class Sizes(Part):
    """A method's own numbers of images, fewer for one whose attacks are slow."""

    validation: Count | None = None
    test: Count | None = None


class Audit(Part):
    """Whether to believe the headline: attacks that look for masked gradients (METHODS 4).

    Attributes:
        n: test images; 150 at the very least can certify 2 points.
        transfer: the method whose models adversarial images are made on; `compare.baseline` by
            default.
        queries: of Square, alone and within AutoAttack.
    """

    n: Count = 200
    transfer: str | None = None
    queries: Count = 5000


def _as_seeds(value: Any) -> Any:
    """`5` is the seeds 0 to 4."""
    if isinstance(value, list) and value:
        return value
    if type(value) is not int or not 1 <= value <= MOST_SEEDS:
        what = f"expected a number of seeds from 1 to {MOST_SEEDS} or a list of seeds"
        raise ValueError(f"{what}, found {value!r}")
    return list(range(value))


Seeds = Annotated[list[Seed], BeforeValidator(_as_seeds)]


def _some(value: Any) -> Any:
    if not value:
        raise ValueError("expected at least one")
    return value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_channels(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Finite = Annotated[float, Field(allow_inf_nan=False)]
Means = Annotated[list[Finite], BeforeValidator(_as_channels), Field(min_length=1)]
Deviations = Annotated[
    list[Annotated[Finite, Field(gt=0)]], BeforeValidator(_as_channels), Field(min_length=1)
]


class Normalize(Part):
    """How images in [0, 1] become what a network was trained on: (x - mean) / std.

    Attributes:
        mean, std: of each channel; one number for all of them.
    """

    mean: Means = [0.0]
    std: Deviations = [1.0]


class Method(Part):
    """A row of the study: loss x regime x transform; its keys override the study's.

    Attributes:
        checkpoint: weights from elsewhere, attacked and not trained; several are the seeds of
            one arm. A path beside the study file, or absolute.
        normalize: of a checkpoint's network; by default none of one that gives logits itself,
            and the data set's of our own backbones.
        exclude: points of its grid that are left out; see `study.exclude`.
    """

    loss: Any = None
    checkpoint: Annotated[list[str], BeforeValidator(_as_list), AfterValidator(_some)] | None = None
    normalize: Normalize | None = None
    regime: Any = "standard"
    transform: Any = "none"
    data: Any = None
    backbone: Any = None
    training: dict[str, Any] = {}
    seeds: Seeds | None = None
    evaluate: Sizes = Sizes()
    exclude: Annotated[list[dict[str, Any]], BeforeValidator(as_rules)] = []


class Compare(Part):
    """Whom methods are compared with.

    Attributes:
        baseline: the method that figures show as a reference.
        controls: for a method, the arms that share all of it but its claim.
    """

    baseline: str | None = None
    controls: dict[str, list[str]] = {}


def _as_numbers(value: Any) -> Any:
    return [value] if type(value) is int else value


PaperTable = Annotated[int, Field(ge=1, le=7, strict=True)]


# Methods and attacks name runs and metrics, in which MLflow takes no other signs.
Label = Annotated[str, BeforeValidator(study_name)]


class Choose(Part):
    """Which methods' hyper-parameters are chosen, on the validation split alone."""

    methods: Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1, alias="method")]
    split: Literal["validation"] = "validation"
    metric: Literal["headline"] = "headline"


CLEAN = "clean"  # what a training is given up by without an attack
Sampler = Literal["random", "tpe", "gp", "cmaes", "nsga2"]
Objective = Literal["robust", "clean"]


class Stop(Part):
    """When a search gives a training up, by its accuracy on validation images after each epoch.

    Attributes:
        rule: `asha` keeps the best of each rung (Li et al. 2020), `median` what is no worse at its
            best than the median of the others' means (Golovin et al. 2017).
        grace: epochs that every training has.
        factor: of `asha`: one in how many goes on from a rung, and how much longer to the next.
        by: `clean`, or the label of an attack of the study that is cheap enough to run each epoch.
    """

    rule: Literal["asha", "median"]
    grace: Count = 1
    factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 3
    by: str = CLEAN


def _as_objectives(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Search(Part):
    """Hyper-parameters that are looked for, where a grid would try all of them.

    Each suggestion trains one model, with the first of its method's seeds, and is measured on
    validation images alone; the best are then trained with every seed and measured on all.

    Attributes:
        methods: whose axes are searched; all that have any by default.
        sampler: `random`, or Optuna's `tpe`, `gp`, `cmaes`, or `nsga2` for two objectives.
        trials: suggestions for each method; or a method's name, for as many as its grid has points.
        objective: what is to be large on validation images: `robust`, under the headline, or
            `clean`; both, for the methods that trade one for the other.
        finalists: how many of the best are trained with every seed; of two objectives, of those
            that no other is better than in both.
        stop: when a training is given up; never by default.
        seed: of the suggestions.
        parallel: suggestions that are tried at once; as many as there is room for by default.
    """

    methods: Annotated[list[str], BeforeValidator(_as_list)] = []
    sampler: Sampler = "tpe"
    trials: Count | str
    objective: Annotated[list[Objective], BeforeValidator(_as_objectives)] = ["robust"]
    finalists: Count = 1
    stop: Stop | None = None
    seed: Seed = 0
    parallel: Count | None = None

    @model_validator(mode="after")
    def _fits(self) -> Search:
        """Each objective once, and a sampler that can do with so many."""
        if not self.objective or len(set(self.objective)) < len(self.objective):
            raise ValueError(f"expected one objective or two, found {self.objective!r}")
        if len(self.objective) > 1 and self.sampler in ("gp", "cmaes"):
            raise ValueError(f"sampler {self.sampler!r} takes one objective; nsga2 takes two")
        if len(self.objective) == 1 and self.sampler == "nsga2":
            raise ValueError("sampler 'nsga2' is for `objective: [clean, robust]`")
        return self


def _as_packing(value: Any) -> Any:
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise ValueError(f"expected a number of models from 1 or 'auto', found {value!r}")


def _as_share(value: Any) -> Any:
    if value == "auto" or (type(value) in (int, float) and 0 <= value <= 1):
        return value
    raise ValueError(f"expected a share from 0 to 1 or 'auto', found {value!r}")


Share = Annotated[float | Literal["auto"], BeforeValidator(_as_share)]


class Resources(Part):
    """What one trial takes; infrastructure, so it reaches no id.

    Attributes:
        cpu: cores, and threads, of a trial.
        gpu: share of a GPU where there is one; `auto` is as much as trials of its kind are
            measured to need of its memory, 0 for none.
        channels_last: convolutions' memory layout; about a quarter faster on the CPU.
        pack: models that differ in their loss or seed alone and are trained as one network by
            one worker; `auto` is up to 8, on a GPU 16, where their first steps show that it is
            faster. No result depends on it but for rounding.
    """

    cpu: Annotated[int, Field(ge=1, strict=True)] = 1
    gpu: Share = "auto"
    channels_last: Annotated[bool, Field(strict=True)] = True
    pack: Annotated[int | Literal["auto"], BeforeValidator(_as_packing)] = 1


class Drawing(Part):
    """A study file that trains nothing: figures of formulas.

    Attributes:
        figures: what is drawn; `property` is the paper's Figure 5.
    """

    study: Annotated[str, BeforeValidator(study_name)]
    question: str | None = None
    figures: Annotated[list[Literal["property"]], BeforeValidator(_as_list), Field(min_length=1)]


class Study(Part):
    """A whole study file.

    Attributes:
        rebuilds: the paper's tables that it stands beside, whatever data and backbone its scale
            gives them; by default those of the same data set, backbone and attacks.
    """

    study: Annotated[str, BeforeValidator(study_name)]
    question: str | None = None
    plugins: Annotated[list[str], BeforeValidator(_as_list)] = []
    data: Any
    backbone: Any
    seeds: Seeds = [0]
    evaluate: Evaluate = Evaluate()
    training: dict[str, Any] = {}
    methods: Annotated[dict[Label, Method], AfterValidator(_some)]
    attacks: Annotated[dict[Label, dict[str, Any] | None], AfterValidator(_some)]
    diagnostics: dict[Label, dict[str, Any] | None] = {}
    headline: dict[str, Any]
    audit: Audit | None = None
    compare: Compare = Compare()
    rebuilds: Annotated[list[PaperTable], BeforeValidator(_as_numbers)] = []
    choose: Choose | None = None
    search: Search | None = None
    resources: Resources = Resources()

    def seeds_of(self, method: str) -> list[int]:
        """The seeds of a method: its own, or the study's."""
        return self.methods[method].seeds or self.seeds
