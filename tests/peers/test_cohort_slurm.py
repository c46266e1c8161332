"""The cohort on a real Slurm of one node that the tests start: jobs end, are cancelled, time out.

Each test counts: nothing lost, nothing done twice, and the bytes are those of a local run.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from medddpm.cohort.bids.app import BidsRun, participant
from medddpm.share import share_dir

pytest.importorskip("dask_jobqueue")
TOOLS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
MISSING = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
pytestmark = [
    pytest.mark.peers,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"Slurm is not installed: no {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd starts jobs as root only"),
]
CONFIG = """
ClusterName=one
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
PlugStackConfig=/dev/null
SlurmdParameters=config_overrides
NodeName=localhost NodeHostname=localhost NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
PROGRAM = """#!{python}
import runpy
runpy.run_path("{spy}")
from medddpm.cli.bids import main
main()
"""
RECIPE = share_dir() / "pipelines" / "slurm_array.sh"
JOBQUEUE = """
jobqueue:
  slurm:
    cores: 1
    memory: 3GB
    walltime: "00:30:00"
    interface: lo
    death-timeout: 60
    log-directory: {folder}
"""


class Slurm:
    """A cluster of one node with two cores, all of it in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as first, socket.socket() as second:
            probes = (first, second)
            for probe in probes:
                probe.bind(("127.0.0.1", 0))
            ports = [probe.getsockname()[1] for probe in probes]
        text = CONFIG.format(folder=folder, ports=ports, user=getpass.getuser())
        (folder / "slurm.conf").write_text(text, encoding="ascii")
        (folder / "jobqueue.yaml").write_text(JOBQUEUE.format(folder=folder), encoding="utf-8")
        self.environment = {
            "PATH": PATH,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "DASK_CONFIG": str(folder / "jobqueue.yaml"),
            "OMP_NUM_THREADS": "1",
        }
        self.daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key, files = self.folder / "munge.key", self.folder / "munge"
        self.call("mungekey", "-c", "-k", key)
        paths = {"socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{name}={files}.{suffix}" for name, suffix in paths.items()]
        self._daemon("munged", "--foreground", "--force", f"--key-file={key}", *options)
        wait_until(lambda: (self.folder / "munge.sock").exists(), 30)
        self._daemon("slurmctld", "-D")
        self._daemon("slurmd", "-D", "-N", "localhost")
        wait_until(lambda: "idle" in self.call("sinfo", "-h", "-o", "%t", check=False), 60)

    def stop(self) -> None:
        for job in self.jobs():
            self.call("scancel", "--signal=KILL", "--full", job, check=False)
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in reversed(self.daemons):
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def call(self, *words: object, check: bool = True) -> str:
        done = subprocess.run(
            [str(word) for word in words],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def jobs(self, *options: str) -> list[str]:
        """Numbers of the jobs that wait or run."""
        return self.call("squeue", "-h", "-o", "%A", *options, check=False).split()

    def running(self) -> list[str]:
        return self.jobs("--states=RUNNING")

    def submit(self, *words: object, **environment: str) -> str:
        told = [f"{name}={value}" for name, value in environment.items()]
        sbatch = ("sbatch", "--parsable", f"--chdir={self.folder}")
        return self.call("env", *told, *sbatch, *words).split(";")[0]

    def wait(self, seconds: float = 600) -> None:
        wait_until(lambda: not self.jobs(), seconds)

    def state(self, job: str) -> str:
        words = self.call("scontrol", "show", "job", job).split()
        return next(word for word in words if word.startswith("JobState=")).partition("=")[2]

    def _daemon(self, *words: str) -> None:
        log = (self.folder / f"{words[0]}.out").open("wb")
        with log:
            daemon = subprocess.Popen(
                list(words), env=os.environ | self.environment, stdout=log, stderr=log
            )
        self.daemons.append(daemon)


def wait_until(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each image."""
    paths = sorted(folder.rglob("*.nii.gz"))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    cluster = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def place(workplace: Any, slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes a workplace whose runs talk to this Slurm; no job outlives the test."""
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    yield workplace
    for job in slurm.jobs():
        slurm.call("scancel", job, check=False)
    slurm.wait(60)


def test_jobs_give_the_bytes_of_a_local_run(place: Any, slurm: Slurm) -> None:
    work = place(12)
    code, said = work.run("--cluster", "slurm", "--workers", 2)
    assert code == 0, said
    work.check_whole()
    slurm.wait(30)
    ours = digests(work.out)
    work.out = work.folder / "local"
    code, said = work.run("--workers", 2)
    assert code == 0, said
    assert len(ours) == 12
    assert digests(work.out) == ours


@pytest.mark.parametrize("num_cancelled", [1, 2])
def test_cancelled_jobs_come_back(place: Any, slurm: Slurm, num_cancelled: int) -> None:
    work = place(16)
    process = work.start("--cluster", "slurm", "--workers", 2, sleep=2)
    work.wait_for_records(2)
    wait_until(lambda: len(slurm.running()) == 2, 120)
    before = slurm.running()
    for job in before[:num_cancelled]:
        slurm.call("scancel", job)
    wait_until(lambda: len(set(slurm.running()) - set(before)) == num_cancelled, 180)
    code, said = work.finish(process)
    assert code == 0, said
    work.check_whole()


def test_the_main_process_killed(place: Any, slurm: Slurm) -> None:
    work = place(8)
    process = work.start("--cluster", "slurm", "--workers", 2, sleep=1)
    work.wait_for_records(2)
    process.kill()
    process.communicate()
    slurm.wait(180)  # the jobs end by themselves
    before = len(work.saved())
    assert 2 <= before < 8
    code, said = work.run("--cluster", "slurm", "--workers", 2, "--resume")
    assert code == 0, said
    work.check_whole()


def bids_from(work: Any, num_subjects: int, num_sessions: int) -> Path:
    """A BIDS data set of the scans of a workplace."""
    raw = Path(work.folder / "raw")
    raw.mkdir()
    text = '{"Name": "phantoms", "BIDSVersion": "1.10.0"}'
    (raw / "dataset_description.json").write_text(text, encoding="utf-8")
    scans = iter(sorted((work.folder / "in").iterdir()))
    for subject in range(1, num_subjects + 1):
        for session in range(1, num_sessions + 1):
            folder = raw / f"sub-{subject:02d}" / f"ses-{session:02d}" / "anat"
            folder.mkdir(parents=True)
            name = f"sub-{subject:02d}_ses-{session:02d}_T1w.nii.gz"
            shutil.copy(next(scans), folder / name)
    return raw


def test_the_array_recipe(place: Any, slurm: Slurm) -> None:
    work = place(4)
    raw, out = bids_from(work, 2, 2), work.folder / "array"
    options = ["--weights", work.weights]
    small = ["--cpus-per-task=1", "--mem=2G"]
    job = slurm.submit("--array=1-3%2", *small, RECIPE, raw, out, *options)
    words = f"exec medddpm-bids {raw} {out} group --skip-bids-validator --weights {work.weights}"
    last = slurm.submit(f"--dependency=afterany:{job}", *small, f"--wrap={words}")
    slurm.wait()
    assert [slurm.state(f"{job}_{task}") for task in (1, 2, 3)] == ["COMPLETED"] * 3
    assert slurm.state(last) == "COMPLETED"
    assert (out / "index.html").exists()
    participant(BidsRun(raw, work.out, weights=work.weights))
    ours = digests(out)
    assert len(ours) == 4
    assert digests(work.out) == ours


def test_the_signal_before_the_limit(place: Any, slurm: Slurm) -> None:
    """Slurm sends it 30 to 60 s too early; the limit itself would come at 240 s."""
    work = place(40)
    raw, spied = bids_from(work, 1, 40), work.folder / "spied"
    (spied / "bin").mkdir(parents=True)
    program = spied / "bin" / "medddpm-bids"
    program.write_text(PROGRAM.format(python=sys.executable, spy=work.spy), encoding="utf-8")
    program.chmod(0o755)
    small = ["--cpus-per-task=1", "--mem=2G"]
    told = work.environment(sleep=10)
    words = shlex.join(work.command("--workers", 2))
    submit = partial(slurm.submit, f"--output={slurm.folder}/%A.log", *small)
    cohort = submit("--time=4", "--signal=B:TERM@60", f"--wrap=exec {words}", **told)
    given = [RECIPE, raw, work.folder / "array", "--weights", work.weights]
    with_spy = told | {"SPY_FOLDER": str(spied), "PATH": f"{spied / 'bin'}:{PATH}"}
    array = submit("--time=4", "--array=1", *given, **with_spy)
    slurm.wait()
    for job, name in ((cohort, cohort), (array, f"{array}_1")):
        assert slurm.state(name) == "FAILED", "not TIMEOUT"
        assert "no half-written output is left" in (slurm.folder / f"{job}.log").read_text()
    for folder in (work.out, work.folder / "array"):
        assert 1 <= len(digests(folder)) < 40
        assert not list(folder.rglob(".medddpm-*"))
        assert not list((folder / ".medddpm" / "claims").iterdir())
    again = submit("--array=1", *given, **(with_spy | {"SPY_SLEEP": "0"}))
    code, said = work.run("--workers", 2, "--resume", seconds=500)
    assert code == 0, said
    work.check_whole()
    slurm.wait()
    assert slurm.state(f"{again}_1") == "COMPLETED"
    assert len(digests(work.folder / "array")) == 40
    records = (spied / "saved.log").read_text().splitlines()
    assert len(records) == len(set(records)) == 40


def test_jobs_that_slurm_refuses(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_JOBQUEUE__SLURM__QUEUE", "nowhere")
    code, said = place(1).run("--cluster", "slurm")
    assert code == 2
    assert "slurm takes no jobs" in said
    assert "Invalid partition" in said


def test_jobs_that_end_before_they_work(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_JOBQUEUE__SLURM__PYTHON", "/bin/false")
    code, said = place(1).run("--cluster", "slurm")
    assert code == 7
    assert "jobs of the batch system end before they work" in said
