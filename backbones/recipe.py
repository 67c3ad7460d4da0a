"""The Recipe: every choice of a training run, as frozen dataclasses with a docstring under each field.

Values come from the command line, else from the YAML file, else from the defaults below, which are
darknet's for ImageNet. Nothing here imports torch, and no layer sees a Recipe: values are passed as arguments.
"""

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from backbones.errors import UserError

Interpolation = Literal["bilinear", "bicubic"]
Protocol = Literal["darknet", "timm", "full"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
LoaderName = Literal["dali", "reference", "synthetic"]
CompileMode = Literal["default", "reduce-overhead", "max-autotune"]
LayoutName = Literal["index", "folders", "tiny-imagenet", "kaggle", "archives", "shards"]

DEFAULT_EPOCHS = 120
"""Length of a run in passes over the training set where neither epochs nor steps is given."""

MAX_BURN_IN_STEPS = 1000
"""Burn-in of a long run where none is given, as in darknet's cfg files."""


def require(condition: bool, option: str, value: object, rule: str) -> None:  # noqa: FBT001
    """Raise ``UserError("option=value must ...")`` unless ``condition`` holds."""
    if not condition:
        raise UserError(f"{option}={value!r} {rule}")


def require_ranges(group: object, prefix: str, **ranges: str) -> None:
    """Raise UserError where an option of ``group`` is outside of its range, written as "[0, 1)"."""
    for option, text in ranges.items():
        value, (low, high) = getattr(group, option), map(float, text[1:-1].split(","))
        fits = low < value < high or (value == low and text[0] == "[") or (value == high and text[-1] == "]")
        require(fits, prefix + option, value, f"must lie in {text}")


def name_compile_mode(asked: bool | CompileMode) -> Literal[False] | CompileMode:  # noqa: FBT001
    """Return the mode of torch.compile: earlier recipes say ``true``, as the command line does without a word."""
    return "default" if asked is True else asked


def require_positive(group: object, prefix: str, *options: str) -> None:
    """Raise UserError where an option of ``group`` is set and not positive."""
    for option in options:
        value = getattr(group, option)
        require(value is None or value > 0, prefix + option, value, "must be positive")


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing of an image; saved in the checkpoint, so that evaluation repeats it."""

    protocol: Protocol = "darknet"
    """Resize and crop in evaluation. darknet: short side to img_size with aligned corners and no antialiasing, then the
    centre. timm: the same with half-pixel centres and antialiasing, as in torchvision. full: the whole image, resized
    to a square."""
    crop_pct: float = 1.0
    """Side of the centre crop / short side of the resized image: the short side becomes img_size / crop_pct pixels."""
    interpolation: Interpolation = "bilinear"
    """Filter of every resize, with antialiasing. The darknet protocol and augmentation are always bilinear."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Subtracted from RGB in [0, 1]. darknet subtracts nothing."""
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Divisor of RGB after the mean is subtracted."""

    def __post_init__(self) -> None:
        group = "preprocess"
        require_ranges(self, "preprocess.", crop_pct="(0, 1]")
        require(min(self.std) > 0, f"{group}.std", self.std, "must be positive")
        fits = self.protocol != "darknet" or self.interpolation == "bilinear"
        rule = "needs preprocess.protocol=timm or full: darknet's is bilinear"
        require(fits, f"{group}.interpolation", self.interpolation, rule)
        fits = self.protocol != "full" or self.crop_pct == 1
        require(fits, f"{group}.crop_pct", self.crop_pct, "must be 1 with preprocess.protocol=full: nothing is cut")


@dataclass(frozen=True)
class DarknetAugment:
    """darknet's warp (scale, aspect, rotation and shift as one affine map, black borders) and its change of colours."""

    min_crop: int = 128
    """Smallest length in pixels to which the short side is scaled; below img_size the image gets black borders."""
    max_crop: int = 448
    """Largest length in pixels to which the short side is scaled."""
    aspect: float = 0.75
    """Width / height is multiplied by a factor between aspect and 1, or divided by it."""
    angle: float = 7.0
    """Largest rotation in degrees, in both directions."""
    hue: float = 0.1
    """Largest shift of the hue in both directions; 1 is the whole colour circle."""
    saturation: float = 0.75
    """Saturation is multiplied by a factor between saturation and 1, or divided by it."""
    exposure: float = 0.75
    """Brightness is multiplied by a factor between exposure and 1, or divided by it."""
    hsv: Literal["matrix", "exact"] = "matrix"
    """Change of colours. matrix: one colour matrix for each image. exact: in HSV as in darknet, which takes longer."""

    def __post_init__(self) -> None:
        prefix = "augment.darknet."
        require_positive(self, prefix, "min_crop", "aspect", "saturation", "exposure")
        require_ranges(self, prefix, angle="[0, 180]", hue="[0, 0.5]")
        require(self.min_crop <= self.max_crop, f"{prefix}max_crop", self.max_crop, "must not be below min_crop")


@dataclass(frozen=True)
class InceptionAugment:
    """Random resized crop, and what is often added to it."""

    scale: tuple[float, float] = (0.33, 1.0)
    """Smallest and largest area of the crop / area of the image."""
    ratio: tuple[float, float] = (0.75, 1.3333333333333333)
    """Smallest and largest width / height of the crop before it is resized to a square."""
    color_jitter: float = 0.0
    """Brightness, contrast and saturation are each multiplied by a factor in [1 - color_jitter, 1 + color_jitter]."""
    auto: Literal["none", "randaugment", "trivialaugment"] = "none"
    """Random operations. randaugment: two of the same strength. trivialaugment: one of random strength."""
    magnitude: int = 9
    """Strength of RandAugment's operations, 0 to 30."""
    erasing: float = 0.0
    """Probability that a random rectangle gets the mean colour (random erasing)."""

    def __post_init__(self) -> None:
        group = "augment.inception"
        low, high = self.scale
        require(0 < low <= high <= 1, f"{group}.scale", self.scale, "must satisfy 0 < low <= high <= 1")
        low, high = self.ratio
        require(0 < low <= high, f"{group}.ratio", self.ratio, "must satisfy 0 < low <= high")
        require_ranges(self, f"{group}.", color_jitter="[0, 1]", magnitude="[0, 30]", erasing="[0, 1]")


@dataclass(frozen=True)
class Augment:
    """Random changes of a training image before images are mixed."""

    augmentation: Literal["darknet", "inception"] = "darknet"
    """darknet's warp and change of colours, or the random resized crop of most other trainers."""
    hflip: float = 0.5
    """Probability of a horizontal flip."""
    darknet: DarknetAugment = field(default_factory=DarknetAugment)
    """Options of augmentation=darknet."""
    inception: InceptionAugment = field(default_factory=InceptionAugment)
    """Options of augmentation=inception."""

    def __post_init__(self) -> None:
        require_ranges(self, "augment.", hflip="[0, 1]")
        other = "inception" if self.augmentation == "darknet" else "darknet"
        unused = differences(asdict(type(getattr(self, other))()), asdict(getattr(self, other)), f"augment.{other}.")
        if unused:
            named = ", ".join(f"{option}={value!r}" for option, (_, value) in unused.items())
            raise UserError(
                f"{named}: without effect, since augmentation={self.augmentation}.\n"
                f"Choose --augmentation {other}, or leave these options at their defaults."
            )


@dataclass(frozen=True)
class Mixing:
    """Images and labels of a batch mixed with each other (darknet's mosaic=1 cutmix=1)."""

    mosaic: bool = True
    """Make an image of four quadrants from four images."""
    cutmix: bool = True
    """Paste a rectangle of one image into another."""
    mixup: bool = False
    """Average two images."""
    prob: float = 0.5
    """Share of groups of images that are mixed; mosaic, cutmix and mixup, where they are on, each get an equal part."""
    sampling: Literal["group", "batch"] = "group"
    """Images that are mixed, or not, together. group: four consecutive images, as in darknet; each image has its own
    kind and place. batch: all images of a step, as in timm's batch mode, with one kind and place."""
    blur: int = 0
    """Side in pixels (odd) of the Gaussian blur of a quarter of the images; 0: none. darknet's blur=1 is 15."""
    smoothing: float = 0.1
    """Label smoothing eps: 1 - eps for the label, eps / (classes - 1) for every other class."""

    def __post_init__(self) -> None:
        require_ranges(self, "mixing.", prob="[0, 1]", smoothing="[0, 1)")
        fits = self.blur == 0 or (self.blur >= 3 and self.blur % 2 == 1)
        require(fits, "mixing.blur", self.blur, "must be 0 or an odd number of at least 3")


@dataclass(frozen=True)
class Loading:
    """Reading and decoding of files, and the treatment of bad ones. Only bad_images changes the training itself."""

    bad_images: Literal["stop", "skip"] = "stop"
    """Treatment of a training image that cannot be decoded. stop: end the run with its path. skip: take the next good
    image of its class. A bad validation image always ends the run."""
    bad_images_limit: float = 1e-4
    """Share of replaced images above which a run with bad_images=skip ends."""
    read_threads: int = 4
    """Threads of each process that read files. More threads help where a read is slow, as on network drives."""
    prefetch: int = 2
    """Batches that are read in advance, and batches that are decoded in advance."""
    decode_check: int = 10_000
    """One image in this many is decoded again on the CPU and compared; another result ends the run. 0: none. Needs
    loader=dali; the first batch of each process is always looked at."""
    hw_decoder_load: float = 0.65
    """Share of the JPEG files for the GPU's hardware decoder, where it has one."""
    preallocate: tuple[int, int] = (5980, 6430)
    """Width and height in pixels of the largest image (here ImageNet's) for which GPU decoding memory is reserved at
    the start, so that it does not run out later; [0, 0]: reserve nothing."""

    def __post_init__(self) -> None:
        prefix = "loading."
        require_positive(self, prefix, "read_threads", "prefetch")
        require_ranges(self, prefix, bad_images_limit="[0, 1]", hw_decoder_load="[0, 1]")
        require(self.decode_check >= 0, f"{prefix}decode_check", self.decode_check, "must not be negative")
        require(min(self.preallocate) >= 0, f"{prefix}preallocate", self.preallocate, "must not be negative")
        is_used = self.bad_images == "skip" or self.bad_images_limit == Loading.bad_images_limit
        require(is_used, f"{prefix}bad_images_limit", self.bad_images_limit, "needs --bad-images skip")


@dataclass(frozen=True)
class Synthetic:
    """Size of the random data set of --loader synthetic."""

    classes: int = 1000
    """Number of classes."""
    train_per_class: int = 1281
    """Training images of each class."""
    val_per_class: int = 50
    """Validation images of each class."""

    def __post_init__(self) -> None:
        require_positive(self, "synthetic.", "classes", "train_per_class", "val_per_class")


@dataclass(frozen=True)
class Optim:
    """SGD and its poly schedule, with the options of darknet's [net] section."""

    momentum: float = 0.9
    """Momentum of SGD (not Nesterov)."""
    weight_decay: float = 5e-4
    """L2 decay of the weights of convolutions and of the classifier; biases, norms and fusion weights have none."""
    power: float = 4.0
    """Exponent of the poly decay and of the burn-in."""
    burn_in: int | None = None
    """Steps of burn-in; unset: 1000, or a tenth of a run of fewer than 10,000 steps."""
    clip_grad: float | None = None
    """Largest global norm of the gradient; unset: no clipping."""
    bn_momentum: float = 0.01
    """Momentum of BatchNorm. 0.01 is darknet's; a run of a few hundred steps needs 0.1."""
    bn_batch: int | None = None
    """Number of images that BatchNorm normalizes together, whatever the number of processes and --grad-accum-steps. It
    must divide a micro-batch. The running statistics then move once a step. Unset: the micro-batch. darknet's recipes
    have 32."""
    sync_bn: bool = False
    """Let BatchNorm normalize the micro-batches of all processes together. They wait for each other in every layer."""
    fusion_update: Literal["sgd", "darknet"] = "sgd"
    """Update of fusion weights. sgd: as every other weight. darknet: with the momentum clipped to 1 / batch_size."""
    burnin_update: int | None = None
    """Number of burn-ins during which fusion weights do not change; unset: as the network says. Needs
    fusion_update=darknet."""

    def __post_init__(self) -> None:
        prefix = "optim."
        require_positive(self, prefix, "power", "clip_grad", "bn_batch")
        fits = not self.sync_bn or self.bn_batch is None
        require(fits, f"{prefix}bn_batch", self.bn_batch, "and sync_bn both say what BatchNorm averages over: keep one")
        require_ranges(self, prefix, momentum="[0, 1)", bn_momentum="(0, 1]")
        for option in ("weight_decay", "burn_in", "burnin_update"):
            require((getattr(self, option) or 0) >= 0, prefix + option, getattr(self, option), "must not be negative")
        fits = not self.burnin_update or self.fusion_update == "darknet"
        rule = "is part of darknet's rule: set optim.fusion_update=darknet"
        require(fits, f"{prefix}burnin_update", self.burnin_update, rule)


@dataclass(frozen=True)
class Ema:
    """Exponential moving average of the weights (equal to timm's ModelEmaV3)."""

    decay: float = 0.9998
    """Share of the old average that each step keeps."""
    warmup: bool = True
    """Let the decay grow from 0 during the first steps."""

    def __post_init__(self) -> None:
        require_ranges(self, "ema.", decay="[0, 1)")


@dataclass(frozen=True)
class Log:
    """Logging of figures."""

    interval: int = 50
    """Steps between two log rows. At these steps the program waits for the device."""
    wandb_project: str = "backbones"
    """W&B project."""
    wandb_mode: Literal["online", "offline"] | None = None
    """Mode of W&B; unset: the environment variable WANDB_MODE, or online."""

    def __post_init__(self) -> None:
        require_positive(self, "log.", "interval")
        is_name = not set(self.wandb_project) & set("/\\#?%:")
        require(is_name, "log.wandb_project", self.wandb_project, "must be a name without / \\ # ? % and :")


@dataclass(frozen=True)
class Saving:
    """Checkpoints between validations. A checkpoint is also written at every validation and on signals."""

    ckpt_minutes: float | None = 10.0
    """Minutes between two checkpoints; null: no checkpoints by time."""
    ckpt_every: int | None = None
    """Optimizer steps between two checkpoints; unset: no checkpoints by steps."""
    checkpoint_hist: int = 3
    """Checkpoints that are kept: last, last-1 and so on. The best one is kept as well."""

    def __post_init__(self) -> None:
        require_positive(self, "saving.", "ckpt_minutes", "ckpt_every")
        require(self.checkpoint_hist >= 2, "saving.checkpoint_hist", self.checkpoint_hist, "must be at least 2")


@dataclass(frozen=True)
class Waiting:
    """Limits for the time that a process waits for the others; a process that hangs then ends the run."""

    timeout: float = 120.0
    """Seconds, from the second step on. A longer pause of one process, for its data or for saving, ends the run too."""
    first_timeout: float = 600.0
    """Seconds until the first step is done, which may compile the network."""

    def __post_init__(self) -> None:
        require_positive(self, "waiting.", "timeout", "first_timeout")


@dataclass(frozen=True)
class Health:
    """Monitors of the run. An alarm is a line, a row of metrics.jsonl and a W&B alert; it changes nothing."""

    monitors: bool = True
    """Watch fusion weights, loss, gradient, BatchNorm, speed, processes and disk, and write heartbeat.json."""
    fusion_interval: int = 100
    """Steps between two looks at the fusion weights, each at the next log row."""
    replica_interval: int = 5000
    """Steps between two comparisons of the parameters of all processes, each at the next log row. A difference ends
    the run."""

    def __post_init__(self) -> None:
        require_positive(self, "health.", "fusion_interval", "replica_interval")


@dataclass(frozen=True)
class Recipe:
    """One training run. The run folder holds its complete recipe, which can be run again as it is."""

    model: str = "csresnext50_ws_mi2"
    """Name of the network: one of ours, any timm model, or a darknet .cfg file."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the network, such as {act: leaky}."""
    data_dir: str | None = None
    """Training and validation images: class folders, the official archives, shards, or the output of `prepare`."""
    layout: LayoutName | None = None
    """Layout of the data set, where data_dir holds more than one; unset: recognized by its files."""
    output: str | None = None
    """Run folder, new or empty; unset: runs/DATE-TIME-MODEL."""
    resume: str | None = None
    """Run folder or checkpoint of a run to continue, with its recipe where the command line does not differ. auto: the
    newest sound checkpoint in the folder of --output, or a new run where there is none."""
    init_weights: str | None = None
    """Weights that a new run starts from: a run folder or checkpoint of ours, timm's .safetensors or .pth, or darknet's
    .weights or .conv.N. A classifier of other classes is made anew. A resumed run does not read them."""
    init_partial: bool = False
    """Take the tensors that fit where the weights to start from are of another network; a table shows the others."""
    pretrained: bool = False
    """Start a new run from the weights that timm publishes for the network."""
    init_sha256: str | None = None
    """sha256 of the weights that the run starts from; other weights are refused. A run writes it to its recipe."""
    batch_size: int = 128
    """Images per optimizer step, over all processes and accumulation steps together."""
    grad_accum_steps: int = 1
    """Micro-batches per step whose gradients are summed (darknet's subdivisions)."""
    epochs: int | None = None
    """Length of the run in passes over the training set; 120 where neither epochs nor steps is given."""
    steps: int | None = None
    """Length of the run in optimizer steps, in place of epochs."""
    lr: float = 0.1
    """Learning rate at the end of burn-in, for the whole batch_size; never scaled by the number of GPUs."""
    seed: int = 0
    """Seed of the initial weights, the order of images, their augmentation and the mixing."""
    img_size: int = 256
    """Height and width of the network input in pixels."""
    loader: LoaderName = "dali"
    """Image decoder: NVIDIA DALI, torchvision as a slow reference, or random images without a data set (synthetic)."""
    workers: int = 4
    """Decoding threads per process."""
    device: Literal["auto", "cpu"] = "auto"
    """auto: a GPU where there is one."""
    precision: Precision = "auto"
    """Number format of the computation. auto: --mixed_precision of accelerate launch."""
    tf32: bool = True
    """Let a GPU compute products of float32 numbers in TF32, with 10 bits of mantissa; bf16 and fp16 do not change."""
    channels_last: bool = True
    """Keep activations in NHWC memory order."""
    torchcompile: bool | CompileMode = False
    """Compile the network with torch.compile, for training and for validation. true: default. reduce-overhead: with
    CUDA graphs, for small micro-batches. max-autotune: also try more GPU kernels, which takes minutes."""
    fold: bool = True
    """Evaluate with batch normalization folded into the convolutions and fusion weights as shares, which is faster and
    equal up to rounding. eval.py then does the same."""
    grad_checkpointing: bool = False
    """Recompute all activations of a stage in the backward pass to save memory."""
    recompute: bool = True
    """Recompute normalized and activated maps in the backward pass, which saves a third of the memory; on a CPU a step
    takes longer. Only rounding differs. Our own networks and cfg files have such layers; other networks ignore it."""
    model_ema: bool = False
    """Keep, evaluate and save an exponential moving average of the weights."""
    log_wandb: bool = False
    """Send every logged row to Weights & Biases, too; the run folder always has all rows."""
    deterministic: bool = False
    """Use deterministic operations only, so that a resumed run is the same to the bit on a GPU, too; on a CPU it always
    is. This costs speed, also since cuDNN's algorithms are not measured, and an operation that has no such form is an
    error. TF32 is deterministic, too."""
    dry_run: bool = False
    """Check data, shards, memory, learning, resuming and disk in a few minutes, tell the hours, and train nothing."""
    price: float | None = None
    """Price of one device for an hour, for the cost that a dry run tells."""
    on_nan: Literal["stop", "rollback"] = "stop"
    """At a loss or a gradient that is not finite: end the run, or go back to the newest checkpoint and past the images
    up to that step, three times at most."""
    val_interval: int = 1
    """Epochs between two validations; the last epoch always has one."""
    preprocess: Preprocess = field(default_factory=Preprocess)
    """Input of the network."""
    augment: Augment = field(default_factory=Augment)
    """Random changes of a training image."""
    mixing: Mixing = field(default_factory=Mixing)
    """Mosaic, cutmix, mixup, blur and label smoothing."""
    loading: Loading = field(default_factory=Loading)
    """Reading and decoding of files."""
    synthetic: Synthetic = field(default_factory=Synthetic)
    """Data set of --loader synthetic."""
    optim: Optim = field(default_factory=Optim)
    """SGD and its schedule."""
    ema: Ema = field(default_factory=Ema)
    """Moving average of model_ema."""
    saving: Saving = field(default_factory=Saving)
    """Checkpoints between validations."""
    waiting: Waiting = field(default_factory=Waiting)
    """Limits for hanging processes."""
    health: Health = field(default_factory=Health)
    """Monitors and their alarms."""
    log: Log = field(default_factory=Log)
    """Logging of figures."""

    def __post_init__(self) -> None:
        counts = ("batch_size", "grad_accum_steps", "img_size", "workers", "val_interval")
        require_positive(self, "", *counts, "epochs", "steps")
        require(0 < self.lr < math.inf, "lr", self.lr, "must be positive and finite")
        for option in ("model", "data_dir", "output", "resume", "init_weights"):
            require(getattr(self, option) != "", option, "", "must not be empty (an unset variable?)")
        require(0 <= self.seed < 2**63, "seed", self.seed, "must lie in [0, 2**63)")
        object.__setattr__(self, "torchcompile", name_compile_mode(self.torchcompile))
        self._require_one_start()
        if self.epochs is not None and self.steps is not None:
            raise UserError(
                f"epochs={self.epochs} and steps={self.steps} both say how long the run is: "
                "unset one of them (--steps null or --epochs null)."
            )

    @property
    def starts_from_weights(self) -> bool:
        """True when a new run does not start from random weights."""
        return self.init_weights is not None or self.pretrained

    def _require_one_start(self) -> None:
        starts = {"init_weights": self.init_weights, "pretrained": self.pretrained}
        starts["model_args.pretrained"] = self.model_args.get("pretrained")
        if len(named := [f"{option}={value}" for option, value in starts.items() if value]) > 1:
            raise UserError(f"{' and '.join(named)} each say which weights the run starts from: keep one of them.")
        for option, value in (("init_partial", self.init_partial), ("init_sha256", self.init_sha256)):
            require(not value or self.starts_from_weights, option, value, "needs --init-weights or --pretrained")

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain, nested dictionaries of YAML types."""
        return _plain(asdict(self))


def without_start(recipe: Recipe) -> Recipe:
    """Return the recipe of a run from random weights."""
    return replace(recipe, init_weights=None, init_partial=False, pretrained=False, init_sha256=None)


def run_length(recipe: Recipe, steps_per_epoch: int) -> int:
    """Return the number of optimizer steps of the run."""
    return recipe.steps or (recipe.epochs or DEFAULT_EPOCHS) * steps_per_epoch


def micro_batch(recipe: Recipe, processes: int) -> int:
    """Return the number of images in one forward pass of one process, over which BatchNorm averages."""
    return recipe.batch_size // (processes * recipe.grad_accum_steps)


def burn_in_steps(recipe: Recipe, total_steps: int) -> int:
    """Return the steps of burn-in; UserError where it is as long as the run."""
    steps = recipe.optim.burn_in
    if steps is None:
        return min(MAX_BURN_IN_STEPS, total_steps // 10)
    require(steps < total_steps, "optim.burn_in", steps, f"must be smaller than the run's {total_steps} steps")
    return steps


def resolve(recipe: Recipe, *, precision: Precision, steps_per_epoch: int, burn_in_gives_way: bool = False) -> Recipe:
    """Return the recipe with definite precision, length and burn-in.

    With ``burn_in_gives_way`` a burn-in that is as long as the run is replaced by the default: a file asked for it, and
    the command line for a shorter run.
    """
    epochs = recipe.epochs if recipe.steps else recipe.epochs or DEFAULT_EPOCHS
    length = run_length(recipe, steps_per_epoch)
    if burn_in_gives_way and recipe.optim.burn_in is not None and recipe.optim.burn_in >= length:
        recipe = replace(recipe, optim=replace(recipe.optim, burn_in=None))
    burn_in = burn_in_steps(recipe, length)
    return replace(recipe, precision=precision, epochs=epochs, optim=replace(recipe.optim, burn_in=burn_in))


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return {dotted option: (old value, new value)} where two recipes differ."""
    changed: dict[str, tuple[Any, Any]] = {}
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            changed |= differences(before, after, f"{prefix}{key}.")
        elif before != after:
            changed[prefix + key] = (before, after)
    return dict(sorted(changed.items()))


def _plain(value: Any) -> Any:
    """Turn tuples at any depth into lists: YAML has no tuple."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value
