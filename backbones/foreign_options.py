"""Options of other trainers: our equivalent, or what to write instead."""

_PRECISION = "write --precision bf16 or --precision fp16"
_SCHEDULE = "leave it out, since the schedule is always poly after a burn-in (--lr, --power, --burn-in)"
_OPTIMIZER = "leave it out, since the optimizer is always SGD (--lr, --momentum, --weight-decay)"
_NORM = "leave it out: each process normalizes by its own images, and the statistics are averaged for validation"
_LAUNCH = "leave it out; `accelerate launch --config_file configs/accelerate/gpu8.yaml` starts the processes"
_AUTO = "write --augmentation inception --auto randaugment (its strength is --magnitude), or --auto trivialaugment"
_MIXED = "write --mixup or --cutmix; --prob is the share of images that are mixed"
_START = "write --pretrained for the weights that timm publishes, or --init-weights FILE"

FOREIGN: dict[str, tuple[str, str]] = {
    # the same as ours
    "arch": ("model", ""),
    "data": ("data_dir", ""),
    "data_path": ("data_dir", ""),
    "checkpoint": ("ckpt", ""),
    "learning_rate": ("lr", ""),
    "wd": ("optim.weight_decay", ""),
    "clip_grad_norm": ("optim.clip_grad", ""),
    "label_smoothing": ("mixing.smoothing", ""),
    "reprob": ("augment.inception.erasing", ""),
    "random_erase": ("augment.inception.erasing", ""),
    "model_ema_decay": ("ema.decay", ""),
    "model_ema_warmup": ("ema.warmup", ""),
    "log_interval": ("log.interval", ""),
    "num_workers": ("workers", ""),
    "grad_clip": ("optim.clip_grad", ""),
    "use_ema": ("model_ema", ""),
    "train_crop_size": ("img_size", ""),
    "initial_checkpoint": ("init_weights", ""),
    "gradient_accumulation_steps": ("grad_accum_steps", ""),
    # not the same: what to write
    "amp": ("precision", _PRECISION),
    "amp_dtype": ("precision", _PRECISION),
    "fp16": ("precision", "write --precision fp16"),
    "bf16": ("precision", "write --precision bf16"),
    "opt": ("optim.momentum", _OPTIMIZER),
    "optimizer": ("optim.momentum", _OPTIMIZER),
    "sched": ("optim.power", _SCHEDULE),
    "lr_scheduler": ("optim.power", _SCHEDULE),
    "decay_rate": ("optim.power", _SCHEDULE),
    "min_lr": ("optim.power", "leave it out, since the learning rate ends at 0"),
    "warmup_lr": ("optim.burn_in", "leave it out, since the learning rate starts at 0"),
    "warmup_epochs": ("optim.burn_in", "write --burn-in STEPS, counted in steps and not in epochs"),
    "lr_warmup_epochs": ("optim.burn_in", "write --burn-in STEPS, counted in steps and not in epochs"),
    "aa": ("augment.inception.auto", _AUTO),
    "auto_augment": ("augment.inception.auto", _AUTO),
    "mixup_prob": ("mixing.prob", _MIXED),
    "mixup_alpha": ("mixing.prob", _MIXED),
    "cutmix_alpha": ("mixing.prob", _MIXED),
    "drop": ("model_args", "write --model-args '{drop_rate: 0.2}'"),
    "drop_path": ("model_args", "write --model-args '{drop_path_rate: 0.1}' for a timm model that has it"),
    "torchcompile_mode": ("torchcompile", "write --torchcompile MODE"),
    "native_amp": ("precision", _PRECISION),
    "dist_bn": ("optim.bn_momentum", _NORM),
    "val_resize_size": ("preprocess.crop_pct", "write --crop-pct, the size of the crop / the size of the resize"),
    "val_crop_size": ("img_size", "leave it out, since validation has the size of training"),
    "num_classes": ("data_dir", "leave it out, since the classes are the class folders of --data-dir"),
    "val_batch_size": ("grad_accum_steps", "leave it out, since validation has the batches of training"),
    "validation_batch_size": ("grad_accum_steps", "leave it out, since validation has the batches of training"),
    "experiment": ("output", "write --output FOLDER"),
    "weights": ("init_weights", _START),
    "finetune": ("init_weights", _START),
    "dist_url": ("precision", _LAUNCH),
    "dist_backend": ("precision", _LAUNCH),
    "world_size": ("precision", _LAUNCH),
    "local_rank": ("precision", _LAUNCH),
}
"""Spelling, with underscores -> our option, and what to write where that is not the same. A row holds wherever our
option exists."""

_BOTH = "; --prob is the share of images that are mixed"
FLAG_HINTS = {"mixing.mixup": _BOTH, "mixing.cutmix": _BOTH}
"""Hint for a boolean option that was given a number."""
