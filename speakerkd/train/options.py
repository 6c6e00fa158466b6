"""The options of a training: those of the optimisation, those of the whole run, and those of the loop."""

import math
from dataclasses import dataclass

from speakerkd.conf import opt
from speakerkd.kd.several import TeacherOptions
from speakerkd.schedules import DECAYS, require_part
from speakerkd.train.precision import AMP


@dataclass(frozen=True)
class TrainConf:
    num_epochs: int = opt(20, "number of epochs; an epoch uses each training utterance once")
    batch_size: int = opt(64, "number of utterances in a step, over all processes")
    num_frames: int = opt(200, "number of frames in a crop")
    mask_frames: int = opt(0, "SpecAugment: up to this many frames of a crop are hidden")
    mask_bins: int = opt(0, "SpecAugment: up to this many filters of a crop are hidden")
    optimizer: str = opt("sgd", "optimiser: sgd or adamw")
    lr: float = opt(0.1, "peak learning rate")
    final_lr: float = opt(5e-5, "learning rate at the end")
    schedule: str = opt("exponential", "how the learning rate falls: exponential or cosine")
    warmup: float = opt(0.05, "part of the run in which the learning rate rises from 0: 6/150 for 6 of 150 epochs")
    momentum: float = opt(0.9, "SGD momentum")
    nesterov: bool = opt(True, "true: Nesterov momentum for SGD")
    weight_decay: float = opt(1e-4, "weight decay")
    weight_decay_on: str = opt(
        "matrices", "parameters that decay: matrices (and filters), or all (also biases and norms)"
    )
    clip: float = opt(0.0, "largest norm of the gradient, above which it is clipped; 0: no clipping")
    clip_each: bool = opt(
        False, "true: --clip holds for each parameter's gradient separately, not for the whole gradient"
    )
    average: int = opt(1, "number of last epochs whose weights are averaged for the result")
    select: bool = opt(
        False, "true: the result is the weights after the epoch with the lowest EER of the held-out speakers"
    )
    amp: str = opt("auto", f"mixed precision: {' '.join(AMP)}; see speakerkd/train/precision.py")
    sync_batch_norm: str = opt(
        "auto", "batch norm over all GPUs: auto (as the method's authors have it), true or false"
    )
    seed: int = opt(0, "random seed of weights, order and crops")
    valid_speakers: int = opt(0, "number of held-out speakers (with their copies at other speeds); their EER is logged")
    valid_interval: int = opt(1, "number of epochs between two EERs of --valid-speakers")

    def __post_init__(self) -> None:
        for name, allowed in (
            ("optimizer", ("sgd", "adamw")),
            ("schedule", DECAYS),
            ("weight_decay_on", ("matrices", "all")),
            ("amp", AMP),
            ("sync_batch_norm", ("auto", "true", "false")),
        ):
            if getattr(self, name) not in allowed:
                option = name.replace("_", "-")
                raise ValueError(f"--{option}={getattr(self, name)} is not one of: {' '.join(allowed)}")
        require_part("--warmup", self.warmup)
        if min(self.clip, self.weight_decay, self.momentum) < 0:
            raise ValueError("--clip, --weight-decay and --momentum must not be negative")
        if min(self.mask_frames, self.mask_bins) < 0:
            raise ValueError("--mask-frames and --mask-bins must not be negative")
        if min(self.num_epochs, self.num_frames, self.average, self.valid_interval) < 1 or self.batch_size < 2:
            raise ValueError(
                "--num-epochs, --num-frames, --average and --valid-interval must be 1 or more, --batch-size 2 or more"
            )
        if self.select and (self.average > 1 or self.valid_speakers < 2 or self.valid_interval > self.num_epochs):
            raise ValueError("--select=true needs --valid-speakers, at least one epoch with their EER, and --average=1")
        if (
            not (0 < self.lr < math.inf and 0 < self.final_lr < math.inf)
            or self.average > self.num_epochs
            or self.seed < 0
        ):
            raise ValueError(
                "--lr and --final-lr must be positive, --average at most --num-epochs, --seed not negative"
            )


@dataclass(frozen=True)
class RunOptions(TeacherOptions, TrainConf):
    """The options of local/train.py."""

    model: str = opt("conf/model/xvector.conf", "conf file of the model")
    head: str = opt("conf/head.conf", "conf file of the classifier")
    kd: str = opt("conf/kd/none.conf", "conf file of the method")
    source: str = opt("feats", "what crops are made of: feats (rows of feats.scp) or waves (waves.scp, else wav.scp)")
    augment: str = opt("", "conf file of augmentation on the fly: noise, music, babble, rooms, telephone")
    hear_clean: bool = opt(False, "true: teachers hear crops of waves without the augmentation of --augment")
    hear_frames: int = opt(
        0, ">0: teachers hear longer crops of this many frames, around the student's; 0: the student's crops"
    )
    features: str = opt(
        "loader", "what computes features of waves: loader, or device (the GPU that trains, for a batch at once)"
    )
    vectors: str = opt(
        "", "further inputs of the method: name=file,...; a file is an scp of vectors, or a table of numbers"
    )
    init: str = opt(
        "", "final.pt to start from: takes its encoder and the classifier's rows of known speakers; for maps: a matrix"
    )
    init_utts: int = opt(
        0, "utterances whose mean embedding is the classifier's row of a speaker that --init does not know; 0: random"
    )
    device: str = opt("auto", "device: auto, cpu or cuda")
    threads: int = opt(0, "number of CPU threads of a process; 0: as PyTorch chooses")
    log_interval: int = opt(50, "number of steps between lines of the log")
    save_minutes: float = opt(10.0, "last.pt is written at least every so many minutes")
    workers: int = opt(-1, "number of extra processes that make batches; -1: 4 if a GPU trains, otherwise none")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.log_interval < 1 or self.threads < 0 or self.workers < -1:
            raise ValueError("--log-interval must be 1 or more, --threads 0 or more, --workers -1 or more")
        if self.init_utts < 0 or (self.init_utts and not self.init):
            raise ValueError(f"--init-utts={self.init_utts}: give 0 or more, and --init with it")


@dataclass(frozen=True)
class LoopSettings:
    """Options of the loop that do not change the result."""

    log_interval: int = 50  # steps between lines
    save_minutes: float = 10.0  # last.pt is also written at the end of each epoch
    workers: int = 0  # processes that make batches; 0: this one
