"""What would become of each model of the catalogue: its files, its licence, its memory on each device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from contracts.models import Entry
from models import room
from models.estimate import BYTES, Sizes, loaded, resident
from models.flaws import flaws
from models.layout import is_main_weights
from models.sizes import readable
from models.weights import BrokenFileError, parameters_of
from workers.doctor.machine import Device
from workers.settings import WorkerSettings

STORED = BYTES["bfloat16"]
"""Bytes a weight that files are taken to have before they are here."""


@dataclass(frozen=True)
class Fit:
    """A model on a device.

    Attributes:
        device: torch's name of it.
        weights: bytes of them there while pictures are made, of the model and its default rewards.
        free: bytes of the device.
        rows: pictures that a call has room for; 0: the model does not fit.
        said: what to do where it does not.
    """

    device: str
    weights: int
    free: int
    rows: int
    said: str = ""


@dataclass(frozen=True)
class Beside:
    """The default rewards of a model: bytes of their weights, and what they lack."""

    size: int
    lack: Sequence[str]


@dataclass(frozen=True)
class Files:
    """What is known of a model's files.

    Attributes:
        state: whether they are here.
        said: where, or what to do.
        folder: where they are; None: nowhere yet.
        parameters: of each network, and where from; empty: nobody knows.
        licence: as the hub tells; None: it was not asked.
        gated: as the hub tells; None: it was not asked.
    """

    state: Literal["here", "not here"]
    said: str
    folder: Path | None = None
    parameters: Mapping[str, float] = field(default_factory=dict[str, float])
    licence: str | None = None
    gated: bool | None = None


@dataclass(frozen=True)
class Model:
    """What would become of a model.

    Attributes:
        refused: why a worker would refuse it, whatever the memory.
        networks: bytes of each network once loaded.
        picture: bytes that a picture takes in a call.
    """

    id: str
    served: bool
    licence: str
    files: Files
    refused: Sequence[str]
    networks: Mapping[str, int]
    picture: int
    size: str
    fits: Sequence[Fit]

    @property
    def ok(self) -> bool:
        """Whether it would run here."""
        here = self.files.state == "here" and not self.refused
        return here and any(fit.rows for fit in self.fits)


def looked_at(
    name: str,
    entry: Entry,
    worker: WorkerSettings,
    devices: Sequence[Device],
    beside: Beside,
    *,
    served: bool,
) -> Model:
    """A model, looked at.

    Args:
        name: its id.
        entry: of the catalogue.
        worker: where workers run, and folders in place of the catalogue's.
        devices: where it might run.
        beside: its default rewards.
        served: whether ROLLOVER_MODELS names it.
    """
    files = files_of(name, entry, worker.model_paths.get(name, entry.folder))
    networks = loaded(files.parameters, entry.dtype, entry.quantisation)
    sizes = Sizes.of(files.folder) if files.folder else Sizes()
    wide, high = entry.width.default, entry.height.default
    picture = sizes.picture(wide, high, entry.dtype, tiled=entry.vae_tiling)
    needs = room.Model(files.parameters, beside.size, picture)
    host = next(device.free for device in devices if not device.is_gpu)
    fits = [
        fit(entry, device, host, needs)
        for device in devices
        if networks and entry.device in {None, "auto", device.name, device.name.partition(":")[0]}
    ]
    licence = entry.licence if files.licence is None else files.licence
    refused = refusals(name, entry, files.folder, entry.device or worker.device) if files.folder else []
    refused += beside.lack
    return Model(name, served, licence, files, refused, networks, picture, f"{wide} x {high}", fits)


def fit(entry: Entry, device: Device, host: int, needs: room.Model) -> Fit:
    """Whether a model fits on a device as the catalogue has it, and what would make it fit.

    Args:
        entry: of the catalogue.
        device: where it would compute.
        host: bytes of the CPU's memory that are free.
        needs: what decides how much memory it takes.
    """
    there = room.Room(device.free, host if device.is_gpu else None)
    networks = loaded(needs.parameters, entry.dtype, entry.quantisation)
    weights = resident(networks, entry.offload if device.is_gpu else "none") + needs.rewards
    lacks = there.lacks(needs, entry.dtype, entry.quantisation, entry.offload)
    if lacks is None:
        return Fit(device.name, weights, device.free, (device.free - weights) // needs.picture)
    return Fit(device.name, weights, device.free, 0, f"{lacks}; {there.advice(needs)}")


def files_of(name: str, entry: Entry, folder: Path | None) -> Files:
    """What is known of a model's files, of those here or of those on the hub."""
    if folder is not None:
        return files_in(folder)
    remedy = f"rollover models pull {name}"
    given = {part: 1e9 * billions for part, billions in entry.parameters.items()}
    if find_spec("huggingface_hub") is None:
        return Files("not here", f"cannot be looked for: {remedy} needs rollover[worker]", None, given)
    hub: Any = import_module("workers.hub")
    found = hub.here(entry.repository, entry.revision)
    if found is None:
        return files_on_hub(hub, entry, remedy, given)
    lacking = hub.lacking(entry.repository, entry.revision, found)
    if lacking:
        return Files("not here", f"{len(lacking)} files are still to come: {remedy}", None, given)
    return files_in(found)


def files_in(folder: Path) -> Files:
    """What is known of files that are here."""
    return Files("here" if folder.is_dir() else "not here", str(folder), folder, counted(folder))


def counted(folder: Path) -> Mapping[str, float]:
    """How many weights each network has; empty where files are broken or not there."""
    try:
        return {name: float(count) for name, count in parameters_of(folder).items()}
    except (BrokenFileError, OSError):
        return {}


def refusals(name: str, entry: Entry, folder: Path, device: str) -> list[str]:
    """Why a worker would refuse a model whose files are here; without torch, what names and headers tell."""
    wrong = flaws(folder) if entry.backend == "modular" else []
    if find_spec("torch") is None:
        return [*wrong, "torch is not installed"]
    if wrong:
        return wrong
    registry: Any = import_module("models.registry")
    try:
        source = import_module("workers.loading").source_of(name, entry, folder)
        registry.check_model(source, import_module("workers.devices").usable(device))
    except (registry.ModelLoadError, registry.UnknownNameError) as error:
        return [str(error)]
    return []


def files_on_hub(hub: Any, entry: Entry, remedy: str, given: Mapping[str, float]) -> Files:  # noqa: ANN401 -- the module
    """What the hub tells of files that are not here; what the catalogue does, where the hub is away."""
    try:
        offer = hub.look_up(entry.repository, entry.revision)
    except hub.HubError as error:
        return Files("not here", f"{remedy}; the hub could not be asked: {error}", None, given)
    told = on_offer(offer.sizes)
    size = readable(STORED * sum(told.values()))
    accept = f", once its licence is accepted at {offer.page}" if offer.gated else ""
    return Files("not here", f"{remedy} ({size}){accept}", None, told, offer.licence, offer.gated)


def on_offer(sizes: Mapping[str, int]) -> Mapping[str, float]:
    """How many weights each network of a repository has, by the sizes of its files."""
    found: dict[str, float] = {}
    for path, size in sizes.items():
        folder, _, file = path.rpartition("/")
        if file.endswith(".safetensors") and is_main_weights(file) and f"{folder}/config.json" in sizes:
            found[folder] = found.get(folder, 0.0) + size / STORED
    return found
