"""Series that are complete and selected are restored, each once."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from threading import Event

from pydicom import dcmread
from pydicom.dataset import Dataset

from medddpm.cohort.job import Settings, do_job
from medddpm.cohort.sources import Job
from medddpm.curation.acquisition import contrast_of_dicom
from medddpm.errors import OutputError
from medddpm.io.dicom import quiet_pydicom
from medddpm.node.options import NodeOptions, Rules
from medddpm.node.queue import Queue, Record, images_of, sync

log = logging.getLogger(__name__)


class Worker:
    """Restores what is in the queue.

    Args:
        queue: The series.
        options: Rules and quiet time.
        settings: How to restore; the outputs of a series are in a folder of its name.
    """

    def __init__(self, queue: Queue, options: NodeOptions, settings: Settings) -> None:
        self.queue, self.options, self.settings = queue, options, settings

    def step(self, stop: Event) -> None:
        """Do all series that have been quiet for long enough.

        Raises:
            OutputError: The disk is full or damaged; a series has to wait, the others were tried.
        """
        trouble: OutputError | None = None
        for name, files, quiet_s in self.queue.waiting():
            if stop.is_set():
                break
            if quiet_s < self._wait_s(name):
                continue
            try:
                self._keep(name, self._do(name, files))
            except OutputError as error:
                trouble = error
        if trouble is not None:
            raise trouble

    def _wait_s(self, name: str) -> float:
        """How long no image of a series must have come."""
        if self.queue.is_cut_off(name):
            return max(self.options.quiet_s, self.options.cut_off_s)
        return self.options.quiet_s

    def _keep(self, name: str, record: Record) -> None:
        self.queue.save(name, record)
        level = logging.WARNING if record.state == "failed" else logging.INFO
        log.log(level, "series %s: %s %s", name, record.state, record.reason)

    def _do(self, name: str, files: list[Path]) -> Record:
        images = images_of(files)
        try:
            why_not = why_left_out(files, self.options.rules)
        except Exception as error:  # a damaged header makes pydicom raise anything
            return Record("failed", images, f"its header is damaged ({type(error).__name__})")
        if why_not:
            return Record("skipped", images, why_not)
        job = Job(name, tuple(path.absolute() for path in files), folder=name)
        outcome = do_job(job, self.settings)
        if outcome.is_done:
            _sync_tree(self.settings.out / name)
            return Record("restored", images, outcome.reason)
        if outcome.state == "failed":
            return Record("failed", images, outcome.reason)
        raise OutputError(outcome.reason or f"series {name} is {outcome.state}")  # of the disk


def why_left_out(files: list[Path], rules: Rules) -> str:
    """Why a series is not restored, "" if it is."""
    with quiet_pydicom():
        header = dcmread(files[0], stop_before_pixels=True)
        count = sum(_frames(path) for path in files)
        description = str(header.get("SeriesDescription") or "")
        contrast = contrast_of_dicom(header) if rules.contrast else ""
    if _is_ours(header):
        return "it was made by medddpm"
    if str(header.get("Modality") or "") not in rules.modality:
        return "its modality is not in the rules"
    if not re.search(rules.description, description):
        return "its description is not in the rules"
    if rules.contrast and contrast not in rules.contrast:
        return f"its contrast is {contrast or 'unknown'}, which is not in the rules"
    if count < rules.min_images:
        return f"it has {count} images, the rules want {rules.min_images}"
    return ""


def _sync_tree(folder: Path) -> None:
    """What a record calls restored must outlive a power failure."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def _frames(path: Path) -> int:
    header = dcmread(path, stop_before_pixels=True, specific_tags=["NumberOfFrames"])
    return int(header.get("NumberOfFrames") or 1)


def _is_ours(header: Dataset) -> bool:
    """True if medddpm had a part in an object (Contributing Equipment, PS3.3 C.12.1.1.5)."""
    equipment = header.get("ContributingEquipmentSequence") or []
    return any(item.get("Manufacturer") == "medddpm" for item in equipment)
