"""What a study file may hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

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


class Resources(Part):
    """What one trial takes; infrastructure, so it reaches no id.

    Attributes:
        cpu: cores, and threads, of a trial.
        gpu: share of a GPU where there is one.
        channels_last: convolutions' memory layout; about a quarter faster on the CPU.
    """

    cpu: Annotated[int, Field(ge=1, strict=True)] = 1
    gpu: Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)] = 0.25
    channels_last: Annotated[bool, Field(strict=True)] = True


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
    resources: Resources = Resources()
