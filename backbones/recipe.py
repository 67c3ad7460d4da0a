"""The Recipe: every choice of a training run, as frozen dataclasses with a docstring under each field.

Values come from the command line, else from the YAML file, else from the defaults below, which are
darknet's for ImageNet. Nothing here imports torch, and no layer ever sees a Recipe: values travel by argument.
"""

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from backbones.errors import UserError

DEFAULT_EPOCHS = 120
"""Length of a run that says neither epochs nor steps."""

Interpolation = Literal["bilinear", "bicubic"]
Protocol = Literal["darknet", "timm", "full"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
LoaderName = Literal["dali", "reference", "synthetic"]


def require(condition: bool, option: str, value: object, rule: str) -> None:  # noqa: FBT001
    """Raise ``UserError("option=value must ...")`` unless ``condition`` holds."""
    if not condition:
        raise UserError(f"{option}={value!r} {rule}")


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes a network input; stored in the checkpoint, so that evaluation repeats it."""

    protocol: Protocol = "darknet"
    """What evaluation cuts. darknet: short side to img_size, corners aligned, no antialiasing, then the centre.
    timm: the same with half-pixel centres and antialiasing, as torchvision does it. full: the whole image, squashed
    to a square."""
    crop_pct: float = 1.0
    """Centre crop as a share of the resized short side: the short side becomes img_size / crop_pct pixels."""
    interpolation: Interpolation = "bilinear"
    """Filter of every resize, with antialiasing; the darknet protocol and augmentation are always bilinear."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Subtracted from RGB in [0, 1]. darknet subtracts nothing."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Divides RGB after the mean is subtracted."""

    def __post_init__(self) -> None:
        require(0 < self.crop_pct <= 1, "preprocess.crop_pct", self.crop_pct, "must lie in (0, 1]")
        require(min(self.std) > 0, "preprocess.std", self.std, "must be positive")
        option = "preprocess.interpolation"
        fits = self.protocol != "darknet" or self.interpolation == "bilinear"
        require(fits, option, self.interpolation, "needs preprocess.protocol=timm or full: darknet's is bilinear")
        fits = self.protocol != "full" or self.crop_pct == 1
        require(fits, "preprocess.crop_pct", self.crop_pct, "must be 1 with preprocess.protocol=full: nothing is cut")


@dataclass(frozen=True)
class DarknetAugment:
    """darknet's warp (scale, aspect, rotation and place as one affine map, black borders) and HSV shift."""

    min_crop: int = 128
    """Smallest length in pixels to which the image's short side is scaled; below img_size there are black borders."""
    max_crop: int = 448
    """Largest length in pixels to which the image's short side is scaled."""
    aspect: float = 0.75
    """Width / height is stretched by a factor between aspect and 1, or by its reciprocal."""
    angle: float = 7.0
    """Largest rotation in degrees, to either side."""
    hue: float = 0.1
    """Largest shift of the hue, as a share of the circle, to either side."""
    saturation: float = 0.75
    """Saturation is multiplied by a factor between saturation and 1, or by its reciprocal."""
    exposure: float = 0.75
    """Brightness is multiplied by a factor between exposure and 1, or by its reciprocal."""
    hsv: Literal["matrix", "exact"] = "matrix"
    """How colours shift: by one colour matrix for each image, or in HSV as darknet does, which costs more."""

    def __post_init__(self) -> None:
        group = "augment.darknet"
        require(self.min_crop > 0, f"{group}.min_crop", self.min_crop, "must be positive")
        require(self.min_crop <= self.max_crop, f"{group}.max_crop", self.max_crop, "must not be below min_crop")
        require(0 <= self.angle <= 180, f"{group}.angle", self.angle, "must lie in [0, 180]")
        require(0 <= self.hue <= 0.5, f"{group}.hue", self.hue, "must lie in [0, 0.5]")
        for option in ("aspect", "saturation", "exposure"):
            require(getattr(self, option) > 0, f"{group}.{option}", getattr(self, option), "must be positive")


@dataclass(frozen=True)
class InceptionAugment:
    """Random resized crop, and what is often added to it."""

    scale: tuple[float, float] = (0.33, 1.0)
    """Smallest and largest share of the image's area that the crop covers."""
    ratio: tuple[float, float] = (0.75, 1.3333333333333333)
    """Smallest and largest width / height of the crop before it is resized to a square."""
    color_jitter: float = 0.0
    """Brightness, contrast and saturation are each multiplied by a factor in [1 - color_jitter, 1 + color_jitter]."""
    auto: Literal["none", "randaugment", "trivialaugment"] = "none"
    """Operations drawn from a fixed list: two of one strength (RandAugment) or one of any strength (TrivialAugment)."""
    magnitude: int = 9
    """Strength of RandAugment's operations, 0 to 30."""
    erasing: float = 0.0
    """Probability of painting a random rectangle in the mean colour (random erasing)."""

    def __post_init__(self) -> None:
        group = "augment.inception"
        low, high = self.scale
        require(0 < low <= high <= 1, f"{group}.scale", self.scale, "must satisfy 0 < low <= high <= 1")
        low, high = self.ratio
        require(0 < low <= high, f"{group}.ratio", self.ratio, "must satisfy 0 < low <= high")
        require(0 <= self.color_jitter <= 1, f"{group}.color_jitter", self.color_jitter, "must lie in [0, 1]")
        require(0 <= self.magnitude <= 30, f"{group}.magnitude", self.magnitude, "must lie in [0, 30]")
        require(0 <= self.erasing <= 1, f"{group}.erasing", self.erasing, "must lie in [0, 1]")


@dataclass(frozen=True)
class Augment:
    """What happens to a training image before it is mixed with others."""

    augmentation: Literal["darknet", "inception"] = "darknet"
    """darknet's warp and HSV shift, or the random resized crop of most other trainers."""
    hflip: float = 0.5
    """Probability of a horizontal flip."""
    darknet: DarknetAugment = field(default_factory=DarknetAugment)
    """Ranges of augmentation=darknet."""
    inception: InceptionAugment = field(default_factory=InceptionAugment)
    """Ranges of augmentation=inception."""

    def __post_init__(self) -> None:
        require(0 <= self.hflip <= 1, "augment.hflip", self.hflip, "must lie in [0, 1]")
        other = "inception" if self.augmentation == "darknet" else "darknet"
        unused = differences(asdict(type(getattr(self, other))()), asdict(getattr(self, other)), f"augment.{other}.")
        if unused:
            named = ", ".join(f"{option}={value!r}" for option, (_, value) in unused.items())
            raise UserError(
                f"{named}: without effect, since augmentation={self.augmentation}.\n"
                f"Choose --augmentation {other}, or set what is named to its default."
            )


@dataclass(frozen=True)
class Mixing:
    """Images and labels of a batch mixed with each other (darknet's mosaic=1 cutmix=1)."""

    mosaic: bool = True
    """Cut images into four quadrants taken from four images."""
    cutmix: bool = True
    """Paste a rectangle of one image into another."""
    mixup: bool = False
    """Average two images."""
    prob: float = 0.5
    """Share of groups that are mixed; each kind of mixing that is on takes the same part of them."""
    sampling: Literal["group", "batch"] = "group"
    """Who shares a decision: darknet's groups of four consecutive images (kind and place are drawn per image), or all
    images of the step (timm's batch mode: kind and place are drawn once)."""
    blur: int = 0
    """Side in pixels (odd) of the Gaussian blur of every fourth image, on average; 0: none. darknet's blur=1 is 15."""
    smoothing: float = 0.1
    """Label smoothing eps: 1 - eps for the label, eps / (classes - 1) for every other class."""

    def __post_init__(self) -> None:
        require(0 <= self.prob <= 1, "mixing.prob", self.prob, "must lie in [0, 1]")
        fits = self.blur == 0 or (self.blur >= 3 and self.blur % 2 == 1)
        require(fits, "mixing.blur", self.blur, "must be 0 or an odd number of at least 3")
        require(0 <= self.smoothing < 1, "mixing.smoothing", self.smoothing, "must lie in [0, 1)")


@dataclass(frozen=True)
class Loading:
    """How files become batches, and what a bad one does. Only bad_images changes what is trained on."""

    bad_images: Literal["stop", "skip"] = "stop"
    """A training image that cannot be decoded: stop with its path, or put the next good image of its class in its
    place. Validation always stops."""
    bad_images_limit: float = 1e-4
    """With bad_images=skip: the share of replaced images above which the run stops."""
    read_threads: int = 4
    """Threads of this process that read files; more help where each read is slow, as on network drives."""
    prefetch: int = 2
    """Batches read ahead, and batches decoded ahead."""
    hw_decoder_load: float = 0.65
    """Share of the JPEG files given to the GPU's hardware decoder, where it has one."""
    preallocate: tuple[int, int] = (5980, 6430)
    """Width and height in pixels for which GPU decoding memory is set aside at the start (ImageNet's largest), so that
    it does not run out in the middle; [0, 0]: as images need it."""

    def __post_init__(self) -> None:
        require(
            0 <= self.bad_images_limit <= 1, "loading.bad_images_limit", self.bad_images_limit, "must lie in [0, 1]"
        )
        require(0 <= self.hw_decoder_load <= 1, "loading.hw_decoder_load", self.hw_decoder_load, "must lie in [0, 1]")
        require(min(self.preallocate) >= 0, "loading.preallocate", self.preallocate, "must not be negative")
        is_used = self.bad_images == "skip" or self.bad_images_limit == Loading.bad_images_limit
        require(is_used, "loading.bad_images_limit", self.bad_images_limit, "needs --bad-images skip")
        for option in ("read_threads", "prefetch"):
            require(getattr(self, option) > 0, f"loading.{option}", getattr(self, option), "must be positive")


@dataclass(frozen=True)
class Synthetic:
    """Size of the data set that --loader synthetic makes up."""

    classes: int = 1000
    """Number of classes."""
    train_per_class: int = 1281
    """Training images of each class."""
    val_per_class: int = 50
    """Validation images of each class."""

    def __post_init__(self) -> None:
        for option in ("classes", "train_per_class", "val_per_class"):
            require(getattr(self, option) > 0, f"synthetic.{option}", getattr(self, option), "must be positive")


@dataclass(frozen=True)
class Optim:
    """SGD and its poly schedule, as darknet's [net] section has them."""

    momentum: float = 0.9
    """Momentum of SGD (not Nesterov)."""
    weight_decay: float = 5e-4
    """L2 decay of convolution and classifier weights; biases, norms and fusion weights have none."""
    power: float = 4.0
    """Exponent of the poly decay and of the burn-in."""
    burn_in: int | None = None
    """Steps of burn-in; unset: 1000, or a tenth of the run where that is less."""
    clip_grad: float | None = None
    """Clip the global gradient norm to this value; unset: no clipping."""
    bn_momentum: float = 0.01
    """BatchNorm momentum. 0.01 is darknet's; a run of a few hundred steps needs 0.1."""
    fusion_update: Literal["sgd", "darknet"] = "sgd"
    """How fusion weights move: as everything else, or as in darknet, momentum clipped to 1 / batch_size."""
    burnin_update: int | None = None
    """With fusion_update darknet: hold the fusion weights for this many burn-ins; unset: as the network says."""

    def __post_init__(self) -> None:
        require(0 <= self.momentum < 1, "optim.momentum", self.momentum, "must lie in [0, 1)")
        require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "must not be negative")
        require(self.power > 0, "optim.power", self.power, "must be positive")
        require(self.burn_in is None or self.burn_in >= 0, "optim.burn_in", self.burn_in, "must not be negative")
        require(
            self.clip_grad is None or self.clip_grad > 0,
            "optim.clip_grad",
            self.clip_grad,
            "must be positive",
        )
        require(0 < self.bn_momentum <= 1, "optim.bn_momentum", self.bn_momentum, "must lie in (0, 1]")
        self._require_hold()

    def _require_hold(self) -> None:
        option, hold = "optim.burnin_update", self.burnin_update
        require(hold is None or hold >= 0, option, hold, "must not be negative")
        is_darknet = self.fusion_update == "darknet"
        require(not hold or is_darknet, option, hold, "is part of darknet's rule: set optim.fusion_update=darknet")


@dataclass(frozen=True)
class Ema:
    """Exponential moving average of the weights (timm's ModelEmaV3)."""

    decay: float = 0.9998
    """Share of the old average kept in each step."""
    warmup: bool = True
    """Let the decay grow from 0 during the first steps."""

    def __post_init__(self) -> None:
        require(0 <= self.decay < 1, "ema.decay", self.decay, "must lie in [0, 1)")


@dataclass(frozen=True)
class Log:
    """What is reported, and where."""

    interval: int = 50
    """Steps between two log rows (the only steps at which the device is waited for)."""
    wandb_project: str = "backbones"
    """W&B project."""
    wandb_mode: Literal["online", "offline"] | None = None
    """Unset: what the environment variable WANDB_MODE says, else online."""

    def __post_init__(self) -> None:
        require(self.interval > 0, "log.interval", self.interval, "must be positive")


@dataclass(frozen=True)
class Recipe:
    """One training run. The resolved recipe is written to the run folder and can be run again as it is."""

    model: str = "csresnext50_ws_mi2"
    """Name of the network: one of ours or any timm model."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the network, such as {act: leaky}."""
    data_dir: str | None = None
    """Training and validation images: class folders, the official archives, shards, or what `prepare` wrote."""
    output: str | None = None
    """Run folder; must not be in use. Unset: runs/DATE-TIME-MODEL."""
    resume: str | None = None
    """Run folder or checkpoint to go on from, with its own recipe unless options say otherwise."""
    batch_size: int = 128
    """Images per optimizer step, over all processes and accumulation steps together."""
    grad_accum_steps: int = 1
    """Micro-batches that a step's gradient is summed over (darknet's subdivisions)."""
    epochs: int | None = None
    """Length of the run in passes over the training set; 120 when neither epochs nor steps is given."""
    steps: int | None = None
    """Length of the run in optimizer steps, in place of epochs."""
    lr: float = 0.1
    """Learning rate at the end of burn-in, for the whole batch_size; never scaled by the number of GPUs."""
    seed: int = 0
    """Fixes the initial weights, the order of images, their augmentation and the mixing."""
    img_size: int = 256
    """Height and width of the network input in pixels."""
    loader: LoaderName = "dali"
    """Who decodes: NVIDIA DALI, the slow torchvision reference, or synthetic images without a data set."""
    workers: int = 4
    """Decoding threads per process."""
    device: Literal["auto", "cpu"] = "auto"
    """auto: a GPU where there is one."""
    precision: Precision = "auto"
    """auto: what accelerate launch was told (its --mixed_precision)."""
    channels_last: bool = True
    """Keep activations in NHWC memory order."""
    torchcompile: bool = False
    """Compile the network with torch.compile."""
    grad_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    model_ema: bool = False
    """Keep, evaluate and save an exponential moving average of the weights."""
    log_wandb: bool = False
    """Mirror every logged row to Weights & Biases; the files in the run folder are always written."""
    val_interval: int = 1
    """Epochs between two validations (and checkpoints); the last epoch always has one."""
    preprocess: Preprocess = field(default_factory=Preprocess)
    """How an image becomes a network input."""
    augment: Augment = field(default_factory=Augment)
    """What happens to a training image."""
    mixing: Mixing = field(default_factory=Mixing)
    """Mosaic, cutmix, mixup, blur and label smoothing."""
    loading: Loading = field(default_factory=Loading)
    """How files become batches, and what a bad one does."""
    synthetic: Synthetic = field(default_factory=Synthetic)
    """What --loader synthetic makes up."""
    optim: Optim = field(default_factory=Optim)
    """SGD and its schedule."""
    ema: Ema = field(default_factory=Ema)
    """The moving average that model_ema switches on."""
    log: Log = field(default_factory=Log)
    """What is reported, and where."""

    def __post_init__(self) -> None:
        for option in ("batch_size", "grad_accum_steps", "img_size", "workers", "val_interval"):
            require(getattr(self, option) > 0, option, getattr(self, option), "must be positive")
        require(0 < self.lr < math.inf, "lr", self.lr, "must be positive and finite")
        for option in ("model", "data_dir", "output", "resume"):
            require(getattr(self, option) != "", option, "", "must not be empty (an unset variable?)")
        require(0 <= self.seed < 2**63, "seed", self.seed, "must lie in [0, 2**63)")
        for option in ("epochs", "steps"):
            value = getattr(self, option)
            require(value is None or value > 0, option, value, "must be positive")
        if self.epochs is not None and self.steps is not None:
            raise UserError(
                f"epochs={self.epochs} and steps={self.steps} both say how long the run is: "
                "unset one of them (--steps null or --epochs null)."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain, nested dictionaries of YAML types."""
        return _plain(asdict(self))


def run_length(recipe: Recipe, steps_per_epoch: int) -> int:
    """Return the number of optimizer steps of the run."""
    return recipe.steps or (recipe.epochs or DEFAULT_EPOCHS) * steps_per_epoch


def micro_batch(recipe: Recipe, processes: int) -> int:
    """Return the images of one forward pass of one process: what BatchNorm sees."""
    return recipe.batch_size // (processes * recipe.grad_accum_steps)


def burn_in_steps(recipe: Recipe, total_steps: int) -> int:
    """Return the steps of burn-in; a burn-in that would never end is an error."""
    if recipe.optim.burn_in is None:
        return min(1000, total_steps // 10)
    require(
        recipe.optim.burn_in < total_steps,
        "optim.burn_in",
        recipe.optim.burn_in,
        f"must be smaller than the run's {total_steps} steps",
    )
    return recipe.optim.burn_in


def resolve(recipe: Recipe, *, precision: Precision, steps_per_epoch: int) -> Recipe:
    """Return the recipe with everything decided that it left open: precision, length and burn-in."""
    epochs = recipe.epochs if recipe.steps else recipe.epochs or DEFAULT_EPOCHS
    burn_in = burn_in_steps(recipe, run_length(recipe, steps_per_epoch))
    return replace(recipe, precision=precision, epochs=epochs, optim=replace(recipe.optim, burn_in=burn_in))


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return {dotted option: (old, new)} for every value in which two recipes differ."""
    changed: dict[str, tuple[Any, Any]] = {}
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            changed |= differences(before, after, f"{prefix}{key}.")
        elif before != after:
            changed[prefix + key] = (before, after)
    return dict(sorted(changed.items()))


def _plain(value: Any) -> Any:
    """Turn tuples into lists, all the way down: YAML has no tuple."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value
