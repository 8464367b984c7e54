"""The settings that every recipe has, such as epochs, batch, optimiser and trunk."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Interval

from vireid.data.settings import Count, Positive, settings
from vireid.data.size import Size
from vireid.training.optim import SGD, Adam, WarmUpSteps

PerIdentity = Annotated[int, Interval(ge=1, le=1024)]
Seed = Annotated[int, Interval(ge=0, le=2**63 - 1)]  # what torch takes


@settings
class Training:
    """One training run. Fields without a default are those that a recipe must state.

    On the command line and in `run.json` these fields are named without a prefix: `--set epochs=3`.
    """

    epochs: Count
    """ours: how often the training set is gone through, as `epoch_length` counts."""

    size: Size
    """ours: height and width that pictures are resized to, in pixels."""

    identities_per_batch: Count
    """ours: people in one step, over all processes; the same people in both modalities."""

    visible_per_identity: PerIdentity
    """ours: visible pictures of each of them."""

    infrared_per_identity: PerIdentity
    """ours: infrared pictures of each of them."""

    epoch_length: Literal["agw", "fastreid"] | Count
    """ours: steps in one epoch. `agw` is floor(pictures of the larger modality / its pictures in one step) + 1,
    `fastreid` is floor(all pictures / pictures in one step), a number is taken as it is."""

    optimiser: SGD | Adam
    """ours: two groups of parameters; new layers learn at `optimiser.lr`, the rest at a fraction of it."""

    schedule: WarmUpSteps
    """ours: warm-up, then a step down at each milestone; a function of epoch and step."""

    with_replacement: bool = False
    """ours: whether the pictures of a person are drawn with replacement, so that a step may hold a picture twice, as in
    the code of AGW. Otherwise a picture is drawn twice only if a person has too few."""

    seed: Seed = 0
    """ours: start values, which pictures a step sees, augmentation, and what the objective draws."""

    trunk: Literal["tiny", "resnet18", "resnet34", "resnet50"] = "resnet50"
    """ours: the shared network; `tiny` is for work on a CPU and has no weights from ImageNet."""

    weights: str = "imagenet"
    """ours: what the network starts from. `none` is random. `imagenet` downloads torchvision's file once and checks its
    hash. `world` is part of this package, for the trunk `tiny`, and was trained on generated people only. The name of a
    file or of a run directory is read (docs/start_from.md): a trunk, AGW's public checkpoint, or the last checkpoint of
    a run; classifiers are left out, and every other tensor must fit."""

    precision: Literal["off", "bf16", "fp16"] = "off"
    """ours: `off` is float32; `bf16` and `fp16` are mixed precision, for speed; `fp16` needs a GPU."""

    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "off"
    """ours: the mode in which `torch.compile` compiles stems and stages, for speed on a GPU; terms differ in the last
    digits. With `max-autotune`, a run that was resumed may differ in them from one that was not."""

    gradient_clip: Positive | None = None
    """ours: the largest norm of the gradient; null for no limit."""

    flat: ClassVar[bool] = True

    @property
    def pictures_per_step(self) -> int:
        """Pictures in one step, over all processes."""
        return self.identities_per_batch * (self.visible_per_identity + self.infrared_per_identity)
