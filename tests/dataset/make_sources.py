"""One small data set in every layout that ImageNet comes in: the same JPEG files, byte for byte."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

WNIDS = ("n01440764", "n02094433", "n02129604", "n03792782")

IDS = {"n01440764": 3, "n02094433": 1, "n02129604": 4, "n03792782": 2}
"""ILSVRC2012_ID of each class: not in the order of the names."""

SIZES = [(71, 48), (48, 71), (64, 64), (113, 40), (57, 90), (40, 40), (130, 97), (51, 101)]
"""Width and height in pixels."""

KINDS = ("RGB", "L", "RGB", "CMYK", "PNG", "RGB")
"""Colour mode of the JPEG; PNG: another format under the name of a JPEG, which ImageNet has too."""

Images = dict[str, dict[str, bytes]]


def write_sources(root: Path, *, per_class: int = 6, val_per_class: int = 3, shard: int = 7) -> dict[str, Path]:
    """Write 4 classes of photograph-like images in four layouts; return the folder of each by name.

    The names are folder, kaggle, ilsvrc and webdataset; ``shard`` images make a shard. Kinds and sizes are mixed.
    """
    images = make_images(per_class, val_per_class)
    writers = {"folder": write_folder, "kaggle": write_kaggle, "ilsvrc": write_ilsvrc}
    for name, write in writers.items():
        write(root / name, images)
    write_webdataset(root / "webdataset", images, shard)
    return {name: root / name for name in (*writers, "webdataset")}


def make_images(per_class: int = 6, val_per_class: int = 3) -> Images:
    """Return the bytes of each image by split and WNID/NAME; validation images are numbered across the classes."""
    train = [f"{wnid}/{wnid}_{10 * k + 7}.JPEG" for wnid in WNIDS for k in range(per_class)]
    val = [f"{WNIDS[(3 * k + 2) % 4]}/ILSVRC2012_val_{k + 1:08d}.JPEG" for k in range(4 * val_per_class)]
    return {
        "train": {name: encode(seed) for seed, name in enumerate(train)},
        "val": {name: encode(1_000 + seed) for seed, name in enumerate(val)},
    }


def encode(seed: int) -> bytes:
    """Return one image; its size, kind and pixels follow from ``seed``."""
    (width, height), kind = SIZES[seed % len(SIZES)], KINDS[seed % len(KINDS)]
    mode = "RGB" if kind == "PNG" else kind
    image = picture(mode, width, height, seed=10 * seed)
    written = io.BytesIO()
    image.save(written, **({"format": "PNG"} if kind == "PNG" else {"format": "JPEG", "quality": 92}))
    return written.getvalue()


def picture(mode: str, width: int, height: int, *, seed: int) -> Image.Image:
    """Return an image whose channels have most in common, as those of photographs do."""
    light = photograph(width, height, seed=seed)
    channels = range(len(Image.new(mode, (1, 1)).getbands()))
    planes = [0.8 * light + 0.2 * photograph(width, height, seed=seed + 1 + k) for k in channels]
    return Image.merge(mode, [Image.fromarray(plane.astype(np.uint8)) for plane in planes])


def photograph(width: int, height: int, *, seed: int) -> np.ndarray:
    """Return one channel whose amplitudes fall with the frequency, as those of photographs do.

    Shape: (height, width) uint8.
    """
    noise = np.fft.rfft2(np.random.default_rng(seed).normal(size=(height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    plane = np.fft.irfft2(noise / np.maximum(frequency, 1 / max(width, height)), s=(height, width))
    return (128 + 48 * (plane - plane.mean()) / plane.std()).clip(0, 255).astype(np.uint8)


def write_folder(root: Path, images: Images) -> None:
    """Write ROOT/{train,val}/WNID/NAME.JPEG."""
    for split, files in images.items():
        for name, content in files.items():
            write(root / split / name, content)


def write_kaggle(root: Path, images: Images) -> None:
    """Write ILSVRC/Data/CLS-LOC, a flat val folder, and the table beside ILSVRC."""
    for name, content in images["train"].items():
        write(root / "ILSVRC" / "Data" / "CLS-LOC" / "train" / name, content)
    rows = []
    for name, content in images["val"].items():
        wnid, file = name.split("/")
        write(root / "ILSVRC" / "Data" / "CLS-LOC" / "val" / file, content)
        rows.append(f"{Path(file).stem},{wnid} 85 1 499 272 {wnid} 3 4 5 6 \n")
    write(root / "LOC_val_solution.csv", ("ImageId,PredictionString\n" + "".join(reversed(rows))).encode())


def write_ilsvrc(root: Path, images: Images) -> None:
    """Write the two official archives and the devkit."""
    per_class = {
        wnid: pack({Path(name).name: each for name, each in images["train"].items() if name.startswith(wnid)})
        for wnid in reversed(WNIDS)
    }
    write(root / "ILSVRC2012_img_train.tar", pack({f"{wnid}.tar": content for wnid, content in per_class.items()}))
    val = {Path(name).name: content for name, content in sorted(images["val"].items(), reverse=True)}
    write(root / "ILSVRC2012_img_val.tar", pack(val))
    write(root / "ILSVRC2012_devkit_t12.tar.gz", pack(devkit(images), mode="w:gz"))


def devkit(images: Images) -> dict[str, bytes]:
    """Return the files of the devkit that matter, and one that does not."""
    wnid_of = {Path(name).name: name.split("/")[0] for name in images["val"]}
    ids = "".join(f"{IDS[wnid_of[name]]}\n" for name in sorted(wnid_of))
    folder = "ILSVRC2012_devkit_t12"
    return {
        f"{folder}/readme.txt": b"not needed",
        f"{folder}/data/meta.mat": meta(),
        f"{folder}/data/ILSVRC2012_validation_ground_truth.txt": ids.encode(),
    }


def meta() -> bytes:
    """Return meta.mat: the classes by ILSVRC2012_ID, then two synsets that have children."""
    rows = [(number, wnid, f"words of {wnid}", "gloss", 0, []) for wnid, number in IDS.items()]
    rows = [
        *sorted(rows),
        (5, "n00001740", "entity", "gloss", 2, [1, 2]),
        (6, "n00015388", "animal", "gloss", 2, [3, 4]),
    ]
    kind = [(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children")]
    written = io.BytesIO()
    savemat(written, {"synsets": np.array(rows, dtype=kind)[:, None]})
    return written.getvalue()


def write_webdataset(root: Path, images: Images, shard: int = 7) -> None:
    """Write shards of ``shard`` images in mixed order, classes as numbers, and the names of the classes."""
    for split, files in images.items():
        names = sorted(files, key=lambda name: (len(files[name]), name))
        for number, start in enumerate(range(0, len(names), shard)):
            members = {}
            for name in names[start : start + shard]:
                key = Path(name).stem
                members[f"{key}.cls"] = str(WNIDS.index(name.split("/")[0])).encode()
                members[f"{key}.jpg"] = files[name]
                members[f"{key}.json"] = b"{}"
            word = "validation" if split == "val" else split
            write(root / f"imagenet1k-{word}-{number:04d}.tar", pack(members))
    write(root / "classes.txt", "".join(f"{wnid}\n" for wnid in WNIDS).encode())


def pack(members: dict[str, bytes], mode: str = "w") -> bytes:
    """Return a tar of ``members``."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode=mode) as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return written.getvalue()


def write(path: Path, content: bytes) -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
