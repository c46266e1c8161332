"""Series that are complete and selected are restored, each once."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from threading import Event

from pydicom.dataset import Dataset

from medddpm.cohort.job import Settings, do_job
from medddpm.cohort.sources import Job
from medddpm.data.acquisition import contrast_of_dicom
from medddpm.errors import DicomSeriesError, OutputError
from medddpm.io.dicom_files import read_object
from medddpm.io.dicom_groups import items_of
from medddpm.io.dicom_kind import holds_magnitude
from medddpm.io.dicom_quiet import quiet_pydicom
from medddpm.io.dicom_values import text, whole
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
        except DicomSeriesError as error:  # which names the attribute
            return Record("failed", images, str(error))
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
        return _why_left_out(files, rules)


def _why_left_out(files: list[Path], rules: Rules) -> str:
    headers = [read_object(path, pixels=False) for path in files]
    first, count = headers[0], sum(whole(header, "NumberOfFrames", 1) for header in headers)
    contrast = contrast_of_dicom(first) if rules.contrast else ""
    if _is_ours(first):
        return "it was made by medddpm"
    if text(first, "Modality") not in rules.modality:
        return "its modality is not in the rules"
    if not re.search(rules.description, text(first, "SeriesDescription")):
        return "its description is not in the rules"
    if rules.contrast and contrast not in rules.contrast:
        return f"its contrast is {contrast or 'unknown'}, which is not in the rules"
    if count < rules.min_images:
        return f"it has {count} images, the rules want {rules.min_images}"
    if not any(holds_magnitude(header) for header in headers):
        return "it shows phase, a real or imaginary part or a field map, not a magnitude"
    return ""


def _sync_tree(folder: Path) -> None:
    """What a record calls restored must outlive a power failure."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def _is_ours(header: Dataset) -> bool:
    """True if medddpm had a part in an object (Contributing Equipment, PS3.3 C.12.1.1.5)."""
    equipment = items_of(header, "ContributingEquipmentSequence")
    return any(text(item, "Manufacturer") == "medddpm" for item in equipment)
