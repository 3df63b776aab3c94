"""All that `rollover doctor` found, as text and as JSON."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from models.sizes import readable
from workers.doctor.catalogue import Fit, Model
from workers.doctor.machine import Device, Finding
from workers.doctor.rewards import RewardState


@dataclass(frozen=True)
class Report:
    """What was found. `ok` where every model that is served would run."""

    machine: Sequence[Finding]
    devices: Sequence[Device]
    models: Sequence[Model]
    rewards: Sequence[RewardState]

    @property
    def ok(self) -> bool:
        """Whether the machine and every served model are well."""
        return all(found.ok for found in self.machine) and all(m.ok for m in self.models if m.served)


def as_json(report: Report) -> str:
    """The report for programs; sizes in bytes."""
    models = [asdict(model) | {"ok": model.ok} for model in report.models]
    return json.dumps(asdict(report) | {"ok": report.ok, "models": models}, indent=1, default=str) + "\n"


def as_text(report: Report) -> str:
    """The report for people."""
    return "\n".join(lines(report)) + "\n"


def lines(report: Report) -> Iterator[str]:
    """The report, line by line."""
    yield "machine"
    for found in report.machine:
        yield f"  {mark(found.ok, needed=True)} {found.name:<8} {found.said}"
    for device in report.devices:
        free, total = readable(device.free), readable(device.total)
        yield f"  {mark(ok=True, needed=True)} {device.name:<8} {device.title}, {free} free of {total}"
    yield "models"
    for model in report.models:
        yield from model_lines(model)
    yield "rewards"
    for reward in report.rewards:
        yield f"  {mark(reward.ok, needed=False)} {reward.name:<18} {reward.said}"
    yield verdict(report)


def model_lines(model: Model) -> Iterator[str]:
    """One model."""
    served = " (served)" if model.served else ""
    yield f"  {mark(model.ok, needed=model.served)} {model.id}{served}, licence {model.licence}"
    yield f"      files    {model.files.state}: {model.files.said}"
    if model.files.gated is not None:
        yield f"      gated    {'yes' if model.files.gated else 'no'}"
    for why in model.refused:
        yield f"      refused  {why}"
    if not model.networks:
        yield "      memory   unknown: neither its files are here nor does the catalogue say `parameters`"
        return
    networks = ", ".join(f"{name} {readable(size)}" for name, size in model.networks.items())
    yield f"      memory   {networks}; about {readable(model.picture)} a picture of {model.size}"
    for fit in model.fits:
        yield f"      {fit.device:<8} {fitting(fit)}"


def fitting(fit: Fit) -> str:
    """A model on a device, in words."""
    if fit.rows:
        return f"fits, with room for {fit.rows} pictures in a call"
    return f"does not fit: {fit.said}"


def mark(ok: bool, *, needed: bool) -> str:  # noqa: FBT001 -- what is marked
    """At the beginning of a line: well, not well, or not well and not needed."""
    return "ok" if ok else "NO" if needed else "--"


def verdict(report: Report) -> str:
    """The last line."""
    if report.ok:
        return "Everything that is served would run."
    return "Something that is served would not run: see the lines with NO."
